"""A recording steps, plays and stops in the debugger as the engine did that it was made of."""

import threading

import pytest
from helpers import Bench
from minisgl_tui.engine.debugger import Debugger
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.events import StepRecord
from minisgl_tui.engine.history import History
from minisgl_tui.engine.playback import Playback
from minisgl_tui.engine.state import EngineState
from minisgl_tui.engine.stops import StopReason


def played() -> tuple[Bench, History]:
    bench = Bench(num_blocks=8)
    history = History.live(bench.state)
    bench.engine.log.listen(lambda record: history.append(record, bench.state))
    bench.submit([1] * 12, max_tokens=12)
    bench.submit([2] * 12, max_tokens=12)
    bench.step(3)
    bench.submit([3] * 8, max_tokens=2)
    bench.finish()
    return bench, history


def test_each_step_hands_out_what_the_engine_said_in_it() -> None:
    bench, history = played()
    playback = Playback(history)
    heard: list[StepRecord] = []
    playback.log.listen(heard.append)
    playback.begin()
    assert playback.step_count == 0 and len(heard) == 2  # both were there before the first step
    for step in range(1, bench.engine.step_count + 1):
        playback.step()
        assert playback.step_count == step
        assert [r.seq for r in heard] == [r.seq for r in bench.records if r.step <= step]
    assert not playback.has_work()
    playback.step()
    assert len(heard) == len(bench.records)


def test_what_is_passed_over_stops_nobody_and_breakpoints_go_on_behind_it() -> None:
    bench, history = played()
    playback = Playback(history)
    debugger = Debugger(playback, state=EngineState(bench.config))
    debugger.add_breakpoint("ev == 'finished'")
    debugger.add_breakpoint("waiting > 0")
    passed = history.records_until(history.end_of_step(4))
    for number in range(passed):
        assert playback.skip().seq == history.record(number).seq
    debugger.rejoin(history.state_after(passed))
    assert playback.step_count == 4
    debugger.play()
    heard: list[StepRecord] = []
    playback.log.listen(heard.append)
    debugger.on_change = lambda: debugger.close() if debugger.last_stop else None
    debugger.run()
    assert debugger.last_stop and debugger.last_stop.hits
    assert [r.seq for r in heard] == [
        r.seq for r in bench.records if 4 < r.step <= debugger.last_stop.step
    ]
    assert debugger.state == history.state_at(history.end_of_step(debugger.last_stop.step))


def test_breakpoints_and_until_stop_a_recording_where_they_stop_the_engine() -> None:
    bench, history = played()
    playback = Playback(history)
    debugger = Debugger(playback, state=EngineState(bench.config))
    playback.begin()
    thread = threading.Thread(target=debugger.run)
    stopped = threading.Semaphore(0)
    debugger.on_change = lambda: stopped.release() if debugger.last_stop else None
    debugger.until("ev == 'preempted'")
    thread.start()
    assert stopped.acquire(timeout=10)
    (hit,) = debugger.stops[-1].hits
    wanted = next(
        r.position(i)
        for r in bench.records
        for i, event in enumerate(r.events)
        if type(event).__name__ == "Preempted"
    )
    assert (hit.step, hit.index) == wanted
    assert debugger.state and debugger.state.digest() == (
        history.state_at(history.end_of_step(wanted.step)).digest()
    )
    while debugger.last_stop is None or debugger.last_stop.reason is not StopReason.IDLE:
        debugger.play()
        assert stopped.acquire(timeout=10)
    debugger.close()
    thread.join(10)
    assert debugger.state.digest() == bench.state.digest()


def test_a_recording_takes_no_prompts() -> None:
    playback = Playback(played()[1])
    for ask in (lambda: playback.abort(0), lambda: playback.submit([1], None)):  # pyright: ignore
        with pytest.raises(UserError, match="this is a recording: it can be played, not changed"):
            ask()
