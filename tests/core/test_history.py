"""Time travel: forward equals seek, in files and in live runs, and it takes milliseconds."""

import random
import statistics
import time
from pathlib import Path

import msgspec
import pytest
from helpers import Bench
from minisgl_tui.engine import trace as trace_module
from minisgl_tui.engine.bench.busy import Busy
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.events import Position, StepRecord
from minisgl_tui.engine.history import History, Span
from minisgl_tui.engine.state import EngineState
from minisgl_tui.engine.trace import Header, Model, TraceWriter
from minisgl_tui.engine.trace_file import Trace
from test_oracle import run_load


def resident_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def seek_times(history: History, wanted: dict[int, str], seeks: int) -> list[float]:
    """Processor seconds to find random states; those in ``wanted`` are compared."""
    rng, took = random.Random(1), []
    for number in [*rng.sample(list(wanted), min(60, len(wanted))), *[-1] * seeks]:
        records = rng.randrange(len(history)) if number < 0 else number
        position = history.position_after(records)
        began = time.process_time()
        state = history.state_at(position)
        took.append(time.process_time() - began)
        if number >= 0:
            assert state.digest() == wanted[number]
    return took


def told(what: str, seconds: list[float]) -> str:
    ms = sorted(1e3 * s for s in seconds)
    middle = statistics.median(ms)
    return f"{what} (processor time): median {middle:.1f} ms, worst {ms[-1]:.1f} of {len(ms)}"


# --- forward = seek ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_a_live_history_finds_every_state_again(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_module, "SPARSEST", 2000)
    load = run_load(seed)
    state = EngineState(load.config)
    history = History.live(state)
    digests = [state.digest()]
    for record in load.records:
        state.apply(record)
        history.append(record, state)
        digests.append(state.digest())
        back = random.Random(len(digests)).randrange(len(digests))
        assert history.state_after(back).digest() == digests[back]
    history.settle()
    assert history._keyframes
    encode = msgspec.json.encode
    assert [encode(r) for r in history.records()] == [encode(r) for r in load.records]
    for number in reversed(range(len(digests))):
        found = history.state_after(number)
        assert found.digest() == digests[number]
        found.requests.clear()  # it is the caller's own
    history.close()


def test_a_live_history_may_begin_under_way() -> None:
    load = run_load(4)
    half = len(load.records) // 2
    state = EngineState(load.config)
    for record in load.records[:half]:
        state.apply(record)
    history, begun = History.live(state), state.digest()
    for record in load.records[half:]:
        state.apply(record)
        history.append(record, state)
    assert history.state_at(history.start).digest() == begun
    assert history.state_at(history.end).digest() == state.digest()


def test_steps_of_a_history_are_walked_both_ways() -> None:
    bench = Bench()
    history = History.live(bench.state)
    bench.engine.log.listen(lambda record: history.append(record, bench.state))
    assert history.start == history.end == (0, -1)
    assert history.before(history.start) is None and history.after(history.end) is None
    bench.submit([1] * 9)
    bench.step(2)
    bench.submit([2] * 9)
    bench.finish()
    last = bench.engine.step_count
    forward = [history.start]
    while following := history.step_after(forward[-1]):
        forward.append(following)
    assert [at.step for at in forward[1:]] == list(range(last + 1))
    assert history.state_at(forward[3]).waiting == [1]  # what came after step 2 belongs to it
    backward = [history.end]
    while earlier := history.step_before(backward[-1]):
        backward.append(earlier)
    assert backward[::-1] == forward
    assert history.end_of_step(10**9) == history.end
    inside = Position(2, 0)
    assert history.step_before(inside) == forward[2] and history.step_after(inside) == forward[3]


