"""The screens when things are missing, failing or over: loading, no room, faults, nothing to do."""

import threading
from pathlib import Path

import platformdirs
import pytest
from minisgl_tui.engine.debugger import Debugger, Mode
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.events import StepRecord
from minisgl_tui.engine.state import ROOT
from minisgl_tui.tui.inbox import Inbox
from minisgl_tui.tui.selection import Target
from minisgl_tui.tui.sources.base import ModeChanged
from minisgl_tui.tui.sources.local import LocalSource, ReportProgress, Session

from .pilot import MEDIUM, NARROW, WIDE, running
from .toy import ROOMY, make_session, make_source


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tracebacks go to a directory of the test's own."""
    monkeypatch.setattr(platformdirs, "user_log_dir", lambda name: str(tmp_path / name))
    return tmp_path / "minisgl-tui"


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_loading_shows_stage_and_share_then_the_paused_engine(size: tuple[int, int]) -> None:
    gate = threading.Event()

    def open_slowly(progress: ReportProgress) -> Session:
        progress("reading weights", 0.42)
        gate.wait(10)
        return make_session()

    async with running(size, LocalSource(open_slowly), ready=False) as on:
        await on.until(lambda: "reading weights" in on.text())
        assert "42 %" in on.text() and "━" in on.text()
        assert " 0 s" in on.text()
        gate.set()
        await on.until(lambda: on.app.main is not None and on.app.main.is_current)
        await on.until(lambda: "no requests yet: press i to send a prompt" in on.text())
        assert "⏸ paused   step 0" in on.lines()[0]


async def test_a_user_error_while_loading_ends_in_its_line_and_exit_code_2() -> None:
    def open_nothing(progress: ReportProgress) -> Session:
        raise UserError("no model called 'x'; see `minisgl-tui models list`")

    async with running(NARROW, LocalSource(open_nothing), ready=False) as on:
        await on.until(lambda: on.app.return_code is not None)
    assert on.app.return_code == 2
    assert on.app.fatal == "no model called 'x'; see `minisgl-tui models list`"


async def test_any_other_error_while_loading_names_its_log(logs: Path) -> None:
    def open_badly(progress: ReportProgress) -> Session:
        raise KeyError("lm_head")

    async with running(WIDE, LocalSource(open_badly), ready=False) as on:
        await on.until(lambda: "press q to quit" in on.text())
        assert "KeyError: 'lm_head'" in on.text() and "Traceback" not in on.text()
        await on.press("q")
    (log,) = logs.iterdir()
    assert "Traceback" in log.read_text() and "lm_head" in log.read_text()
    assert on.app.return_code == 1
    assert on.app.fatal is not None and str(log) in on.app.fatal


async def test_a_failing_step_is_told_and_the_engine_goes_on() -> None:
    def sabotage(session: Session) -> None:
        real, calls = session.engine.runner.execute, []

        def execute(plan: object) -> object:
            calls.append(plan)
            if len(calls) == 2:
                raise ValueError("a matrix went missing")
            return real(plan)  # pyright: ignore[reportArgumentType]

        session.engine.runner.execute = execute  # pyright: ignore[reportAttributeAccessIssue]

    async with running(NARROW, make_source(prepare=sabotage)) as on:
        await on.until(lambda: len(on.store.state.waiting) == 4)
        await on.step(2)
        assert "ValueError: a matrix went missing" in on.toasts()
        told = [note.sentence for note in on.store.history[0].notes]
        assert any("The step failed: ValueError: a matrix went missing" in s for s in told)
        assert on.store.state.finished == [0, 1, 2]
        await on.step()
        assert on.store.state.running == [3]


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_a_dead_engine_leaves_its_last_state_to_read(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch, logs: Path
) -> None:
    real = Debugger._take_step
    steps: list[int] = []

    def take_step(debugger: Debugger) -> None:
        steps.append(1)
        if len(steps) > 3:
            raise RuntimeError("the loop is broken")
        real(debugger)

    monkeypatch.setattr(Debugger, "_take_step", take_step)
    async with running(size) as on:
        await on.step(3)
        await on.press("s")
        await on.until(lambda: "the engine has stopped: RuntimeError" in on.text())
        assert "✗ failed" in on.lines()[0]
        assert str(logs) in on.text().replace("\n", "").replace("│", "").replace(" ", "")
        await on.press("3", "enter")
        assert "You are a careful guide" in on.text()
        assert on.store.selected == Target("node", on.store.weights.heaviest(ROOT, 1)[0])
        await on.press("s")
        assert "the engine has stopped" in on.toasts()
        await on.press("q")
    assert on.app.return_code == 1
    assert on.app.fatal is not None and "RuntimeError: the loop is broken" in on.app.fatal


async def test_too_small_a_terminal_says_so_and_recovers() -> None:
    async with running(NARROW) as on:
        await on.pilot.resize_terminal(50, 12)
        await on.until(lambda: "the terminal is 50×12" in on.text())
        assert "minisgl-tui needs 60×16" in on.text().replace("\n", " ")
        assert "toy-135m" in on.lines()[0]
        await on.pilot.resize_terminal(80, 24)
        await on.until(lambda: "[1 Batch]" in on.text())
        assert "the terminal is" not in on.text()


