"""The box to type a prompt into."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static


class PromptScreen(ModalScreen[str | None]):
    """Gives the text, or None if there was second thought."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "escape",
            "cancel",
            "Cancel",
            tooltip="close the box, send nothing",
            id="prompt-cancel",
        )
    ]

    def compose(self) -> ComposeResult:
        with Vertical(id="prompt-box"):
            yield Input(placeholder="ask the model something", id="prompt-text")
            yield Static("enter sends it, esc cancels", id="prompt-note")

    def on_mount(self) -> None:
        self.query_one("#prompt-box").border_title = "New prompt"

    @on(Input.Submitted)
    def _send(self, event: Input.Submitted) -> None:
        text = event.value.strip()
        if text:
            self.dismiss(text)
        else:
            note = self.query_one("#prompt-note", Static)
            note.update("an empty prompt cannot be sent: type something, or esc to cancel")

    def action_cancel(self) -> None:
        self.dismiss(None)
