"""The help overlay: every key by group, what the glyphs mean, and the words."""

from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Static

from ...engine import events as ev
from .. import commands, stops
from ..actions import GROUPS, key, table
from ..explain import NOTES
from ..palette import STATUS_GLYPHS, style_table
from ..spans import IDLE, PREEMPTED
from ..text import Line, pad
from ..views import steps, timeline
from ..views.base import View
from ..views.timeline import HIT
from .box import Box

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
_STEPS = (
    (
        "▂▅█",
        "decode",
        "tokens that decode, as a share of the budget; ▚ with prefill above them",
    ),
    ("░▒▓", "prefill", "tokens of prompts; on one line, all of a step in which there are any"),
)
_SPANS = {
    IDLE: "it runs, but got nothing in this step",
    HIT: "let in with a cached prefix: that much need not be computed",
    PREEMPTED: "its blocks were taken back",
}
_WORDS = (
    ("step", "one scheduler iteration and the forward pass it plans"),
    ("budget", "the most tokens one step may compute, over all its requests"),
    ("prefill", "computing the KV of a prompt, in chunks if it is longer than the budget left"),
    ("decode", "one new token for a request whose prompt is done"),
    ("block", "a fixed number of tokens' KV: what memory is handed out in"),
    ("chunk i/n", "piece i of the n in which the prompt is computed, as far as can be told"),
    ("prefix hit", "the start of a prompt was in the tree, so its KV need not be computed"),
    ("hit, cached", "of a request: how many of its tokens that was; at the top: their share"),
    ("used, evictable", "at the top: blocks that requests hold; blocks that could be evicted"),
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


def help_lines(view: View | None = None) -> list[Line]:
    """The whole text of the overlay, what is about ``view`` first."""
    lines: list[Line] = []
    first = _GLYPHS_OF.get(view.name, "") if view else ""
    if view is not None:
        lines += [[(view.name, "accent")], [(f"  {view.about}", "text")], *_keys_of(view)]
        lines += [[("  " + text, style) for text, style in line] for line in _glyphs(first)]
        lines.append([])
    for group in GROUPS:
        lines.append([(group, "accent")])
        for action in (a for a in table() if a.group == group):
            lead = f"  {pad(action.shown, 6)} {pad(action.title, 18)}"
            lines.append([(lead, "strong"), (action.about, "text")])
        lines.append([])
    lines.append([("Commands", "accent")])
    for command in commands.OWN:
        lead = f"  :{pad(command.usage, 38)} "
        lines.append([(lead, "strong"), (command.about, "text")])
    for title in _GLYPHS:
        lines += [[], [(title, "accent")], *_glyphs(title)]
    lines += [[], [("Marks", "accent")]]
    lines.append([("  ▸      ", "accent"), ("the cursor", "text")])
    lines.append([("  ◆ ◇    ", "accent"), ("selected; linked to what is selected", "text")])
    lines += [[], [("Words", "accent")]]
    lines += [[(f"  {pad(word, 12)} ", "strong"), (text, "text")] for word, text in _WORDS]
    return lines


def _keys_of(view: View) -> list[Line]:
    """The keys that mean something of their own in this pane."""
    keys = [(f"{key('left')} {key('right')}", view.sideways_does)]
    keys.append((f"{key('scale-1')} {key('scale--1')}", view.scale_does))
    keys.append((key("select"), "select what the cursor is on; in all panes what belongs to it"))
    if view.is_of_requests:
        keys += [(key("tokens"), "its tokens, one by one"), (key("copy"), "copy its text")]
    keys.append((key("toggle_break"), "stop at what happens to it"))
    return [[(f"  {pad(k, 10)} ", "strong"), (does, "text")] for k, does in keys if does]


def _block_glyphs() -> list[Line]:
    lines: list[Line] = [[(f"  {g}      ", style), (text, "text")] for g, style, text in _BLOCKS]
    lines.append([("  ·      ", "changed"), ("on a lit ground: changed in the last step", "text")])
    return lines


def _request_glyphs() -> list[Line]:
    return [
        [(f"  {glyph}      ", style), (_STATUS.get(status, str(status)), "text")]
        for status, (glyph, style) in STATUS_GLYPHS.items()
    ]


def _decision_glyphs() -> list[Line]:
    lines: list[Line] = []
    for kind, text in _DECISIONS:
        glyph, style, _ = NOTES[kind]
        lines.append([(f"  {glyph}      ", style), (text, "text")])
    lines.append([(f"  {stops.GLYPH}      ", "bad"), ("a breakpoint stopped here", "text")])
    lines.append([(f"  {stops.LOGGED}      ", "dim"), ("a breakpoint took note of it", "text")])
    return lines


def _timeline_glyphs() -> list[Line]:
    return [
        [(f"  {glyph}      ", style), (_SPANS.get(code, word), "text")]
        for code, glyph, style, word in timeline.LEGEND
    ]


def _step_glyphs() -> list[Line]:
    lines: list[Line] = [[(f"  {g}    ", style), (text, "text")] for g, style, text in _STEPS]
    for _, glyph, style, word in steps.MARKS:
        lines.append([(f"  {glyph}      ", style), (f"in this step: {word}", "text")])
    return lines


_GLYPHS: dict[str, Callable[[], list[Line]]] = {
    "Steps": _step_glyphs,
    "Blocks": _block_glyphs,
    "Requests": _request_glyphs,
    "Timeline": _timeline_glyphs,
    "Why": _decision_glyphs,
}
_GLYPHS_OF = {
    "Batch": "Requests",
    "Requests": "Requests",
    "Timeline": "Timeline",
    "Blocks": "Blocks",
    "Tree": "Blocks",
    "Why": "Why",
    "Events": "Why",
}


def _glyphs(title: str) -> list[Line]:
    return _GLYPHS[title]() if title in _GLYPHS else []


class HelpScreen(Box[None]):
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
        Binding("g", "top", "Top", tooltip="go to the top", id="help-top", show=False),
        Binding("G", "bottom", "Bottom", tooltip="go to the end", id="help-bottom", show=False),
    ]

    def __init__(self, view: View | None = None) -> None:
        super().__init__()
        self._view = view

    def compose(self) -> ComposeResult:
        table = style_table(self.app.current_theme)
        text = Text()
        for line in self.lines():
            for part, style in line:
                known = ("text", "changed") if style == "changed" else (style, "")
                text.append(part, table[known])
            text.append("\n")
        text.rstrip()
        with VerticalScroll(id="help-box"):
            yield Static(text, id="help-text")

    def lines(self) -> list[Line]:
        return help_lines(self._view)

    def on_mount(self) -> None:
        box = self.query_one("#help-box")
        box.border_title = self.title or "Help"
        box.border_subtitle = "↑ ↓ scroll · esc closes"
        box.focus()

    def action_close(self) -> None:
        self.dismiss(None)

    def action_down(self) -> None:
        self.query_one("#help-box").scroll_down(animate=False)

    def action_up(self) -> None:
        self.query_one("#help-box").scroll_up(animate=False)

    def action_top(self) -> None:
        self.query_one("#help-box").scroll_home(animate=False)

    def action_bottom(self) -> None:
        self.query_one("#help-box").scroll_end(animate=False)
