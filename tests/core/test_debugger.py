"""Stop and go, with the engine in a thread of its own."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from helpers import Bench
from minisgl_tui.engine.debugger import Debugger, Mode
from minisgl_tui.engine.sampling import SamplingParams

LONG = SamplingParams(max_tokens=200)


@contextmanager
def running(bench: Bench, **callbacks: Callable) -> Iterator[Debugger]:
    debugger = Debugger(bench.engine, **callbacks)
    thread = threading.Thread(target=debugger.run, daemon=True)
    thread.start()
    yield debugger
    debugger.close()
    thread.join(5)
    assert not thread.is_alive()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "waited 5 s in vain"
        time.sleep(0.002)


def settled(debugger: Debugger, steps: int) -> bool:
    return debugger.mode is Mode.PAUSED and debugger.engine.step_count == steps


def test_it_starts_paused_and_takes_exactly_the_steps_asked_for() -> None:
    bench = Bench()
    with running(bench) as debugger:
        debugger.submit([1, 2, 3], LONG)
        until(lambda: not debugger.idle)
        assert bench.engine.step_count == 0
        debugger.step()
        until(lambda: settled(debugger, 1))
        debugger.step(3)
        debugger.step(2)
        until(lambda: settled(debugger, 6))


def test_play_runs_until_paused_and_a_rate_spaces_the_steps() -> None:
    bench = Bench()
    with running(bench) as debugger:
        debugger.submit([1, 2, 3], LONG)
        debugger.play(rate=100)
        until(lambda: bench.engine.step_count >= 5)
        debugger.pause()
        until(lambda: debugger.mode is Mode.PAUSED)
        steps = bench.engine.step_count
        time.sleep(0.05)
        assert bench.engine.step_count == steps


def test_play_pauses_by_itself_when_the_work_is_done() -> None:
    bench = Bench(num_blocks=100)
    with running(bench) as debugger:
        debugger.submit([1, 2, 3], LONG)
        debugger.play()
        until(lambda: settled(debugger, 200))
        assert debugger.idle


def test_changes_are_told() -> None:
    told: list[Mode] = []
    bench = Bench(num_blocks=100)
    with running(bench, on_change=lambda: told.append(bench_debugger[0].mode)) as debugger:
        bench_debugger = [debugger]
        debugger.submit([1, 2, 3], LONG)
        debugger.play()
        until(lambda: settled(debugger, 200))
    assert told[:3] == [Mode.PAUSED, Mode.PLAYING, Mode.PAUSED]


def test_a_malformed_prompt_is_answered_and_the_loop_lives_on() -> None:
    errors: list[str] = []
    bench = Bench()
    with running(bench, on_error=errors.append) as debugger:
        debugger.submit([], LONG)
        debugger.submit([1], LONG)
        until(lambda: bool(bench.engine.requests))
    assert errors == ["the prompt is empty; it needs at least one token"]


def test_arrivals_come_when_their_step_is_reached_or_nothing_else_is_left() -> None:
    bench = Bench()
    two = SamplingParams(max_tokens=2)
    with running(bench) as debugger:
        debugger.submit([1], two)
        debugger.submit([2], two, at_step=50)
        debugger.submit([3], two, at_step=1)
        debugger.step()
        until(lambda: settled(debugger, 1))
        assert [r.tokens[0] for r in bench.engine.requests.values()] == [1, 3]
        debugger.play()
        until(lambda: debugger.idle and debugger.mode is Mode.PAUSED)
    assert bench.state.sampled_tokens == 6
    assert bench.engine.step_count < 10


def test_abort_goes_through_the_loop() -> None:
    bench = Bench()
    with running(bench) as debugger:
        debugger.submit([1], LONG)
        debugger.step(2)
        debugger.abort(0)
        until(lambda: debugger.idle)
    assert bench.state.requests[0].finish_reason == "abort"


def test_an_error_of_the_loop_reaches_the_caller_of_run() -> None:
    bench = Bench()
    debugger = Debugger(bench.engine)
    debugger.submit([1], LONG)
    debugger.step()

    def broken(record: object) -> None:
        raise RuntimeError("the listener broke")

    bench.engine.log.listen(broken)
    with pytest.raises(RuntimeError, match="the listener broke"):
        debugger.run()
