"""The keys of time travel, on a running screen."""

import threading
from pathlib import Path

import pytest
from minisgl_tui.engine import events as ev
from minisgl_tui.engine.chronicle import ALL, touches
from minisgl_tui.engine.playback import Playback
from minisgl_tui.tui.hunt import Search
from minisgl_tui.tui.selection import Target
from minisgl_tui.tui.sources.recorded import RecordedSource

from .pilot import MEDIUM, NARROW, Driver, running
from .test_replay import record_toy


async def stepped(on: Driver, count: int = 12) -> None:
    await on.step(count)
    assert on.store.follows


@pytest.mark.parametrize("size", [NARROW, MEDIUM])
async def test_steps_go_back_and_on_and_to_the_end_again(size: tuple[int, int]) -> None:
    async with running(size) as on:
        await stepped(on)
        seen = on.store.state.digest()
        await on.press("S", "S")
        assert on.store.state.step == 10 and not on.store.follows
        assert "of 12  paused +2" in on.lines()[0] and "◂ 10:" in on.lines()[0]
        assert "go back and on" in on.text()
        await on.press("s")
        assert on.store.state.step == 11
        await on.press("s")
        assert on.store.follows and on.store.state.digest() == seen
        await on.press("S", "L")
        assert on.store.follows
        await on.step(1)
        assert on.store.state.step == 13


async def test_events_go_back_and_on_one_by_one() -> None:
    async with running() as on:
        await stepped(on)
        end = on.store.position
        await on.press("E", "E")
        assert on.store.position == on.store.past.before(on.store.past.before(end) or end)
        await on.press("e", "e")
        assert on.store.follows
        await on.press("e")
        assert any("s takes a step" in toast for toast in on.toasts())


async def test_within_a_step_those_that_run_are_not_said_to_be_left_out() -> None:
    async with running(MEDIUM) as on:
        await stepped(on, 4)
        await on.press("colon", *"goto 4:0", "enter")
        await on.until(lambda: str(on.store.position) == "4:0")
        assert f"running, not scheduled yet: {len(on.store.state.running)}" in on.text()
        assert "not in this step" not in on.text() and "admitted since" not in on.text()


async def test_the_engine_runs_on_while_the_past_is_looked_at() -> None:
    async with running() as on:
        await on.step(3)
        await on.press("S")
        on.main.source.step(5)
        await on.until(lambda: on.store.last_step == 8)
        assert on.store.state.step == 2
        await on.press("E")
        assert "+" in on.lines()[0]


async def test_it_stops_where_breakpoints_would_have_stopped_in_both_directions() -> None:
    async with running() as on:
        await stepped(on, 20)
        past = on.store.past
        finds = [
            record.position(index)
            for record in past.records()
            for index, event in enumerate(record.events)
            if isinstance(event, ev.Preempted)
        ]
        assert len(finds) > 1
        on.main.source.add_breakpoint('ev == "preempted"')
        await on.until(lambda: len(on.store.stops.breakpoints) == 1)
        await on.press("C")
        await on.until(lambda: on.store.position == finds[-1])
        await on.press("C")
        await on.until(lambda: on.store.position == finds[-2])
        await on.press("c")
        await on.until(lambda: on.store.position == finds[-1])
        await on.press("c")
        await on.until(lambda: on.store.follows)
        await on.press("left_square_bracket")
        found = on.store.past.event(on.store.position)
        assert isinstance(found, ev.Preempted | ev.Evicted)


async def test_x_explains_and_enter_goes_to_the_event_of_a_line() -> None:
    async with running(MEDIUM) as on:
        await stepped(on)
        await on.press(":", *"why req 0", "enter")
        assert on.store.question is not None and on.main.active == 5
        assert "why #0 was so at" in on.text()
        quoted = [cause.position for cause in on.store.question.causes]
        place = next(i for i, position in enumerate(quoted) if position is not None)
        for _ in range(40):
            if on.main.pane.view.place(on.main.pane.cursor) == quoted[place]:
                break
            await on.press("j")
        await on.press("enter")
        assert on.store.position == quoted[place]
        await on.press("escape", "escape")
        assert on.store.question is None and "── step" in on.text()


async def test_x_asks_about_what_is_selected_until_the_cursor_is_moved() -> None:
    async with running(MEDIUM) as on:
        await stepped(on, 6)
        await on.press(":", *"select req 1", "enter", "2")
        assert "◆ #1 holds" in on.text() and "esc clears" in on.text()
        await on.press("x")
        assert on.store.question is not None
        assert on.store.question.target == Target("request", 1)
        await on.press("2", "l")
        there = on.main.pane.target
        assert there is not None and there.kind == "block"
        assert f"x asks about block {there.id}" in on.lines()[-2] and "◆ #1 holds" in on.text()
        await on.press("x")
        assert on.store.question.target == there
        assert f"why block {there.id} was so at" in on.text()
        await on.press("2", "b")
        assert f"{there.id} in blocks" in on.toasts()[-1]
        await on.press(":", *"select req 1", "enter", "b")
        assert "req == 1 or for_req == 1" in on.toasts()[-1]


