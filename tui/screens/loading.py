"""What shows before there is an engine: how far the start has got, or why it failed."""

import time
from collections.abc import Callable

from textual.app import ComposeResult
from textual.screen import Screen

from ..actions import key
from ..sources.base import Progress
from ..text import Line, bar, wrap
from ..widgets.bars import Bar


class LoadingScreen(Screen[None]):
    """``clock`` gives the seconds for the elapsed time, the only clock on any screen."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._began = clock()
        self._progress = Progress("starting")
        self._failure = ""
        self._log = ""

    def compose(self) -> ComposeResult:
        yield Bar(self._lines, id="loading")

    def on_mount(self) -> None:
        self.set_interval(0.25, self.sync)

    def sync(self) -> None:
        panel = self.query_one("#loading", Bar)
        panel.styles.height = len(self._lines(panel.content_size.width)) + 4  # border, padding
        panel.sync()

    def show(self, progress: Progress) -> None:
        self._progress = progress
        self.sync()

    def fail(self, message: str, log: str) -> None:
        """Say why there will be no engine. ``log`` names the file with the traceback, if any."""
        self._failure, self._log = message, log
        self.query_one("#loading").add_class("failed")
        self.sync()

    def _lines(self, width: int) -> list[Line]:
        if self._failure:
            return self._failed(width)
        progress = self._progress
        seconds = self._clock() - self._began
        lines: list[Line] = [[("minisgl-tui", "title")], []]
        lines += [[(part, "text")] for part in wrap(progress.stage, width)]
        if progress.fraction is not None:
            done = max(0, min(100, round(100 * progress.fraction)))
            cells = bar(((done, "━", "accent"), (100 - done, "━", "faint")), width - 6)
            lines.append([*cells, (f" {done:>3} %", "text")])
        else:
            lines.append([])
        return [*lines, [], [(f"{seconds:.0f} s", "dim"), (f"   {key('quit')} to quit", "dim")]]

    def _failed(self, width: int) -> list[Line]:
        lines: list[Line] = [[("✗ could not start", "bad")], []]
        lines += [[(part, "text")] for part in wrap(self._failure, width)]
        if self._log:
            lines += [[], [("the traceback is in", "dim")]]
            lines += [[(part, "dim")] for part in wrap(self._log, width)]
        return [*lines, [], [(f"press {key('quit')} to quit", "accent")]]
