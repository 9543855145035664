"""The command line: a box at the bottom, with what can be typed next above it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Input, Static

from ..commands import COMMANDS, Command
from ..completion import Choices, split
from ..text import Line, clip, pad, visible, wrap
from ..widgets.bars import Bar
from .typing import TypingScreen

if TYPE_CHECKING:
    from .main import MainScreen

SHOWN = 8  # choices at a time
LONGEST = 4  # lines of an error


class CommandScreen(TypingScreen[str | None]):
    """Gives the line that was typed, or None. It is carried out by `MainScreen`."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave", tooltip="do nothing", id="command-leave"),
        Binding(
            "tab", "complete(1)", "Complete", tooltip="complete the word", id="command-complete",
            priority=True,
        ),
        Binding(
            "shift+tab", "complete(-1)", "Back", tooltip="the choice before", id="command-back",
            priority=True,
        ),
        Binding("up", "recall(-1)", "Earlier", tooltip="the line before", id="command-earlier"),
        Binding("down", "recall(1)", "Later", tooltip="the line after", id="command-later"),
        Binding("ctrl+c", "app.quit", "Quit", tooltip="leave", id="command-quit", show=False),
    ]  # fmt: skip

    def __init__(self, main: "MainScreen", line: str, error: str, typed: Sequence[str]) -> None:
        super().__init__()
        self._main = main
        self._line, self._error = line, error
        self._typed = [*typed, line]
        self._at = len(typed)
        self._stem = ""
        self._choices: Choices = {}
        self._chosen = -1  # of the choices, the one that stands in the line
        self._set = line  # what the line was last set to by other means than typing

    def compose(self) -> ComposeResult:
        with Vertical(id="command-box"):
            yield Bar(self._choice_lines, id="command-choices")
            yield Bar(self._note, id="command-note")
            with Horizontal(id="command-line"):
                yield Static(":", id="command-colon")
                yield Input(self._line, id="command-text", select_on_focus=False)

    def on_mount(self) -> None:
        self._look()

    @property
    def _input(self) -> Input:
        return self.query_one("#command-text", Input)

    @property
    def _command(self) -> Command | None:
        """The one whose arguments are being typed."""
        name, blank, _ = self._input.value.lstrip().partition(" ")
        return COMMANDS.get(name) if blank else None

    # --- choices ---------------------------------------------------------------------------------

    def _look(self) -> None:
        """Work out what can be typed next."""
        line = self._input.value.lstrip()
        self._chosen = -1
        name, blank, rest = line.partition(" ")
        if not blank:
            names = {name: command.about for name, command in COMMANDS.items()}
            self._stem, self._choices = split(names, name)
        elif command := COMMANDS.get(name):
            stem, self._choices = split(command.complete(self._main, rest), rest)
            self._stem = f"{name} {stem}"
        else:
            self._stem, self._choices = line, {}
        self._show()

    def _show(self) -> None:
        choices = self.query_one("#command-choices", Bar)
        choices.display = bool(self._choices)
        choices.styles.height = max(1, len(self._choice_lines(self.app.size.width)))
        width = self.app.size.width - 2
        self.query_one("#command-note", Bar).styles.height = len(self._note(width))
        self.call_after_refresh(self.sync)

    def sync(self) -> None:
        for bar in self.query(Bar):
            bar.sync()

    def _choice_lines(self, width: int) -> list[Line]:
        known = list(self._choices.items())
        first = max(0, min(self._chosen - SHOWN // 2, len(known) - SHOWN))
        part = known[first : first + SHOWN]
        column = min(max((len(word) for word, _ in known), default=0), width // 2)
        lines: list[Line] = []
        for number, (word, about) in enumerate(part, first):
            here = number == self._chosen
            mark = "▸" if here else " "
            shown = pad(visible(word), column)
            text = clip(about, max(0, width - column - 5))
            style = "accent" if here else "strong"
            lines.append([(f"{mark} ", "accent"), (shown + "  ", style), (text, "dim")])
        rest = len(known) - first - len(part)
        if rest > 0:
            lines.append([(f"  … {rest} more", "dim")])
        return lines

    def _note(self, width: int) -> list[Line]:
        """What went wrong; else how the command is written."""
        if self._error:
            lines = wrap(f"✗ {self._error}", width)[:LONGEST]
            return [[(line, "bad")] for line in lines]
        command = self._command
        if command is None:
            return [[(clip("tab completes · ↑ earlier lines · esc leaves", width), "dim")]]
        if len(f"{command.usage}  {command.about}") <= width:
            return [[(f"{command.usage}  ", "heading"), (command.about, "dim")]]
        about: list[Line] = [[(line, "dim")] for line in wrap(command.about, width)]
        return [[(clip(command.usage, width), "heading")], *about]

    # --- keys ------------------------------------------------------------------------------------

    @on(Input.Changed)
    def _edited(self, event: Input.Changed) -> None:
        if event.value != self._set:
            self._error = ""
            self._set = event.value
            self._look()

    @on(Input.Submitted)
    def _enter(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip() or None)

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_complete(self, by: int) -> None:
        words = list(self._choices)
        if not words:
            return
        typed = self._input.value.lstrip()[len(self._stem) :]
        common = _common(words)
        if len(words) == 1:
            blank = " " if not self._stem and COMMANDS[words[0]].takes else ""
            self._put(self._stem + words[0] + blank)
            self._look()
        elif self._chosen < 0 and len(common) > len(typed):
            self._put(self._stem + common)
            self._look()
        else:
            start = 0 if by > 0 else -1
            chosen = self._chosen + by if self._chosen >= 0 else start
            self._chosen = chosen % len(words)
            self._put(self._stem + words[self._chosen])
            self._show()

    def action_recall(self, by: int) -> None:
        at = self._at + by
        if 0 <= at < len(self._typed):
            if self._at == len(self._typed) - 1:
                self._typed[-1] = self._input.value
            self._at = at
            self._put(self._typed[at])
            self._error = ""
            self._look()

    def _put(self, line: str) -> None:
        self._set = line
        self._input.value = line
        self._input.cursor_position = len(line)


def _common(words: Sequence[str]) -> str:
    """What all of ``words`` begin with."""
    first, last = min(words), max(words)
    same = (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return first[: next(same, min(len(first), len(last)))]