def test_a_position_that_is_not_there_is_refused_with_what_there_is() -> None:
    bench = Bench()
    history = History.live(bench.state)
    with pytest.raises(UserError, match=r"there is no 3:1: nothing is recorded"):
        history.state_at(Position(3, 1))
    bench.engine.log.listen(lambda record: history.append(record, bench.state))
    bench.submit([1] * 9)
    bench.step()
    with pytest.raises(UserError, match=r"no step 9; the recording goes to 1:"):
        history.state_at(Position(9, 0))
    with pytest.raises(UserError, match=r"there is no event 1:99; step 1 has 0 to \d+"):
        history.state_at(Position(1, 99))


def test_a_history_that_cannot_grow_says_so_and_keeps_what_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = run_load(2)
    state = EngineState(load.config)
    history = History.live(state)

    def full(line: bytes) -> None:
        raise OSError(28, "No space left on device")

    for number, record in enumerate(load.records):
        if number == 5:
            monkeypatch.setattr(history, "_write", full)
        state.apply(record)
        history.append(record, state)
    assert len(history) == 5
    assert history.gap == f"the past ends at {history.end}: No space left on device"
    assert history.state_at(history.end).step == history.end.step


def test_a_snapshot_that_cannot_be_written_ends_a_history_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trace_module, "SPARSEST", 2000)
    load = run_load(2)
    state = EngineState(load.config)
    history = History.live(state)
    write = history._write

    def full(line: bytes) -> Span:
        if line.startswith(b'{"k":"step"'):
            return write(line)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(history, "_write", full)
    for record in load.records:
        state.apply(record)
        history.append(record, state)
    history.close()
    assert 0 < len(history) <= len(load.records)
    assert history.gap.endswith("No space left on device")


# --- large ones ----------------------------------------------------------------------------------


def test_ten_thousand_steps_are_scrubbed_from_end_to_end(tmp_path: Path) -> None:
    scrub(tmp_path / "run.mtrace", steps=10_000, running=8, limit=0.1)


@pytest.mark.long
@pytest.mark.parametrize("running", [8, 64])
def test_a_hundred_thousand_steps_are_scrubbed_from_end_to_end(
    tmp_path: Path, running: int
) -> None:
    scrub(tmp_path / "run.mtrace", steps=100_000, running=running, limit=0.1)


def scrub(path: Path, steps: int, running: int, limit: float) -> None:
    """Record, open, and find states at random, one after the other, and backwards."""
    busy = Busy(running)
    header = Header(
        epoch="scrub", config=busy.config, model=Model("none"), t0=0.0, clock=busy.clock()
    )
    writer = TraceWriter(path, header)
    wanted: dict[int, str] = {}

    def follow(record: StepRecord) -> None:
        writer.write(record, busy.state)
        if writer.records % (steps // 100) == 0:
            wanted[writer.records] = busy.state.digest()

    busy.engine.log.listen(follow)
    busy.steps(steps)
    writer.close()
    began = time.process_time()
    trace = Trace.open(path)
    opened = time.process_time() - began
    history = trace.history
    assert not trace.cut and history.end.step == steps
    anywhere = seek_times(history, wanted, seeks=100)
    at, back = history.end, []
    for _ in range(300):
        began = time.process_time()
        earlier = history.step_before(at)
        assert earlier
        history.state_at(earlier)
        back.append(time.process_time() - began)
        at = earlier
    print(
        f"\n{steps:,} steps, {running} running: {path.stat().st_size / 1e6:.0f} MB, "
        f"{len(history._keyframes)} snapshots, opened in {opened:.2f} s"
    )
    print(told("anywhere", anywhere))
    print(told("one step back", back))
    assert statistics.median(anywhere) < limit and statistics.median(back) < limit


@pytest.mark.long
def test_an_hour_of_a_busy_engine_stays_small_in_memory() -> None:
    busy = Busy(64)
    history = History.live(busy.state)
    before = resident_mb()
    busy.engine.log.listen(lambda record: history.append(record, busy.state))
    busy.steps(108_000)
    seek_times(history, {}, seeks=50)
    grown = resident_mb() - before
    print(f"\n{len(history):,} records, {grown:.0f} MB grown, {history._size / 1e6:.0f} MB on disk")
    assert grown < 500
