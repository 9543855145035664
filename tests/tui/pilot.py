"""Running the app in a test, and reading its screen as lines of text."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from minisgl_tui.tui.app import DebuggerApp
from minisgl_tui.tui.screens.main import MainScreen
from minisgl_tui.tui.sources.base import Source
from minisgl_tui.tui.store import Store
from rich.cells import cell_len
from textual.pilot import Pilot

from .toy import make_source

TINY, NARROW, MEDIUM, WIDE = (60, 16), (80, 24), (120, 36), (200, 50)
SIZES = (TINY, NARROW, MEDIUM, WIDE)
all_sizes = pytest.mark.parametrize("size", SIZES, ids=["60x16", "80x24", "120x36", "200x50"])


class Driver:
    """A running app with a few verbs."""

    def __init__(self, app: DebuggerApp, pilot: Pilot[None]) -> None:
        self.app = app
        self.pilot = pilot

    @property
    def main(self) -> MainScreen:
        assert self.app.main is not None
        return self.app.main

    @property
    def store(self) -> Store:
        assert self.app.store is not None
        return self.app.store

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def until(self, condition: Callable[[], bool], seconds: float = 8.0) -> None:
        """Wait until ``condition``, which another thread will bring about."""
        for _ in range(int(seconds / 0.02)):
            if condition():
                await self.pilot.pause()
                return
            await self.pilot.pause(0.02)
        raise AssertionError("waited in vain; the screen shows:\n" + self.text())

    async def step(self, count: int = 1) -> None:
        """Press s ``count`` times and wait for the steps."""
        for _ in range(count):
            want = self.store.state.step + 1
            await self.pilot.press("s")
            await self.until(lambda want=want: self.store.state.step >= want)

    def lines(self) -> list[str]:
        """The screen as it is, one string a row."""
        screen = self.app.screen
        return [
            "".join(segment.text for segment in strip)
            for strip in screen._compositor.render_strips()
        ]

    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines())

    def shows(self, *essential: str) -> None:
        """The screen is whole at its size, and each of ``essential`` stands on one of its lines."""
        width, height = self.app.size
        lines, text = self.lines(), self.text()
        assert len(lines) == height and {cell_len(line) for line in lines} == {width}, text
        assert "Traceback" not in text
        missing = [one for one in essential if not any(one in line for line in lines)]
        assert not missing, f"{missing} not shown at {width}×{height}:\n{text}"

    def toasts(self) -> list[str]:
        return [notification.message for notification in self.app._notifications]


@asynccontextmanager
async def running(
    size: tuple[int, int] = NARROW, source: Source | None = None, ready: bool = True
) -> AsyncIterator[Driver]:
    """The app over ``source`` (the toy by default); with ``ready``, after it has loaded."""
    app = DebuggerApp(source or make_source())
    async with app.run_test(size=size, notifications=True) as pilot:
        driver = Driver(app, pilot)
        if ready:
            await driver.until(lambda: app.main is not None and app.main.is_current)
            await driver.until(lambda: bool(driver.store.state.waiting) or source is not None)
        yield driver
