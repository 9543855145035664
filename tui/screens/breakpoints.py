"""The list of breakpoints: what each waits for, how often it was hit, and switches for it."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical

from ...engine.breakpoints import BreakpointInfo
from ...engine.stops import Stop
from ..sources.base import Source
from ..store import Store
from ..text import Line, clip, pad, pad_left, visible
from ..widgets.bars import Bar
from .box import Box

_NUMBERS = (("id", 3), ("hits", 5), ("ignore", 6))


class BreakpointsScreen(Box[str | Stop | None]):
    """Gives a line for the command line, the stop to go to, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,B", "leave", "Leave", tooltip="close the list", id="breakpoints-leave"),
        Binding("up,k", "move(-1)", "Up", tooltip="the one above", id="breakpoints-up"),
        Binding("down,j", "move(1)", "Down", tooltip="the one below", id="breakpoints-down"),
        Binding(
            "space", "switch", "Switch", tooltip="enable or disable it", id="breakpoints-switch"
        ),
        Binding("d,delete", "remove", "Remove", tooltip="remove it", id="breakpoints-remove"),
        Binding("a", "add", "Add", tooltip="type a new one", id="breakpoints-add"),
        Binding(
            "enter", "jump", "Last hit", tooltip="go to where it last fired", id="breakpoints-jump"
        ),
        Binding("ctrl+c", "app.quit", "Quit", tooltip="leave", id="breakpoints-quit", show=False),
    ]

    def __init__(self, store: Store, source: Source) -> None:
        super().__init__()
        self._store = store
        self._source = source
        self._cursor = 0

    def compose(self) -> ComposeResult:
        with Vertical(id="breakpoints-box"):
            yield Bar(self._lines, id="breakpoints-lines")

    def on_mount(self) -> None:
        box = self.query_one("#breakpoints-box")
        box.border_title = "Breakpoints"
        box.border_subtitle = "esc · a add · space on/off · d remove · enter last hit"
        self.sync()

    def sync(self) -> None:
        """Show what the store knows now."""
        bar = self.query_one(Bar)
        bar.styles.height = min(len(self._lines(80)), max(3, self.app.size.height - 8))
        self.call_after_refresh(bar.sync)

    @property
    def _all(self) -> tuple[BreakpointInfo, ...]:
        return self._store.stops.breakpoints

    @property
    def _current(self) -> BreakpointInfo | None:
        self._cursor = max(0, min(self._cursor, len(self._all) - 1))
        return self._all[self._cursor] if self._all else None

    def _lines(self, width: int) -> list[Line]:
        current = self._current
        if current is None:
            return [
                [("No breakpoints yet.", "text")],
                [],
                [("a      type a condition, such as free < 10", "dim")],
                [("b      in a pane: stop at what the cursor is on", "dim")],
            ]
        room = max(12, width - 56)
        head = "".join(pad_left(name, size) + " " for name, size in _NUMBERS)
        title = f"  on {head} {pad('condition', room)} {pad('does', 5)} last hit"
        lines: list[Line] = [[(clip(title, width), "heading")]]
        for one in self._all:
            here = one is current
            numbers = (str(one.id), f"{one.hits:,}", str(one.ignore or ""))
            sizes = (size for _, size in _NUMBERS)
            cells = "".join(pad_left(t, s) + " " for t, s in zip(numbers, sizes, strict=True))
            does = "until" if one.temporary else "notes" if one.log_only else "stops"
            style = "text" if one.enabled else "dim"
            lines.append(
                [
                    ("▸ " if here else "  ", "accent"),
                    ("● " if one.enabled else "○ ", "bad" if one.enabled else "dim"),
                    (cells + " ", style),
                    (pad(visible(one.condition), room) + " ", "strong" if here else style),
                    (pad(does, 5) + " ", style),
                    (one.last.what if one.last else "–", "dim"),
                ]
            )
        return lines

    # --- keys ------------------------------------------------------------------------------------

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_add(self) -> None:
        self.dismiss("break ")

    def action_move(self, by: int) -> None:
        self._cursor = max(0, min(self._cursor + by, len(self._all) - 1))
        self.sync()

    def action_switch(self) -> None:
        if self._current:
            self._source.enable_breakpoint(self._current.id, not self._current.enabled)

    def action_remove(self) -> None:
        if self._current:
            self._source.remove_breakpoint(self._current.id)

    def action_jump(self) -> None:
        stop = self._current.last if self._current else None
        if stop is None:
            self.notify("it has not been hit yet", severity="warning", timeout=3)
        else:
            self.dismiss(stop)
