"""The line to type a filter of events into."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Input, Static

from ...engine.errors import UserError
from ..event_filter import EventFilter, read
from .typing import TypingScreen

_NOTE = "`req 7`, `node 3`, `block 812`, `kind preempted`, `step 120`, or any words; empty: all"


class FilterScreen(TypingScreen[EventFilter | None]):
    """Gives the filter, one without a text for all events, or None if there was second thought."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "escape", "cancel", "Cancel", tooltip="close, keep the old filter", id="filter-cancel"
        ),
        Binding("ctrl+c", "app.quit", "Quit", tooltip="leave", id="filter-quit", show=False),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        with Vertical(id="filter-box"):
            yield Input(self._text, placeholder="which events?", id="filter-text")
            yield Static(_NOTE, id="filter-note", markup=False)

    def on_mount(self) -> None:
        self.query_one("#filter-box").border_title = "Filter events"

    @on(Input.Submitted)
    def _set(self, event: Input.Submitted) -> None:
        try:
            self.dismiss(read(event.value))
        except UserError as error:
            self.query_one("#filter-note", Static).update(str(error))

    def action_cancel(self) -> None:
        self.dismiss(None)