async def test_x_while_an_event_is_looked_for_asks_about_what_it_hit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_toy(tmp_path / "run.mtrace")
    found, going_on = threading.Event(), Search.go_on
    monkeypatch.setattr(
        Search, "go_on", lambda search, seconds: found.is_set() and going_on(search, seconds)
    )
    async with running(MEDIUM, RecordedSource(tmp_path / "run.mtrace")) as on:
        await on.until(lambda: len(on.store.state.waiting) == 4)
        await on.press("right_square_bracket", "x")
        assert on.store.question is None and "the answer comes there" in on.toasts()[-1]
        found.set()
        await on.until(lambda: on.store.question is not None)
        question = on.store.question
        assert question is not None and question.target == on.store.selected
        assert question.position == on.store.position
        event = on.store.past.event(question.position)
        assert event is not None and touches(event, "notable", ALL)
        await on.press(":", *"goto 1", "enter", "1", "escape", "escape")
        found.clear()
        await on.press("left_square_bracket", "x")
        found.set()
        await on.until(lambda: not on.store.hunting)
        assert on.store.question is None  # there is none before this


async def test_the_next_change_of_what_is_selected() -> None:
    async with running() as on:
        await stepped(on, 20)
        await on.press(":", *"select block 3", "enter")
        await on.press("comma")
        assert on.store.position == on.store.chronicle.before("block", 3, on.store.past.end)
        before = on.store.position
        await on.press("comma", "full_stop")
        assert on.store.position == before


async def test_marks_lead_back_and_differences_are_shown() -> None:
    async with running(MEDIUM) as on:
        await on.step(4)
        await on.press("m")
        marked = on.store.position
        await on.step(6)
        await on.press("d")
        assert "step 4 → 10" in on.text()
        await on.press("escape", "apostrophe")
        assert on.store.position == marked
        await on.press("apostrophe")
        assert on.store.follows
        on.store.marks = {"é": marked}
        await on.press("d")
        assert "there is no mark 'mark'; marked is é" in on.toasts()


async def test_before_the_first_event_is_called_the_start() -> None:
    async with running(MEDIUM) as on:
        await on.step(2)
        await on.press(":", *"goto start", "enter")
        assert "◂ 0:start of 2" in on.text() and ":-1" not in on.text()


async def test_goto_takes_every_form_and_says_what_is_none() -> None:
    async with running(MEDIUM) as on:
        await stepped(on)
        await on.press(":", *"goto 5", "enter")
        assert on.store.position == on.store.past.end_of_step(5)
        await on.press(":", *"goto req 0 first-token", "enter")
        assert isinstance(on.store.past.event(on.store.position), ev.Sampled)
        await on.press(":", *"goto 99", "enter")
        assert "there is no step 99" in on.text()


async def test_the_past_is_played_up_to_the_end() -> None:
    async with running() as on:
        await stepped(on)
        await on.press(":", *"goto 3", "enter")
        await on.press(":", *"rate max", "enter")
        await on.press("space")
        await on.until(lambda: on.store.follows)
        assert on.store.state.step == 12


async def test_x_is_answered_when_a_recording_is_read_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_toy(tmp_path / "run.mtrace")
    go_on, skip = threading.Event(), Playback.skip

    def slowly(playback: Playback) -> ev.StepRecord:
        if playback.records > 9:
            go_on.wait(20)
        return skip(playback)

    async with running(MEDIUM, RecordedSource(tmp_path / "run.mtrace")) as on:
        await on.until(lambda: len(on.store.state.waiting) == 4)
        on.main.source.add_breakpoint('ev == "preempted"')
        monkeypatch.setattr(Playback, "skip", slowly)
        await on.press(":", *"goto 20", "enter")
        wanted, past = on.store.position, on.store.past
        share = f"reading {10 / past.records_until(wanted):.0%}"
        await on.until(lambda: share in on.lines()[0])
        await on.press("x")
        assert any("the answer comes then" in toast for toast in on.toasts())
        assert on.store.question is None
        go_on.set()
        await on.until(lambda: on.store.question is not None)
        assert "why #" in on.text() and "reading" not in on.lines()[0]
        assert on.store.newest == wanted and on.store.steps.last == 20
        assert not on.store.stops.why(on.store.now)  # breakpoints on the way were passed over


async def test_a_recording_is_gone_through_in_both_directions(tmp_path: Path) -> None:
    live = record_toy(tmp_path / "run.mtrace")
    async with running(MEDIUM, RecordedSource(tmp_path / "run.mtrace")) as on:
        await on.until(lambda: len(on.store.state.waiting) == 4)
        await on.press(":", *"goto 50%", "enter")
        middle = on.store.position
        assert on.store.state.digest() == live.past.state_at(middle).digest()
        await on.until(lambda: on.store.newest >= middle)
        await on.press("S")
        assert on.store.position == live.past.step_before(middle)
        await on.press("L")
        assert on.store.position == live.past.end
        assert on.store.state.digest() == live.now.digest()


async def test_trouble_is_found_in_a_recording_before_it_is_read_and_selected(
    tmp_path: Path,
) -> None:
    record_toy(tmp_path / "run.mtrace")
    async with running(MEDIUM, RecordedSource(tmp_path / "run.mtrace")) as on:
        await on.until(lambda: len(on.store.state.waiting) == 4)
        past = on.store.past
        finds = [
            record.position(index)
            for record in past.records()
            for index, event in enumerate(record.events)
            if touches(event, "notable", ALL)
        ]
        for found in finds[:3]:
            await on.press("right_square_bracket")
            await on.until(lambda found=found: on.store.position == found)
        await on.press(":", *"goto 1", "enter")
        victim = next(at for at in finds if isinstance(past.event(at), ev.Preempted))
        while on.store.position != victim:
            await on.press("right_square_bracket")
        event = past.event(victim)
        assert isinstance(event, ev.Preempted)
        assert on.main.pane.target == Target("request", event.req) == on.store.selected
        await on.press("L", "right_square_bracket")
        assert on.store.position == past.end
        assert any("was preempted, evicted or refused after this" in t for t in on.toasts())
        await on.press("left_square_bracket")
        await on.until(lambda: on.store.position == finds[-1])