async def test_layouts_follow_the_size() -> None:
    async with running(NARROW) as on:
        await on.step(3)

        def displayed() -> list[int]:
            return [n for n, pane in on.main.panes.items() if pane.display]

        assert displayed() == [1]
        assert on.main.strip.display
        await on.pilot.resize_terminal(*MEDIUM)
        await on.until(lambda: displayed() == [1, 2, 3, 5])
        assert not on.main.strip.display
        await on.press("4")
        assert displayed() == [2, 3, 4, 5]
        await on.pilot.resize_terminal(*WIDE)
        await on.until(lambda: displayed() == [2, 3, 4, 5, 7])
        for title in ("4 Requests", "2 Blocks", "3 Tree", "7 Timeline", "5 Why"):
            assert f"─ {title} ─" in on.text()
        await on.press("6")
        assert displayed() == [2, 3, 4, 6, 7]
        await on.press("1")
        assert displayed() == [1, 2, 3, 6, 7]


@pytest.mark.parametrize("size", [(60, 16), NARROW, (100, 30), MEDIUM, (160, 40), WIDE])
async def test_every_row_is_as_wide_as_the_terminal(size: tuple[int, int]) -> None:
    async with running(size) as on:
        await on.step(5)
        assert len(on.lines()) == size[1]
        assert {len(line) for line in on.lines()} == {size[0]}
        assert "q quit" in on.lines()[-1]


async def test_when_all_is_done_it_says_what_can_be_done_next() -> None:
    async with running(NARROW, make_source(ROOMY, tokens=3)) as on:
        await on.until(lambda: len(on.store.state.waiting) == 4)
        await on.press(*["greater_than_sign"] * 3, "space")
        await on.until(lambda: on.store.done)
        assert "■ done" in on.lines()[0]
        assert "all requests finished: press i for another, q to quit" in on.text()
        await on.press("i", *"More", "enter")
        await on.until(lambda: bool(on.store.state.waiting))
        assert "⏸ paused" in on.lines()[0]


@pytest.mark.parametrize("size", [MEDIUM, WIDE])
async def test_a_selection_lights_up_in_every_pane(size: tuple[int, int]) -> None:
    async with running(size) as on:
        await on.step(4)
        await on.press("2", "enter")  # block 0: the shared system prompt
        for number in (1, 3, 5):
            pane = on.main.panes[number]
            marks = [row[0][0] for row in pane._rows if row]
            assert any("◇" in mark for mark in marks), number
        await on.press("1", "enter")
        lit = [text for row in on.main.panes[2]._rows for text, _, ground in row if ground == "lit"]
        assert len("".join(lit)) == len(on.store.state.requests[0].block_table)
        assert on.text().count("◆") >= 3


async def test_the_cursor_stays_on_its_request_while_the_list_moves() -> None:
    async with running(NARROW, make_source(ROOMY, tokens=6)) as on:
        await on.until(lambda: len(on.store.state.waiting) == 4)
        await on.step()
        await on.press("4", "down", "down")
        assert on.main.pane.target == Target("request", 2)
        await on.step(6)
        assert 0 in on.store.state.finished
        assert on.main.pane.target == Target("request", 2)


async def test_the_cursor_on_the_first_line_follows_its_request_once_it_was_put_there() -> None:
    async with running(NARROW, make_source(ROOMY, tokens=6)) as on:
        await on.until(lambda: len(on.store.state.waiting) == 4)
        await on.step()
        await on.press("4", "down", "up")
        assert on.main.pane.target == Target("request", 0)
        await on.step(6)
        assert on.store.state.finished[0] == 0
        assert on.main.pane.target == Target("request", 0)
        await on.press("g")
        first = on.main.pane.target
        assert first != Target("request", 0)


async def test_the_colours_can_be_changed() -> None:
    async with running(NARROW) as on:
        for theme in ("light", "high-contrast", "ansi", "nord", "ansi-dark"):
            on.app.theme = theme
            await on.step()
            assert "prefill" in on.text() or "decode" in on.text()


def test_the_inbox_wakes_the_screen_once_and_not_for_records_while_playing() -> None:
    wakes: list[int] = []
    inbox = Inbox(lambda: wakes.append(1))
    inbox.put(StepRecord(seq=0, step=1))
    inbox.put(StepRecord(seq=1, step=2))
    assert len(wakes) == 1
    assert len(list(inbox.take(1.0))) == 2
    inbox.put(ModeChanged(Mode.PLAYING, None, False))
    list(inbox.take(1.0))
    inbox.put(StepRecord(seq=2, step=3))
    assert len(wakes) == 2
    inbox.put(ModeChanged(Mode.PAUSED, None, False))
    assert len(wakes) == 3


async def test_leaving_while_the_model_loads_ends_the_loading() -> None:
    reports: list[int] = []

    def open_for_ever(progress: ReportProgress) -> Session:
        while True:
            progress("fetching", None)
            reports.append(1)
            threading.Event().wait(0.01)

    source = LocalSource(open_for_ever)
    async with running(NARROW, source, ready=False) as on:
        await on.until(lambda: bool(reports))
        await on.press("q")
    assert source.wait(5)
    assert on.app.fatal is None and on.app.return_code == 0


async def test_leaving_in_the_middle_of_a_step_lets_it_end() -> None:
    entered, gate, left = threading.Event(), threading.Event(), threading.Event()

    def slow(session: Session) -> None:
        real = session.engine.runner.execute

        def execute(plan: object) -> object:
            entered.set()
            gate.wait(10)
            left.set()
            return real(plan)  # pyright: ignore[reportArgumentType]

        session.engine.runner.execute = execute  # pyright: ignore[reportAttributeAccessIssue]

    source = make_source(prepare=slow)
    async with running(NARROW, source) as on:
        await on.until(lambda: bool(on.store.state.waiting))
        await on.press("s")
        await on.until(entered.is_set)
        assert "▸ stepping" in on.text()
        await on.press("q")
    assert not source.wait(0.05)
    gate.set()
    assert source.wait(5) and left.is_set()
