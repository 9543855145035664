"""The statistics pane: windows of time, their percentiles and courses, and the slowest requests."""

from pathlib import Path

from minisgl_tui.engine import windows as windows_module
from minisgl_tui.engine.events import Preempted, Scheduled
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.simulate import SimulatedRunner
from minisgl_tui.tui.figures import duration, span, sparkline
from minisgl_tui.tui.selection import Target
from minisgl_tui.tui.sources.base import Recording
from minisgl_tui.tui.store import Store
from minisgl_tui.tui.views.statistics import WINDOWS, StatisticsView
from minisgl_tui.tui.views.status import step_summary
from minisgl_tui.tui.views.timeline import TimelineView

from .pilot import MEDIUM, NARROW, WIDE, running
from .test_panes import opened, shown, step_until
from .toy import CONFIG, INFO, ROOMY, Session

TEN_S, MINUTE, FIVE, ALL = range(len(WINDOWS))


def figures(store: Store, window: int, width: int = 110) -> str:
    view = StatisticsView()
    view.chosen = window
    return shown(view, store, width)


def pause(session: Session, seconds: float) -> None:
    runner = session.engine.runner
    assert isinstance(runner, SimulatedRunner)
    runner.clock.advance(seconds)


def finish(session: Session) -> None:
    while session.engine.has_work():
        session.engine.step()


def two_bursts() -> tuple[Session, Store]:
    """Four requests, two minutes of nothing, and one more that waited five seconds."""
    session, store = opened(ROOMY, tokens=10)
    finish(session)
    pause(session, 120.0)
    session.engine.submit([7, 8, 9], SamplingParams(max_tokens=6), name="chatcmpl-slow")
    pause(session, 5.0)
    finish(session)
    return session, store


def rows(text: str, label: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip().startswith(label)]


def test_a_window_counts_what_is_in_it_and_not_what_is_before() -> None:
    _, store = two_bursts()
    ten = figures(store, TEN_S)
    assert " 10 s " not in ten.splitlines()[0] and "[10 s] 1 min " in ten
    assert "requests done     5.9/min, 1" in ten and "tokens out        35.6/min, 6" in ten
    assert "queue                5.0 s    5.0 s    5.0 s    5.0 s" in ten
    five = figures(store, FIVE)
    assert "so far" in five.splitlines()[0]
    assert "requests done     2.4/min, 5" in five and "tokens out        22.1/min, 46" in five
    everything = figures(store, ALL)
    assert "2 min 5 s  " in everything.splitlines()[0]
    assert rows(everything, "TTFT") == rows(five, "TTFT") != []
    assert "requests done     2.4/min, 5" in everything


def test_the_pane_gives_exact_percentiles_and_sparklines_where_there_is_room() -> None:
    session, store = opened(ROOMY, tokens=60)
    finish(session)
    stats = store.state.stats
    text = figures(store, MINUTE)
    window = store.windows.window(stats, 60.0)
    times = window and store.windows.times(window, stats, "ttft")
    assert times
    assert f" TTFT             {duration(times.p50):>9}{duration(times.p95):>9}" in text
    assert f"{stats.hit_rate:.0%}, {stats.cached_tokens} of {stats.prompt_tokens} tokens" in text
    assert f"{store.state.free} of 200 blocks" in text
    assert any(line.startswith(" running") and "█" in line for line in text.splitlines())
    narrow = figures(store, MINUTE, width=58)
    assert "█" not in narrow and "tokens out" in narrow


def test_before_the_first_step_statistics_say_what_to_do() -> None:
    _, store = opened()
    assert "press s to take the first step" in shown(StatisticsView(), store)


def test_sparklines_tell_nothing_from_little_and_scale_to_the_largest() -> None:
    assert sparkline([0, 1, 4, 8]) == " ▁▄█"
    assert sparkline([-1, 0.001, 100]) == " ▁█"
    assert sparkline([2, 2], most=16) == "▁▁"
    assert sparkline([0, 0]) == "  "
    assert (span(9.96), span(75), span(7300)) == ("10.0 s", "1 min 15 s", "2 h 1 min")


# --- in the past, and in a replay ----------------------------------------------------------------


def test_the_past_has_the_figures_that_were_shown_when_it_was_now() -> None:
    session, store = opened(CONFIG, tokens=30)
    was = {}
    while session.engine.has_work():
        session.engine.step()
        store.settle()
        was[store.position] = [figures(store, window) for window in range(len(WINDOWS))]
    assert len(was) > 30
    for position in reversed(was):
        store.look_at(position)
        assert [figures(store, window) for window in range(len(WINDOWS))] == was[position]


def test_a_replay_has_the_figures_of_the_live_run(tmp_path: Path) -> None:
    session, store = two_bursts()
    again = Store(ROOMY, INFO, session.codec, Recording("a.mtrace", store.past))
    for record in store.past.records():
        again.apply(record)
    for window in range(len(WINDOWS)):
        assert figures(again, window) == figures(store, window)


