"""The panes over a whole run: the strip of steps, the timeline, events and lints."""

import pytest
from minisgl_tui.engine import events as ev
from minisgl_tui.engine.events import Position
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.tui import every_event as every_event_module
from minisgl_tui.tui.event_filter import read
from minisgl_tui.tui.palette import DARK, style_table
from minisgl_tui.tui.selection import Target
from minisgl_tui.tui.steps import STOPPED
from minisgl_tui.tui.text import plain
from minisgl_tui.tui.views import events as events_module
from minisgl_tui.tui.views.events import EventsView
from minisgl_tui.tui.views.lints import LintsView
from minisgl_tui.tui.views.status import status_lines
from minisgl_tui.tui.views.steps import MARKS, StepsView
from minisgl_tui.tui.views.timeline import LEGEND, TimelineView
from minisgl_tui.tui.widgets.strip import StepStrip

from .pilot import MEDIUM, NARROW, WIDE, running
from .test_panes import opened, shown, step_until
from .toy import CONFIG, ROOMY, make_source

SMALL = (60, 16)


def drawn(view: StepsView, store: object, width: int = 60, height: int = 3) -> list[str]:
    lines = view.lines(store, width, height)  # pyright: ignore[reportArgumentType]
    return ["".join(text for text, _, _ in line) for line in lines]


# --- the strip -----------------------------------------------------------------------------------


def test_the_strip_stacks_decode_below_prefill_against_the_budget() -> None:
    session, store = opened()  # a budget of 20: two steps of 20 prefill, 2 + 12, then decodes
    for _ in range(4):
        session.engine.step()
    marks, high, low = drawn(StepsView(), store)
    assert high.startswith("    20 ┤▓▓▒")
    assert low.startswith("     0 ┤▓▓▚▄")  # in step 4 four of twenty decode
    assert marks[8:12] == "   ▼"
    assert [len(line) for line in (marks, high, low)] == [60, 60, 60]


def test_on_one_line_a_shade_is_prefill_and_a_bar_is_decode() -> None:
    session, store = opened()
    for _ in range(4):
        session.engine.step()
    (line,) = drawn(StepsView(), store, height=1)
    assert line.startswith(" steps ▓▓▓▂ ")


def test_preemption_and_eviction_are_marked_and_the_step_looked_at_stands_out() -> None:
    session, store = opened(CONFIG, tokens=60)
    step_until(session, store, ev.Preempted)
    at = store.state.step
    session.engine.step()
    view = StepsView()
    marks, *_ = drawn(view, store, width=100)
    assert marks[7 + at] == "↓"
    store.steps.mark(2, STOPPED)
    marks, *_ = drawn(view, store, width=100)
    assert marks[7 + 2] == "◉"
    store.look_at(Position(3, 0))
    lines = view.lines(store, 100, 3)
    for line in lines:
        before = ""
        for text, _, ground in line:
            if ground == "cell":
                assert len(before) == 7 + 3
            before += text
        assert any(ground == "cell" for _, _, ground in line)


