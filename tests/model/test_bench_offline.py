"""The offline benchmark on a tiny model: the figures of a real engine, and a peer beside it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from fake_peer import Fake, is_running
from minisgl_tui.engine.bench.compare import run_offline
from minisgl_tui.engine.bench.costs import Limits, ModelCost
from minisgl_tui.engine.bench.machine import measure_limits
from minisgl_tui.engine.bench.measures import RunFailed
from minisgl_tui.engine.bench.offline import OfflineEngine
from minisgl_tui.engine.bench.peer import PeerChoice
from minisgl_tui.engine.bench.report import show_offline
from minisgl_tui.engine.bench.workloads import BenchRequest, BenchWorkload, choose
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.loader import open_checkpoint
from minisgl_tui.engine.model_store import no_progress
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.tui import cli

from .harness import make_checkpoint

SETTINGS = {"dtype": "float32", "device": "cpu", "num_blocks": 200}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tiny")
    make_checkpoint("llama", directory)
    return directory


@pytest.fixture(scope="module")
def engine(tiny: Path) -> OfflineEngine:
    made = OfflineEngine(tiny, SETTINGS, no_progress)
    made.warm_up(SHARED)
    return made


def request(prompt: list[int], output_len: int = 4, **more: int) -> BenchRequest:
    params = SamplingParams(temperature=0, max_tokens=output_len, ignore_eos=True)
    return BenchRequest(prompt=prompt, params=params, **more)


def workload(*requests: BenchRequest) -> BenchWorkload:
    return BenchWorkload("load", list(requests))


SHARED = workload(*(request([*range(3, 67), last]) for last in range(70, 78)))


def test_each_run_is_cold_and_the_same(engine: OfflineEngine) -> None:
    first, second = engine.run(SHARED), engine.run(SHARED)
    assert first.cached_tokens == second.cached_tokens == 7 * 64
    assert (first.prompt_tokens, first.output_tokens, first.steps) == (8 * 65, 32, second.steps)
    assert (len(first.ttft), len(first.itl)) == (8, 24)
    assert sum(first.phases.values()) == pytest.approx(first.seconds)
    assert first.phases["forward"] > 0
    assert max(first.ttft) < first.seconds


def test_requests_arrive_at_their_step_and_nobody_waits_for_an_idle_engine(
    engine: OfflineEngine,
) -> None:
    load = workload(
        request([5] * 9, 3),
        request([6] * 9, 2, at_step=1),
        request([7] * 9, 2, at_step=500),
        request([8] * 9, 2, at_step=500),
    )
    run = engine.run(load)
    assert run.steps == 3 + 2


def test_what_cannot_fit_is_refused_before_anything_runs(engine: OfflineEngine) -> None:
    with pytest.raises(UserError, match="workload load, request 2: token id 199 is not in"):
        engine.run(workload(request([5]), request([199])))


def test_a_request_that_gets_too_little_fails_the_run(tiny: Path) -> None:
    small = OfflineEngine(tiny, {**SETTINGS, "num_blocks": 2}, no_progress)
    with pytest.raises(RunFailed, match="workload load, request 1:"):
        small.run(workload(request([5] * 30, 20)))
    assert small.run(workload(request([5] * 20, 2))).output_tokens == 2


def test_the_warm_up_takes_no_more_room_than_the_workload(tmp_path: Path, file: str) -> None:
    make_checkpoint("llama", tmp_path, max_position_embeddings=6, vocab_size=10)
    (three,), _ = choose([file], 10, 6, lambda request: request.tokens or [])
    for settings in (SETTINGS, {**SETTINGS, "num_blocks": 1, "block_size": 8}):
        engine = OfflineEngine(tmp_path, settings, no_progress)
        engine.warm_up(three)
        assert engine.run(three).cached_tokens == 0
    with pytest.raises(UserError, match="workload load, request 1: the prompt has 7 tokens"):
        engine.warm_up(workload(request([5] * 7)))


def test_a_model_costs_what_its_shapes_say(tiny: Path) -> None:
    checkpoint = open_checkpoint(tiny)
    cost = ModelCost.of(tiny, checkpoint.vocab_size, checkpoint.attention, 4)
    layer = 48 * 48 * 2 + 48 * 16 * 2 + 3 * 48 * 80
    assert cost == ModelCost(
        body=3 * layer, head=199 * 48, kv=3 * 2 * 16, attend=3 * 4 * 48, itemsize=4
    )


def test_the_limits_of_the_machine_are_plausible() -> None:
    limits = measure_limits(torch.device("cpu"), torch.float32)
    assert 5e8 < limits.read_bandwidth < 2e12
    assert 1e9 < limits.peak < 1e14


def test_results_have_the_machine_the_roof_and_a_table_under_100_columns(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "minisgl_tui.engine.bench.offline.measure_limits", lambda *_: Limits(1e10, 1e11)
    )
    other = BenchWorkload("other", SHARED.requests, {"block_size": 8, "max_running_requests": 2})
    stages: list[str] = []
    results = run_offline(
        tiny,
        open_checkpoint(tiny),
        [SHARED, other],
        SETTINGS,
        repeats=2,
        threads=2,
        progress=lambda stage, fraction: stages.append(stage),
    )
    shared, changed = results.workloads
    assert len(shared.repeats) == 2
    assert (changed.steps or 0) > (shared.steps or 0)
    assert shared.roof is not None
    assert 0 < shared.roof.memory <= shared.roof.fraction
    assert (results.machine.threads, results.machine.dtype) == (2, "float32")
    repeats = [stage for stage in stages if ", repeat" in stage]
    assert repeats == [f"{name}, repeat {n} of 2" for name in ("load", "other") for n in (1, 2)]
    text = show_offline(results)
    shared.others, changed.others = 0.9, 0.05
    notes = show_offline(results).splitlines()[-1]
    assert notes == "other programs took 0.9 cores during load: it was slower for that"
    assert all(len(line) < 100 for line in text.splitlines())
    assert "load" in text and "GB/s" in text


def test_a_peer_takes_turns_with_us_and_is_compared(tiny: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    results = run_offline(
        tiny,
        open_checkpoint(tiny),
        [SHARED],
        SETTINGS,
        repeats=2,
        threads=2,
        peers=[PeerChoice.parse(f"vllm={Fake(tmp_path).python()}")],
        progress=lambda stage, fraction: stages.append(stage),
    )
    (peer,) = results.peers
    rate = results.workloads[0].output_tokens_per_s
    assert peer.ratios == pytest.approx({"load": rate / (32 / 0.5)})
    assert results.notes == []
    assert [stage for stage in stages if ", repeat" in stage] == [
        f"load, repeat {n} of 2: {name}" for n in (1, 2) for name in ("minisgl-tui", peer.name)
    ]
    assert "fake 1.0 of float32  ratio" in show_offline(results)


def test_a_peer_that_gave_less_or_did_other_work_is_not_taken_for_faster(
    tiny: Path, tmp_path: Path
) -> None:
    params = SamplingParams(temperature=0, max_tokens=8, stop_token_ids=tuple(range(199)))
    load = workload(BenchRequest(prompt=[5], params=params, priority=1))  # ends after one token
    results = run_offline(
        tiny,
        open_checkpoint(tiny),
        [load],
        SETTINGS,
        repeats=1,
        threads=1,
        peers=[PeerChoice.parse(f"vllm={Fake(tmp_path).python()}")],  # gives all eight
    )
    (peer,), (ours,) = results.peers, results.workloads
    assert ours.output_tokens == 1
    assert peer.ratios == pytest.approx({"load": (1 / ours.seconds) / (8 / 0.5)})
    assert results.notes == [
        "load: fake 1.0 of float32 does not heed priority of every request, so it did other work"
    ]


@pytest.mark.long
def test_transformers_counts_to_the_end_of_an_answer(tiny: Path) -> None:
    params = SamplingParams(temperature=0, max_tokens=40)
    open_ended = workload(*(BenchRequest(prompt=[n, 3], params=params) for n in range(3, 35)))
    results = run_offline(
        tiny,
        open_checkpoint(tiny),
        [open_ended],
        SETTINGS,
        repeats=1,
        threads=1,
        peers=[PeerChoice.parse("transformers")],
    )
    (peer,), (ours,) = results.peers, results.workloads
    assert ours.output_tokens < open_ended.output_tokens
    assert peer.workloads[0].output_tokens == ours.output_tokens


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "minisgl_tui.tui.cli", "bench", *words]


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "mine.toml"
    path.write_text("[[requests]]\ntokens = [9, 8, 7]\nmax_tokens = 3\nignore_eos = true\n")
    return str(path)


def test_the_command_prints_json_with_everything(
    tiny: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", str(tiny), "--workload", file, "--repeats", "1", "--threads", "2"]
    assert cli.main(["bench", *words, "--dtype", "float32", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["machine"]["torch"] == torch.__version__
    assert results["engine"] == {"dtype": "float32"}
    (report,) = results["workloads"]
    assert (report["workload"], report["output_tokens"], report["steps"]) == ("mine", 3, 3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_its_peers(tiny: Path, tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "endless.toml"
    path.write_text(
        "[[requests]]\ntokens = [9]\nmax_tokens = 500\nignore_eos = true\nrepeat = 5000\n"
    )
    fake = Fake(tmp_path)
    peer = f"vllm={fake.python()}"
    words = command(
        "--model", str(tiny), "--workload", str(path), "--dtype", "float32", "--peer", peer
    )
    running = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    try:
        assert running.stderr is not None
        for line in running.stderr:
            if "repeat 1 of 3" in line:
                break
        time.sleep(0.5)
        running.send_signal(number)
        _, rest = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 128 + number, rest
    assert rest == ("minisgl-tui: interrupted\n" if number == signal.SIGINT else "")
    assert not any(is_running(pid) for pid in fake.pids)


@pytest.mark.long
def test_transformers_runs_beside_it_and_gives_what_was_asked(tiny: Path) -> None:
    mixed = workload(request([5] * 9, 3), request([6, 7], 6), *[request([8] * 20, 2)] * 20)
    results = run_offline(
        tiny,
        open_checkpoint(tiny),
        [mixed],
        SETTINGS,
        repeats=2,
        threads=min(2, os.cpu_count() or 1),
        peers=[PeerChoice.parse("transformers")],
    )
    (peer,) = results.peers
    assert peer.name.startswith("transformers ")
    (theirs,) = peer.workloads
    assert theirs.output_tokens == 3 + 6 + 40
    assert len(theirs.repeats) == 2
    ours = results.workloads[0]
    assert peer.ratios == {"load": ours.output_tokens_per_s / theirs.output_tokens_per_s}
    assert peer.name in show_offline(results)
