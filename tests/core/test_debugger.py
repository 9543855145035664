"""Stop and go, with the engine in a thread of its own."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from helpers import Bench
from minisgl_tui.engine.breakpoints import on_block, on_event, on_node, on_request
from minisgl_tui.engine.debugger import RETAIN_STOPS, Debugger, Mode
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.events import Finished
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.state import EngineState
from minisgl_tui.engine.stops import Stopped

LONG = SamplingParams(max_tokens=200)


def test_who_serves_plays_on_when_out_of_work():
    bench = Bench()
    with running(bench, stops_when_idle=False) as debugger:
        debugger.play()
        for count in (1, 2):
            debugger.submit([1, 2, 3], SamplingParams(max_tokens=3))
            until(lambda count=count: bench.engine.step_count == 3 * count)
            until(lambda: debugger.idle)
        assert debugger.mode is Mode.PLAYING and debugger.stops == ()
        debugger.pause()
        until(lambda: debugger.mode is Mode.PAUSED)
        debugger.submit([1, 2, 3], SamplingParams(max_tokens=3))
        called = threading.Event()
        debugger.call(called.set)
        assert called.wait(5) and bench.engine.step_count == 6
        debugger.play()
        until(lambda: bench.engine.step_count == 9)
        assert debugger.mode is Mode.PLAYING


@contextmanager
def running(bench: Bench, **callbacks: Any) -> Iterator[Debugger]:
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
    assert bench.state.stats.sampled_tokens == 6
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


# --- breakpoints, until and why it stopped -------------------------------------------------------


def stopped(debugger: Debugger, number: int = 1) -> Stopped:
    """The ``number``-th stop, once it is there."""
    until(lambda: len(debugger.stops) >= number and debugger.mode is Mode.PAUSED)
    return debugger.stops[number - 1]


def test_a_breakpoint_stops_play_at_the_end_of_its_step_and_play_goes_on_from_there() -> None:
    bench = Bench()
    with running(bench) as debugger:
        number = debugger.add_breakpoint("ev == 'sampled' and step in (3, 5)")
        debugger.submit([1, 2, 3], LONG)
        debugger.play()
        first = stopped(debugger)
        assert (first.reason, first.step, bench.engine.step_count) == ("breakpoint", 3, 3)
        (hit,) = first.hits
        assert (hit.breakpoint, hit.step, hit.hit) == (number, 3, 1)
        assert bench.records[-1].events[hit.index] == hit.event
        assert first.text == hit.text
        assert debugger.last_stop == first
        debugger.play()
        assert stopped(debugger, 2).step == 5


def test_a_breakpoint_cuts_a_run_of_steps_short() -> None:
    bench = Bench()
    with running(bench) as debugger:
        debugger.add_breakpoint("sampled >= 2")
        debugger.submit([1], LONG)
        debugger.step(10)
        assert (stopped(debugger).reason, bench.engine.step_count) == ("breakpoint", 2)
        debugger.step()
        assert (stopped(debugger, 2).reason, bench.engine.step_count) == ("step", 3)


def test_the_common_kinds_are_taken_as_they_are() -> None:
    bench = Bench()
    with running(bench) as debugger:
        debugger.submit([1], SamplingParams(max_tokens=3))
        for condition in (on_event("finished"), on_request(0), on_node(9), on_block(9)):
            debugger.add_breakpoint(condition)
        debugger.play()
        assert {hit.breakpoint for hit in stopped(debugger).hits} == {2}
        debugger.remove(2)
        debugger.play()
        assert {hit.breakpoint for hit in stopped(debugger, 2).hits} == {1}


def test_until_plays_to_the_step_in_which_it_comes_true_and_leaves_nothing_behind() -> None:
    bench = Bench()
    with running(bench) as debugger:
        debugger.submit([1], LONG)
        debugger.until("step >= 7")
        first = stopped(debugger)
        assert (first.reason, first.step, first.until) == ("until", 7, "step >= 7")
        assert first.text == "7:0 step_began: step >= 7"
        assert debugger.breakpoints == ()
        debugger.until("ev == 'sampled' and 0 in reqs")
        assert stopped(debugger, 2).step == 8


def test_until_something_that_is_so_already_stops_at_once() -> None:
    bench = Bench()
    with running(bench) as debugger:
        debugger.submit([1], LONG)
        debugger.until("waiting > 0")
        assert stopped(debugger).text == "already so: waiting > 0"
        assert bench.engine.step_count == 0


def test_until_also_stops_when_the_work_is_done_and_says_that_it_was_not_reached() -> None:
    bench = Bench(num_blocks=100)
    with running(bench) as debugger:
        debugger.submit([1], SamplingParams(max_tokens=3))
        debugger.until("preemptions > 0")
        assert stopped(debugger).text == "out of work after step 3; not reached: preemptions > 0"
        assert debugger.breakpoints == ()
        debugger.until("preemptions > 0")
        assert stopped(debugger, 2).reason == "idle"


def test_any_other_stop_ends_until() -> None:
    bench = Bench()
    with running(bench) as debugger:
        debugger.add_breakpoint("step == 3")
        debugger.submit([1], LONG)
        debugger.until("step == 6")
        assert (stopped(debugger).reason, bench.engine.step_count) == ("breakpoint", 3)
        debugger.step(5)
        assert (stopped(debugger, 2).reason, bench.engine.step_count) == ("step", 8)


def test_a_new_until_replaces_the_one_under_way() -> None:
    bench = Bench()
    with running(bench) as debugger:
        debugger.submit([1], LONG)
        debugger.until("step == 100", rate=5)
        debugger.until("step == 3")
        assert stopped(debugger).until == "step == 3"
        debugger.step(10)
        assert stopped(debugger, 2).reason == "step"
        assert len(debugger.stops) == 2


def test_every_stop_is_kept_with_its_reason() -> None:
    bench = Bench()
    with running(bench) as debugger:
        debugger.pause()  # it is paused already
        debugger.submit([1], SamplingParams(max_tokens=50))
        debugger.step(2)
        stopped(debugger)
        debugger.play(rate=1)
        debugger.pause()
        stopped(debugger, 2)
        debugger.play()
        stopped(debugger, 3)
        assert [s.reason for s in debugger.stops] == ["step", "pause", "idle"]
        assert debugger.stops[0].text == "stepped after step 2"


def test_the_history_of_stops_is_bounded() -> None:
    with running(Bench()) as debugger:
        for number in range(1, RETAIN_STOPS + 20):
            debugger.step()  # of nothing: idle
            until(lambda n=number: len(debugger.stops) == min(n, RETAIN_STOPS))


def test_the_stop_is_there_when_the_change_is_told() -> None:
    told: list[tuple[Mode, Stopped | None]] = []
    bench = Bench()
    debugger = Debugger(bench.engine)
    debugger.on_change = lambda: told.append((debugger.mode, debugger.last_stop))
    debugger.add_breakpoint("step == 2")
    debugger.submit([1], LONG)
    debugger.play()
    thread = threading.Thread(target=debugger.run, daemon=True)
    thread.start()
    until(lambda: len(told) == 4)
    assert [mode for mode, _ in told] == [Mode.PAUSED, Mode.PAUSED, Mode.PLAYING, Mode.PAUSED]
    assert told[-2][1] is None
    assert told[-1][1] is not None
    debugger.close()
    thread.join(5)


def test_a_submission_and_an_abort_between_steps_can_be_a_hit() -> None:
    bench = Bench()
    with running(bench) as debugger:
        debugger.add_breakpoint("ev in ('submitted', 'finished')")
        debugger.submit([1], LONG)
        assert stopped(debugger).hits[0].position == "0:0"
        debugger.play(rate=200)
        until(lambda: bench.engine.step_count > 1)
        debugger.submit([2], LONG)
        stopped(debugger, 2)
        debugger.play(rate=200)
        debugger.abort(0)
        assert stopped(debugger, 3).hits[0].event == Finished(0, "abort")


def test_an_arrival_that_hits_stops_before_the_step_it_would_run_in() -> None:
    bench = Bench()
    with running(bench) as debugger:
        debugger.add_breakpoint("ev == 'submitted' and req == 1")
        debugger.submit([1], SamplingParams(max_tokens=2))
        debugger.submit([2], LONG, at_step=50)
        debugger.play()
        assert stopped(debugger).hits[0].step == 2
        assert bench.engine.step_count == 2
        debugger.step()
        assert stopped(debugger, 2).step == 3


def test_log_only_ignored_and_disabled_breakpoints_do_not_stop() -> None:
    bench = Bench(num_blocks=100)
    with running(bench) as debugger:
        logs = debugger.add_breakpoint("ev == 'sampled'", log_only=True)
        debugger.add_breakpoint("ev == 'sampled'", ignore=4)
        off = debugger.add_breakpoint("ev == 'sampled'")
        debugger.disable(off)
        debugger.add_breakpoint("ev == 'sampled' and step == 7", temporary=True)
        debugger.submit([1], SamplingParams(max_tokens=9))
        debugger.play()
        assert [(h.breakpoint, h.hit) for h in stopped(debugger).hits] == [(2, 5)]
        assert len(debugger.logged) == 5
        assert {s.breakpoint for s in debugger.logged} == {logs}
        debugger.remove(2)
        debugger.play()
        assert stopped(debugger, 2).step == 7
        assert [b.id for b in debugger.breakpoints] == [logs, off]
        debugger.enable(off)
        debugger.play()
        assert stopped(debugger, 3).step == 8
        debugger.clear_breakpoints()
        debugger.play()
        assert stopped(debugger, 4).reason == "idle"


def test_a_condition_that_cannot_be_read_is_answered_to_the_caller() -> None:
    debugger = Debugger(Bench().engine)
    with pytest.raises(UserError, match="column 1: 'fre' is not known"):
        debugger.add_breakpoint("fre < 3")
    with pytest.raises(UserError, match="something is missing at the end"):
        debugger.until("free <")


def test_an_unknown_id_is_answered_and_the_loop_lives_on() -> None:
    errors: list[str] = []
    with running(Bench(), on_error=errors.append) as debugger:
        for action in (debugger.remove, debugger.enable, debugger.disable):
            action(4)
        until(lambda: len(errors) == 3)
    assert set(errors) == {"there is no breakpoint 4; there are: none"}


def test_joining_under_way_needs_the_state_so_far() -> None:
    bench = Bench()
    bench.submit([1], 100)
    bench.step(3)
    with pytest.raises(UserError, match="joined under way"):
        Debugger(bench.engine).until("step == 5")

    state = EngineState(bench.config)
    for record in bench.records:
        state.apply(record)
    debugger = Debugger(bench.engine, state=state)
    debugger.until("sampled == 5")
    thread = threading.Thread(target=debugger.run, daemon=True)
    thread.start()
    assert stopped(debugger).step == 5
    debugger.close()
    thread.join(5)


def test_a_closed_debugger_listens_no_more() -> None:
    bench = Bench()
    with running(bench) as debugger:
        debugger.submit([1], LONG)
        debugger.step()
        stopped(debugger)
    assert debugger.state is not None
    bench.step()
    assert (debugger.state.step, bench.state.step) == (1, 2)


def test_breakpoints_may_be_set_from_many_threads_while_it_runs() -> None:
    bench = Bench(num_blocks=1000, max_model_len=4096)
    with running(bench) as debugger:
        debugger.submit([1], SamplingParams(max_tokens=2000))
        debugger.play()

        def set_some() -> None:
            for _ in range(50):
                number = debugger.add_breakpoint("ev == 'sampled'", log_only=True)
                debugger.disable(number)

        threads = [threading.Thread(target=set_some) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)
        until(lambda: len(debugger.breakpoints) == 200)
        assert len({b.id for b in debugger.breakpoints}) == 200
        debugger.pause()
