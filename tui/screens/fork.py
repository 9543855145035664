"""Forking on the screens: the box that waits for it, and the two runs beside each other."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical

from ...engine.errors import UserError
from ...engine.events import Position
from ...engine.fork import Changes
from ..forking import Forked, fork
from ..store import Store
from ..text import Line, bar, clip
from ..views.forked import ForkFigures, ForkTimelines
from ..widgets.bars import Bar
from ..widgets.pane import Pane
from .box import Box

_BOTH_FROM = 34  # rows from which on there is room for timelines and figures


class _Left(Exception):
    """Nobody waits for the fork any longer."""


class ForkingScreen(Box[Forked | UserError | None]):
    """Runs the fork in a thread and shows how far that is. Gives it, why there is none, or None if
    somebody would not wait."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "leave", "Leave", tooltip="do not wait for it", id="forking-leave"),
        Binding("ctrl+c", "app.quit", "Quit", tooltip="leave", id="forking-quit", show=False),
    ]

    def __init__(self, store: Store, at: Position, changes: Changes) -> None:
        super().__init__()
        self._store, self._at, self._changes = store, at, changes
        self._stage, self._fraction = "reading", 0.0
        self._left = False

    def compose(self) -> ComposeResult:
        yield Bar(self._lines, id="forking")

    def on_mount(self) -> None:
        self.query_one("#forking").border_title = clip(f"fork with {self._changes}", 50)
        self.set_interval(0.1, self.sync)
        self.run_worker(self._fork, thread=True)

    def on_unmount(self) -> None:
        self._left = True

    def sync(self) -> None:
        self.query_one(Bar).sync()

    def _lines(self, width: int) -> list[Line]:
        done = round(100 * self._fraction)
        cells = bar(((done, "━", "accent"), (100 - done, "━", "faint")), width - 6)
        return [
            [(self._stage, "text")],
            [*cells, (f" {done:>3} %", "text")],
            [("esc ends it", "dim")],
        ]

    def _fork(self) -> None:
        """In a thread of its own."""
        try:
            made = fork(self._store, self._at, self._changes, self._told)
        except UserError as error:
            made = error
        except _Left:
            return
        if not self._left:
            self.app.call_from_thread(self.dismiss, made)

    def _told(self, stage: str, fraction: float | None) -> None:
        if self._left:
            raise _Left
        self._stage, self._fraction = stage, min(1.0, fraction or 0.0)

    def action_leave(self) -> None:
        self._left = True
        self.dismiss(None)


class ForkScreen(Box[Forked | None]):
    """Timelines of both runs, and figures. Gives the fork if it is to be looked at in all panes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "leave", "Leave", tooltip="close it", id="fork-leave"),
        Binding("enter,o", "open", "Open", tooltip="look at the fork in all panes", id="fork-open"),
        Binding("tab,shift+tab", "other", "Other", tooltip="timelines or figures", id="fork-other"),
        Binding("up,k", "move(-1)", "Up", tooltip="the line before", id="fork-up"),
        Binding("down,j", "move(1)", "Down", tooltip="the next line", id="fork-down"),
        Binding("left,h", "shift(-1)", "Left", tooltip="earlier steps", id="fork-left"),
        Binding("right,l", "shift(1)", "Right", tooltip="later steps", id="fork-right"),
        Binding("plus", "scale(1)", "Closer", tooltip="fewer steps a column", id="fork-closer"),
        Binding("minus", "scale(-1)", "Farther", tooltip="more of them", id="fork-farther"),
        Binding("ctrl+u,pageup", "page(-1)", "Page up", tooltip="faster", id="fork-page-up"),
        Binding("ctrl+d,pagedown", "page(1)", "Page down", tooltip="faster", id="fork-page-down"),
        Binding("ctrl+c", "app.quit", "Quit", tooltip="leave", id="fork-quit", show=False),
    ]

    def __init__(self, store: Store, forked: Forked) -> None:
        super().__init__()
        self._forked = forked
        made = forked.fork
        self._title = f"from {made.place} on, with {made.changes}"
        timelines = ForkTimelines(made.at.step, forked.sides)
        self._timelines = Pane(timelines, store, -1, id="fork-timelines")
        self._figures = Pane(ForkFigures(forked), store, -1, id="fork-figures")
        self._active = self._timelines

    def compose(self) -> ComposeResult:
        with Vertical(id="fork-box"):
            yield self._timelines
            yield self._figures

    def on_mount(self) -> None:
        self._arrange()

    def on_resize(self) -> None:
        self._arrange()

    def _arrange(self) -> None:
        width, height = self.app.size
        for pane in (self._timelines, self._figures):
            pane.display = pane is self._active or height >= _BOTH_FROM
            pane.border_title = f"{pane.view.name} {clip(self._title, width // 2)}"
        self._active.focus()
        self.call_after_refresh(self.sync)

    def sync(self) -> None:
        self._timelines.sync()
        self._figures.sync()

    # --- keys ------------------------------------------------------------------------------------

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_open(self) -> None:
        self.dismiss(self._forked)

    def action_other(self) -> None:
        self._active = self._figures if self._active is self._timelines else self._timelines
        self._arrange()

    def action_move(self, by: int) -> None:
        self._active.move(0, by)

    def action_page(self, direction: int) -> None:
        self._active.half_page(direction)

    def action_shift(self, by: int) -> None:
        self._timelines.sideways(by)

    def action_scale(self, by: int) -> None:
        self._timelines.scale(by)