def test_what_was_not_read_yet_and_what_is_forgotten_are_said_to_be(monkeypatch) -> None:
    monkeypatch.setattr(windows_module, "KEEP", 8)
    session, store = two_bursts()
    replay = Store(ROOMY, INFO, session.codec, Recording("a.mtrace", store.past))
    replay.look_at(store.past.end)
    assert "the recording is being read, as far as 0:start by now" in figures(replay, MINUTE)
    assert "percentiles estimated" in figures(replay, ALL)
    for _ in range(40):
        session.engine.submit([7, 8, 9], SamplingParams(max_tokens=6))
        pause(session, 1.0)
        finish(session)
    store.look_at(store.past.end_of_step(3))
    assert "no longer kept" in figures(store, MINUTE)
    assert "TTFT" in figures(store, ALL)


# --- the slowest ---------------------------------------------------------------------------------


def slowest(store: Store, order: int) -> list[str]:
    view = StatisticsView()
    view.chosen, view.order = ALL, order
    text = shown(view, store).splitlines()
    first = next(i for i, line in enumerate(text) if line.startswith("── slowest"))
    last = next(i for i, line in enumerate(text) if line.startswith("── in these"))
    return text[first + 1 : last]


def test_the_slowest_requests_are_listed_by_the_time_that_is_asked_for() -> None:
    session, store = two_bursts()
    for order in (0, 2, 3):
        rows = slowest(store, order)
        assert rows[0].startswith(" #4 ● length") or rows[0].startswith(" #4 ✓ length")
        assert len(rows) == 5 and "chatcmpl-slow" in rows[0]
    session.engine.submit([3] * 9, SamplingParams(max_tokens=6))
    pause(session, 30.0)
    session.engine.submit([4] * 9, SamplingParams(max_tokens=1))  # a record in which time has gone
    assert slowest(store, 0)[0].startswith(" #5 ○ waiting        30.0 s        –   30.0 s   30.0 s")


def test_a_preempted_request_has_the_largest_gap() -> None:
    session, store = opened(CONFIG, tokens=60)
    step_until(session, store, Preempted)
    victim = next(n.req for n in store.state.notes if isinstance(n, Preempted))
    finish(session)
    assert slowest(store, 1)[0].startswith(f" #{victim} ")


async def test_from_the_slowest_to_its_timeline_is_one_key_and_why_another() -> None:
    for size in (NARROW, MEDIUM, WIDE):
        async with running(size) as it:
            await it.step(5)
            await it.press("8")
            view = it.main.pane.view
            assert isinstance(view, StatisticsView)
            assert any("▸" in line and "#" in line for line in it.lines())
            slow = it.main.pane.target
            assert slow is not None and slow.kind == "request"
            await it.press("enter")
            assert it.store.selected == slow
            await it.press("7")
            marked = [line for line in it.lines() if f"▸◆ {f'#{slow.id}':>5} " in line]
            assert len(marked) == 1 and ("▓" in marked[0] or "░" in marked[0])
            assert f"#{slow.id}: queue " in it.text() and "TTFT " in it.text()
            await it.press("x")
            assert it.store.question is not None and it.store.question.target == slow
            await it.press("8", "right", "minus")
            assert (view.order, view.chosen) == (1, 2)


def test_the_timeline_gives_the_times_of_the_selected_request_as_they_were_there() -> None:
    _, store = two_bursts()
    store.select(Target("request", 4))
    last = shown(TimelineView(), store, 120)
    assert "#4: queue 5.0 s · TTFT 5.0 s · max ITL 5.10 ms · total 5.0 s · 6 tokens out" in last
    assert last.count("chatcmpl-slow") == 1
    store.look_at(store.past.end_of_step(store.state.step - 4))
    assert "TTFT 5.0 s · max ITL 5.10 ms · so far 5.0 s · 2 tokens out" in shown(
        TimelineView(), store, 120
    )
    store.look_at(store.past.end_of_step(2))
    assert "#4:" not in shown(TimelineView(), store, 120)


def test_estimated_times_are_marked_where_one_looks_at_them() -> None:
    _, store = two_bursts()
    store.select(Target("request", 4))
    assert "~" not in figures(store, MINUTE) + step_summary(store) + shown(TimelineView(), store)
    store.guesses_from = store.state.step
    text = figures(store, MINUTE)
    assert f"~ from step {store.state.step} on times are estimated" in text
    assert "── times ~" in text and "── slowest ~" in text and "── step time ~" in text
    assert " in ~" in step_summary(store)
    assert "TTFT ~5.0 s" in shown(TimelineView(), store, 120)
    store.look_at(store.past.end_of_step(store.state.step - 1))
    assert "~" not in figures(store, MINUTE)


async def test_the_figures_that_matter_most_are_in_sight_at_80_by_24() -> None:
    async with running(NARROW) as it:
        await it.step(9)
        await it.press("8")
        text = it.text()
        for words in ("requests ", "tokens ", "p50", "p99", " TTFT ", " ITL "):
            assert words in text
        assert " queue " in text and "── slowest" in text
        assert sum(line.strip().startswith("#") for line in it.lines()) >= 1


def test_a_chunk_of_prefill_counts_as_no_token_out() -> None:
    session, store = opened(ROOMY)
    session.engine.step()
    assert any(isinstance(e, Scheduled) for e in store.past.record(len(store.past) - 1).events)
    assert "tokens out        0.0/s, 0" in figures(store, MINUTE)
