"""The help overlay: every key by group, what the glyphs mean, and the words."""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from ...engine import events as ev
from ..actions import ACTIONS, GROUPS
from ..explain import NOTES
from ..palette import STATUS_GLYPHS, style_table
from ..text import Line, pad

_BLOCKS = (
    ("·", "free", "free: nobody's, ready to be taken"),
    (
        "▪",
        "private",
        "private: one request's own; mostly its last block, not full yet",
    ),
    ("■", "held", "in the radix tree, held by one request"),
    ("2", "shared", "in the tree, held by that many requests at once; + is ten or more"),
    ("□", "evictable", "in the tree, held by nobody: kept for the next hit, evicted when needed"),
)
_WORDS = (
    ("step", "one scheduler iteration and the forward pass it plans"),
    ("budget", "the most tokens one step may compute, over all its requests"),
    ("prefill", "computing the KV of a prompt, in chunks if it is longer than the budget left"),
    ("decode", "one new token for a request whose prompt is done"),
    ("block", "a fixed number of tokens' KV: what memory is handed out in"),
    ("chunk i/n", "piece i of the n in which the prompt is computed, as far as can be told"),
    ("prefix hit", "the start of a prompt was in the tree, so its KV need not be computed"),
    ("hit, cached", "of a request: how many of its tokens that was; at the top: their share"),
    ("used, cached", "at the top: blocks that requests hold; blocks that could be evicted"),
    ("node N", "a run of tokens in the tree; N is in the tree's first column of numbers"),
    ("hits", "how many admitted requests have found a node in the tree"),
    ("refs", "how many running requests hold a node; it cannot be evicted while any does"),
    ("evict", "give a cached block that nobody holds to somebody who needs one"),
    ("promised", "blocks that are free but spoken for: running requests will need them"),
    ("preempt", "take a running request's blocks back; it is recomputed later"),
    ("pre", "how often a request was preempted"),
    ("age", "steps since a node was last matched, grown or let go by a request"),
)
_DECISIONS: tuple[tuple[type[ev.AnyEvent], str], ...] = (
    (ev.Submitted, "a request arrived"),
    (ev.Admitted, "it was admitted: it runs from this step on"),
    (ev.Deferred, "it has to wait, or got nothing in this step"),
    (ev.Preempted, "its blocks were taken back"),
    (ev.Evicted, "cached blocks were evicted"),
    (ev.Finished, "it finished or was aborted"),
    (ev.StepFailed, "it was refused or ended with an error, or the step failed"),
)
_STATUS = {
    "stop": "finished: gave a stop token",
    "length": "finished: reached its limit",
    "abort": "aborted",
    "error": "ended with an error",
}


def help_lines() -> list[Line]:
    """The whole text of the overlay."""
    lines: list[Line] = []
    for group in GROUPS:
        lines.append([(group, "accent")])
        for action in (a for a in ACTIONS if a.group == group):
            lead = f"  {pad(action.shown, 6)} {pad(action.title, 18)}"
            lines.append([(lead, "strong"), (action.about, "text")])
        lines.append([])
    lines.append([("Blocks", "accent")])
    lines += [[(f"  {glyph}      ", style), (text, "text")] for glyph, style, text in _BLOCKS]
    lines.append([("  ·      ", "changed"), ("on a lit ground: changed in the last step", "text")])
    lines += [[], [("Requests", "accent")]]
    for status, (glyph, style) in STATUS_GLYPHS.items():
        lines.append([(f"  {glyph}      ", style), (_STATUS.get(status, str(status)), "text")])
    lines += [[], [("Why", "accent")]]
    for kind, text in _DECISIONS:
        glyph, style, _ = NOTES[kind]
        lines.append([(f"  {glyph}      ", style), (text, "text")])
    lines += [[], [("Marks", "accent")]]
    lines.append([("  ▸      ", "accent"), ("the cursor", "text")])
    lines.append([("  ◆ ◇    ", "accent"), ("selected; linked to what is selected", "text")])
    lines += [[], [("Words", "accent")]]
    lines += [[(f"  {pad(word, 12)} ", "strong"), (text, "text")] for word, text in _WORDS]
    return lines


class HelpScreen(ModalScreen[None]):
    """Closes with the key that opened it, with escape or with q."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "question_mark,escape,q",
            "close",
            "Close",
            tooltip="close the help",
            id="help-close",
        ),
        Binding(
            "j", "down", "Down", tooltip="scroll down", id="help-down", key_display="j", show=False
        ),
        Binding("ctrl+c", "app.quit", "Quit", tooltip="leave", id="help-quit", show=False),
        Binding("k", "up", "Up", tooltip="scroll up", id="help-up", show=False),
    ]

    def compose(self) -> ComposeResult:
        table = style_table(self.app.current_theme)
        text = Text()
        for line in help_lines():
            for part, style in line:
                known = ("text", "changed") if style == "changed" else (style, "")
                text.append(part, table[known])
            text.append("\n")
        text.rstrip()
        with VerticalScroll(id="help-box"):
            yield Static(text, id="help-text")

    def on_mount(self) -> None:
        box = self.query_one("#help-box")
        box.border_title = "Help"
        box.border_subtitle = "↑ ↓ scroll · esc closes"
        box.focus()

    def action_close(self) -> None:
        self.dismiss(None)

    def action_down(self) -> None:
        self.query_one("#help-box").scroll_down(animate=False)

    def action_up(self) -> None:
        self.query_one("#help-box").scroll_up(animate=False)