def test_the_strip_shows_the_latest_steps_or_those_around_the_one_looked_at() -> None:
    session, store = opened(ROOMY, tokens=200)
    for _ in range(120):
        session.engine.step()
    view = StepsView()
    drawn(view, store, width=40)
    room = 40 - 8
    assert view.step_at(store, 8) == 120 - room + 1
    assert view.step_at(store, 39) == 120
    assert view.step_at(store, 3) is None
    store.look_at(Position(20, 0))
    drawn(view, store, width=40)
    assert view.step_at(store, 8 + room // 2) == 20
    assert view.scale(store, -1) and view.scale(store, -1)
    lines = drawn(view, store, width=60)
    assert "4 steps a column" in lines[0]
    assert view.step_at(store, 8) == 4 and view.step_at(store, 8 + 29) == 120
    assert view.scale(store, 1) and view.scale(store, 1) and not view.scale(store, 1)


async def test_a_click_on_a_column_says_which_step_it_is() -> None:
    async with running(MEDIUM, make_source(ROOMY)) as it:
        await it.step(5)
        chosen: list[int] = []
        strip = it.main.steps
        real = strip.post_message

        def listen(message: object) -> bool:
            if isinstance(message, StepStrip.Chosen):
                chosen.append(message.step)
            return real(message)  # pyright: ignore[reportArgumentType]

        strip.post_message = listen  # pyright: ignore[reportAttributeAccessIssue]
        await it.pilot.click(strip, offset=(8 + 2, 1))
        await it.pilot.click(strip, offset=(8 + 20, 1))
        await it.pilot.pause()
        assert chosen == [3]


# --- the timeline --------------------------------------------------------------------------------


def rows_of(text: str) -> dict[int, str]:
    """The part after the numbers of each request's line."""
    found = {}
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            found[int(line.split()[0][1:])] = line[13:]
    return found


def test_the_timeline_tells_waiting_prefill_cached_prefix_decode_and_end() -> None:
    session, store = opened(ROOMY, tokens=5)
    while session.engine.has_work():
        session.engine.step()
    rows = rows_of(shown(TimelineView(), store))
    assert rows[0] == "▓▓████✓"
    assert rows[1].startswith("░»███") and rows[1].endswith("✓")
    assert rows[3].startswith("░░»")


def test_a_preempted_request_shows_when_and_how_long_it_waited_again() -> None:
    session, store = opened(CONFIG, tokens=60)
    step_until(session, store, ev.Preempted)
    gone = next(n for n in store.state.notes if isinstance(n, ev.Preempted))
    at = store.state.step
    for _ in range(3):
        session.engine.step()
    row = rows_of(shown(TimelineView(), store))[gone.req]
    assert row[at - 1] == "×"
    store.select(Target("request", gone.req))
    assert "preempted 1 time" in (text := shown(TimelineView(), store, 120))
    assert "1 times" not in text
    store.select(None)
    assert row[at:].strip() and set(row[at:].strip()) <= set("░»▓█×")


def test_many_steps_in_a_column_show_what_matters_most() -> None:
    session, store = opened(CONFIG, tokens=60)
    step_until(session, store, ev.Preempted)
    gone = next(n for n in store.state.notes if isinstance(n, ev.Preempted))
    at = store.state.step
    view = TimelineView()
    for _ in range(3):
        view.scale(0, -1)
    row = rows_of(shown(view, store))[gone.req]
    assert row[at // 8] == "×"
    assert "8 steps a column" in view.subtitle
    assert row[0] in "»▓"  # computing matters more than having waited


def test_the_window_keeps_to_the_run_and_moves_sideways() -> None:
    session, store = opened(ROOMY, tokens=200)
    view = TimelineView()
    for step in range(1, 150):
        session.engine.step()
        if step % 9 == 0:
            shown(view, store, width=53)
    assert "150" not in shown(view, store, width=53)
    assert rows_of(shown(view, store, width=53))[0] == "█" * 39
    view.sideways(0, -1)
    text = shown(view, store, width=53)
    assert rows_of(text)[0] == "█" * 40 and "▼" not in text
    for _ in range(40):
        view.sideways(0, -1)
    assert rows_of(shown(view, store, width=53))[0].startswith("▓▓█")
    for _ in range(80):
        view.sideways(0, 1)
    assert rows_of(shown(view, store, width=53)) == dict.fromkeys(range(4), "")


def test_the_selected_request_is_in_sight_however_long_ago_it_was() -> None:
    session, store = opened(ROOMY, tokens=5)
    while session.engine.has_work():
        session.engine.step()
    session.engine.submit([7, 8, 9], SamplingParams(max_tokens=200))
    for _ in range(150):
        session.engine.step()
    view = TimelineView()
    assert list(rows_of(shown(view, store, width=53))) == [4]
    store.select(Target("request", 1))
    rows = rows_of(shown(view, store, width=53))
    assert list(rows) == [0, 1, 2, 3, 4] and rows[1].startswith("░»███")
    assert view.first_linked(store.links) == 1
    store.select(Target("request", 4))  # goes on, and is in sight as it is
    assert list(rows_of(shown(view, store, width=53))) == [4]
    store.select(None)
    assert "150" in shown(view, store, width=53)


def test_a_number_of_a_step_is_whole_or_not_there() -> None:
    session, store = opened(ROOMY, tokens=60)
    while session.engine.step_count < 50:
        session.engine.step()
    view = TimelineView()
    for room in range(8, 60):
        shown(view, store, width=13 + room)
        numbers = plain(view.header[0])[13:].split()
        assert {int(number) % 10 for number in numbers} <= {0}
    view.level = 3
    for room in range(8, 30):
        shown(view, store, width=13 + room)
        assert set(plain(view.header[0])[13:].split()) <= {"0", "80", "160"}


def test_what_comes_after_the_step_looked_at_is_faint() -> None:
    session, store = opened(ROOMY, tokens=5)
    while session.engine.has_work():
        session.engine.step()
    store.look_at(Position(3, 0))
    view = TimelineView()
    shown(view, store)
    assert [(t, s) for t, s in view.line(0)[2:]][:4] == [
        ("▓▓", "prefill"),
        ("█", "decode"),
        ("███", "faint"),
        ("✓", "faint"),
    ]


def test_every_glyph_of_timeline_and_strip_is_its_own_and_its_style_known() -> None:
    table = style_table(DARK)
    for rows in (LEGEND, MARKS):
        assert len({glyph for _, glyph, _, _ in rows}) == len(rows)
        assert all((style, "") in table for _, _, style, _ in rows)


# --- events --------------------------------------------------------------------------------------


def test_events_have_a_line_each_the_newest_first() -> None:
    session, store = opened()
    session.engine.step()
    view = EventsView()
    lines = shown(view, store, width=110).splitlines()
    assert lines[0].split()[:2] == ["1:4", "○"] or lines[0].lstrip().startswith("1:")
    assert any("1:0 ─ step_began" in line for line in lines)
    assert any("▪ allocated" in line and "#0 gets" in line for line in lines)
    assert any("◐ scheduled" in line and "chunk 1 of 2" in line for line in lines)
    assert lines[-1].lstrip().startswith("0:0 + submitted  #0 arrived")
    assert len(lines) == view.items == len(store.events)


def test_a_filter_leaves_what_matches_and_goes_on_with_what_comes() -> None:
    session, store = opened(CONFIG, tokens=30)
    view = EventsView()
    for _ in range(20):
        session.engine.step()
    view.filter = read("req 2")
    shown(view, store)
    wanted = [n for n in range(store.events.end) if read("req 2").matches(store.events[n])]
    assert [view.number(i) for i in range(view.items)] == wanted[::-1]
    for _ in range(10):
        session.engine.step()
    text = shown(view, store)
    wanted = [n for n in range(store.events.end) if read("req 2").matches(store.events[n])]
    assert [view.number(i) for i in range(view.items)] == wanted[::-1]
    assert f"/ req 2 · {len(wanted)} of {len(store.events)} events" in text
    held = view.anchor(3)
    session.engine.step()
    shown(view, store)
    found = view.find(held)
    assert found is not None and view.anchor(found) == held


def test_a_long_search_takes_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "_TURN", 0)
    monkeypatch.setattr(events_module, "_AT_ONCE", 7)
    session, store = opened(ROOMY, tokens=30)
    for _ in range(20):
        session.engine.step()
    view = EventsView()
    view.filter = read("kind submitted")
    turns = 0
    while True:
        text = shown(view, store)
        turns += 1
        if not view.busy:
            break
        assert "searching back from step" in text
    assert turns == -(-store.events.end // 7)
    assert view.items == 4
    for _ in range(10):
        session.engine.submit([1, 2], SamplingParams(max_tokens=1))
    while True:
        shown(view, store)
        if not view.busy:
            break
    assert view.items == 14


def test_a_filter_finds_what_has_left_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    session, store = opened(CONFIG, tokens=30)
    for _ in range(30):
        session.engine.step()
    view = EventsView()
    whole = shown(view, store)
    view.filter = read("req 2")
    found = shown(view, store)
    monkeypatch.setattr(every_event_module, "KEEP", 20)
    session, store = opened(CONFIG, tokens=30)
    for _ in range(30):
        session.engine.step()
    assert sum(len(r.events) for r in store.events._newest) < 40 < len(store.events)
    view = EventsView()
    assert shown(view, store) == whole
    view.filter = read("req 2")
    assert shown(view, store) == found


def test_a_filter_that_finds_too_much_says_where_it_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "_MOST", 10)
    monkeypatch.setattr(events_module, "_AT_ONCE", 7)
    session, store = opened(ROOMY, tokens=30)
    for _ in range(20):
        session.engine.step()
    view = EventsView()
    view.filter = read("kind dec")
    text = shown(view, store)
    assert not view.busy and 10 <= view.items < 10 + 7
    low = store.events[view._low].at.step
    assert low > 1 and f"none searched for before step {low}" in text


def test_enter_goes_to_the_node_or_to_its_block_when_it_is_gone() -> None:
    session, store = opened(CONFIG, tokens=60)
    view = EventsView()
    step_until(session, store, ev.Evicted)
    shown(view, store)
    for i in range(view.items):
        event = store.events[view.number(i)].event
        target = view.target(i)
        if isinstance(event, ev.Evicted):
            there = event.node in store.state.nodes
            assert target == (
                Target("node", event.node) if there else Target("block", event.blocks[0])
            )
        elif isinstance(event, ev.Allocated):
            assert target == Target("request", event.req)


@pytest.mark.parametrize("size", [SMALL, NARROW, WIDE])
async def test_slash_filters_n_goes_on_and_escape_shows_all_again(size: tuple[int, int]) -> None:
    async with running(size, make_source(ROOMY)) as it:
        await it.step(6)
        await it.press("n")
        assert any("there is no filter to match" in toast for toast in it.toasts())
        await it.press("slash", *"req two", "enter")
        assert "'two' follows `req`; give its number" in it.text().replace("\n", " ")
        await it.press("escape", "slash", *"req 2 kind adm", "enter")
        assert it.main.active == 6
        assert "/ req 2 kind adm · 1 of" in it.text()
        await it.press("slash", *["backspace"] * 20, *"kind submitted", "enter")
        assert [it.main.pane.target] == [Target("request", 3)]
        await it.press("n")
        assert it.store.selected == Target("request", 2)
        await it.press("n", "N", "N")
        assert it.store.selected == Target("request", 3)
        await it.press("escape", "escape")
        assert it.main.events.filter is None and it.store.selected is None
        assert it.main.pane.view.items == len(it.store.events)


# --- lints ---------------------------------------------------------------------------------------


def test_findings_are_counted_at_the_top_and_their_request_can_be_selected() -> None:
    session, store = opened(CONFIG, tokens=60)
    assert "nothing bad was found so far" in shown(LintsView(), store)
    assert "⚠" not in plain(status_lines(store, 100)[1])
    for _ in range(40):
        session.engine.submit([7, 8, 9], SamplingParams(max_tokens=1))
    while session.engine.has_work():
        session.engine.step()
    findings = store.lints.findings()
    assert findings
    view = LintsView()
    text = shown(view, store, width=200)
    assert f"⚠ {len(findings)}" in plain(status_lines(store, 100)[1])
    for finding in findings:
        assert finding.sentence[:60] in text
    order = [text.index(summary) for summary in store.lints.summaries().values()]
    assert order == sorted(order)
    targets = {view.target(i) for i in range(view.items)} - {None}
    assert targets == {Target("request", f.req) for f in findings if f.req >= 0}


async def test_enter_on_a_finding_goes_to_the_step_and_the_request_it_is_of() -> None:
    async with running(MEDIUM, make_source(CONFIG, tokens=60)) as it:
        await it.step(40)
        finding = next(lint for lint in it.store.lints.lints if lint.found)
        latest = list(finding.found.values())[-1]
        await it.press("9", "enter")  # on the summary, the first line that is no heading
        assert it.store.state.step == latest.step < 40
        assert it.store.selected == Target("request", latest.req)


def test_what_is_later_than_the_step_looked_at_is_marked_and_not_counted() -> None:
    session, store = opened(CONFIG, tokens=60)
    while session.engine.has_work():
        session.engine.step()
    events, lints = EventsView(), LintsView()
    steps = sorted(finding.step for finding in store.lints.findings())
    assert "↑" not in shown(events, store) + shown(lints, store)
    assert "later" not in events.subtitle + lints.subtitle
    store.look_at(store.past.end_of_step(steps[-1] - 1))
    lines = shown(events, store).splitlines()
    here = next(i for i, line in enumerate(lines) if "↑" not in line)
    assert 0 < here < len(lines) and all("↑" in line[:8] for line in lines[:here])
    assert not any("↑" in line for line in lines[here:])
    assert events.subtitle.endswith("· ↑ later than here")
    assert f"↑ step {steps[-1]}" in shown(lints, store, width=200)
    assert lints.subtitle.endswith("· ↑ later than here")
    so_far = sum(step < steps[-1] for step in steps)
    status = plain(status_lines(store, 100)[1])
    assert status.endswith(f"⚠ {so_far} ") if so_far else "⚠" not in status


# --- all of them ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [SMALL, NARROW, MEDIUM, WIDE])
async def test_every_pane_fits_every_size(size: tuple[int, int]) -> None:
    async with running(size) as it:
        await it.step(7)
        for number, pane in it.main.panes.items():
            await it.press(str(number))
            lines = it.lines()
            assert {len(line) for line in lines} == {size[0]}
            assert any(f"[{number} {pane.view.name}]" in line for line in lines)
            assert pane.display and pane.size.height >= (4 if size == SMALL else 6)
            strip = any(line.startswith(" steps") or " ┤" in line for line in lines)
            assert strip == (size != SMALL)
            assert "q quit" in lines[-1]


async def test_the_wide_layout_has_strip_batch_blocks_tree_timeline_and_why_at_once() -> None:
    async with running(WIDE) as it:
        await it.step(4)
        text = it.text()
        for words in ("budget 20", "· free", "prefix ", "░ queued", "── step 4", "┤"):
            assert words in text
