"""Jump mode: a letter on every pane; typing it goes there."""

from collections.abc import Mapping
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.geometry import Offset
from textual.widgets import Static

from ..widgets.pane import Pane
from .box import Box


def letters(names: Mapping[int, str]) -> dict[str, int]:
    """A letter a pane: the first of its name that no pane before it has.

    >>> letters({1: "Batch", 2: "Blocks"})
    {'b': 1, 'l': 2}
    """
    found: dict[str, int] = {}
    for number, name in names.items():
        free = (letter for letter in name.lower() if letter.isalpha() and letter not in found)
        found[next(free, str(number))] = number
    return found


class JumpScreen(Box[int | None]):
    """Gives the number of the pane whose letter was typed, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave", tooltip="stay where you are", id="jump-leave"),
        Binding("ctrl+c", "app.quit", "Quit", tooltip="leave", id="jump-quit", show=False),
    ]

    def __init__(self, panes: Mapping[int, Pane]) -> None:
        super().__init__()
        self._panes = panes
        self._letters = letters({number: pane.view.name for number, pane in panes.items()})

    def compose(self) -> ComposeResult:
        hidden: list[str] = []
        for letter, number in self._letters.items():
            pane = self._panes[number]
            if pane.display and pane.size:
                label = Static(f" {letter} ", classes="jump-letter", markup=False)
                at = pane.region.offset
                label.absolute_offset = Offset(at.x + 1, at.y)
                yield label
            else:
                hidden.append(f"{letter} {pane.view.name}")
        words = "  ".join(["jump to:", *hidden, "esc stays"])
        yield Static(words, id="jump-hidden", markup=False)

    def on_key(self, event: events.Key) -> None:
        number = self._letters.get(event.key)
        if number is not None:
            event.stop()
            self.dismiss(number)

    def action_leave(self) -> None:
        self.dismiss(None)
