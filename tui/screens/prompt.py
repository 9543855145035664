"""The box to type a prompt into."""

from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Input, Static

from .typing import TypingScreen


class PromptInput(Input):
    """An input that takes all the lines of what is pasted, as one."""

    def _on_paste(self, event: events.Paste) -> None:
        event.prevent_default()  # Textual's own handler keeps the first line only
        event.stop()
        lines = (line.strip() for line in event.text.splitlines())
        self.replace(" ".join(line for line in lines if line), *self.selection)


class PromptScreen(TypingScreen[str | None]):
    """Gives the text, or None if there was second thought."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "escape",
            "cancel",
            "Cancel",
            tooltip="close the box, send nothing",
            id="prompt-cancel",
        ),
        Binding("ctrl+c", "app.quit", "Quit", tooltip="leave", id="prompt-quit", show=False),
    ]

    def compose(self) -> ComposeResult:
        with Vertical(id="prompt-box"):
            yield PromptInput(placeholder="ask the model something", id="prompt-text")
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
