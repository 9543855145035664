"""Requests that have ended stay in sight for some seconds, and then make room for those alive."""

import pytest
from minisgl_tui.engine.debugger import Mode
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.simulate import SimulatedRunner
from minisgl_tui.tui.screens import arranged
from minisgl_tui.tui.selection import Target
from minisgl_tui.tui.sources.base import Link, ModeChanged
from minisgl_tui.tui.store import Store
from minisgl_tui.tui.views.requests import STAY, RequestsView

from .pilot import running
from .test_panes import opened, shown
from .toy import ROOMY, Session, make_source


class Wall:
    """A clock on the wall that moves when it is told to."""

    def __init__(self, store: Store) -> None:
        self.now = 100.0
        store.wall = lambda: self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def two_of_them() -> tuple[Session, Store, Wall]:
    """#0 to #3 have ended, and #4 is alive, in an engine that plays."""
    session, store = opened(ROOMY, tokens=3)
    wall = Wall(store)
    store.change_mode(ModeChanged(Mode.PLAYING, None, idle=False))
    while session.engine.has_work():
        session.engine.step()
    session.engine.submit([7, 8, 9], SamplingParams(max_tokens=50))
    session.engine.step()
    return session, store, wall


def listed(store: Store, view: RequestsView | None = None) -> list[str]:
    text = shown(view or RequestsView(), store).splitlines()[1:]
    return [line.split()[0] for line in text if line.strip()[0] not in "┌│└"]


def test_a_request_that_ended_stays_some_seconds_with_how_it_ended_and_goes() -> None:
    _, store, wall = two_of_them()
    assert listed(store) == ["#4", "#3", "#2", "#1", "#0"]
    assert shown(RequestsView(), store).count("✓ length") == 4
    wall.advance(STAY - 1)
    assert listed(store) == ["#4", "#3", "#2", "#1", "#0"]
    wall.advance(1.5)
    assert listed(store) == ["#4", "4"]
    assert "4 ended earlier: enter lists them" in shown(RequestsView(), store)


def test_in_the_past_the_engines_clock_says_who_has_gone() -> None:
    session, store, wall = two_of_them()
    here = store.position
    runner = session.engine.runner
    assert isinstance(runner, SimulatedRunner)
    runner.clock.advance(STAY + 1)
    session.engine.step()
    assert listed(store) == ["#4", "4"]
    wall.advance(1000.0)
    store.look_at(here)
    assert listed(store) == ["#4", "#3", "#2", "#1", "#0"]
    store.follow()
    assert listed(store) == ["#4", "4"]


def test_nobody_goes_while_the_engine_is_paused() -> None:
    _, store, wall = two_of_them()
    store.change_mode(ModeChanged(Mode.PAUSED, None, idle=False))
    wall.advance(1000.0)
    assert listed(store) == ["#4", "#3", "#2", "#1", "#0"]


def test_enter_lists_those_that_have_gone_and_a_selected_one_stays() -> None:
    _, store, wall = two_of_them()
    wall.advance(STAY + 1)
    view = RequestsView()
    listed(store, view)
    fold = 1
    assert view.target(fold) is None and view.rests(fold) and view.open(fold)
    assert listed(store, view) == ["#4", "4", "#3", "#2", "#1", "#0"]
    assert "enter hides them" in shown(view, store)
    assert view.open(fold) and not view.open(0)
    store.select(Target("request", 2))
    assert listed(store, view) == ["#4", "4", "#2"]


def test_all_are_listed_when_nobody_is_alive_unless_a_server_is_watched() -> None:
    session, store, wall = two_of_them()
    while session.engine.has_work():
        session.engine.step()
    wall.advance(1000.0)
    assert listed(store) == ["#4", "#3", "#2", "#1", "#0"]
    store.link = Link("http://127.0.0.1:30000")
    assert listed(store) == ["5"]


def test_a_request_is_shown_with_the_name_that_its_server_gave_it() -> None:
    session, store = opened(ROOMY)
    session.engine.submit([7, 8, 9], SamplingParams(max_tokens=50), name="chatcmpl-\x1b7")
    store.select(Target("request", 4))
    text = shown(RequestsView(), store)
    assert "┌ its name" in text and "│ chatcmpl-" in text and "\x1b" not in text
    assert "chatcmpl-" in store.links.words and "\x1b" not in store.links.words


async def test_they_go_from_the_screen_without_any_news(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arranged, "FADE", 0.02)
    async with running(source=make_source(ROOMY, tokens=3)) as it:
        await it.until(lambda: len(it.store.state.waiting) == 4)
        wall = Wall(it.store)
        await it.step(5)
        await it.press("4")
        it.store.link = Link("http://127.0.0.1:30000")
        it.main.sync()
        assert "✓ length" in it.text()
        it.store.change_mode(ModeChanged(Mode.PLAYING, 1, idle=False))
        wall.advance(1000.0)
        await it.until(lambda: "4 ended earlier" in it.text())
        assert "✓ length" not in it.text()
