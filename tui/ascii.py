"""The screens in ASCII, for terminals and fonts without the glyphs: each has a stand-in.

Everything on its way to the terminal goes through `AsciiFilter`, borders included. Texts of prompts
and answers are not drawn in stand-ins, which could be mistaken for our own glyphs: `text.visible`
escapes them first.
"""

from functools import lru_cache

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

# Where glyphs tell states apart, so do their stand-ins: tests/tui/test_ascii.py has the families.
STAND_INS = {
    # blocks, and what is marked
    "·": ".", "▪": "o", "□": "_", "■": "#", "◆": "&", "◇": "~", "▸": ">", "◂": "<", "▼": "V",
    # requests and decisions
    "○": "w", "◐": "p", "●": "d", "↩": "<", "✓": "v", "⊘": "/", "✗": "x", "×": "*", "↓": "v",
    "◉": "@", "◌": "'", "◈": "$", "⚠": "!", "⏸": "=", "▶": ">", "◧": "[", "�": "?",
    # bars, from empty to full, and courses
    "░": "-", "▒": ":", "▓": "%", "█": "#", "▚": "X", "▁": "_", "▂": ".", "▃": ":", "▄": "-",
    "▅": "=", "▆": "+", "▇": "*", "▏": "'", "▎": "'", "▍": "i", "▌": "i", "▋": "I", "▊": "I",
    "▉": "H", "━": "=", "┃": "#", "▔": "-", "▕": "|", "▀": "-", "▐": "I",
    # lines and corners
    "─": "-", "│": "|", "┌": "+", "┐": "+", "└": "+", "┘": "+", "├": "+", "┤": "+", "┬": "+",
    "┴": "+", "┼": "+", "╭": "+", "╮": "+", "╰": "+", "╯": "+", "╴": "-", "╶": "-", "╵": "|",
    "╷": "|", "╸": "-", "╺": "-", "║": "|",
    # signs and letters of keys
    "–": "-", "−": "-", "…": "~", "“": '"', "”": '"', "≥": ">", "→": ">", "←": "<", "↑": "^",
    "⇧": "^", "↵": "/", "␍": "/", "⇥": "/", "»": ">", "⟨": "<", "⟩": ">",
}  # fmt: skip


@lru_cache(maxsize=4096)
def to_ascii(text: str) -> str:
    """``text`` in as many cells; what is not ours becomes question marks.

    >>> to_ascii("╭─ 3 → “a”")
    '+- 3 > "a"'
    """
    if text.isascii():
        return text
    text = text.replace("≥ ", ">=")
    return "".join(c if c.isascii() else STAND_INS.get(c) or "?" * cell_len(c) for c in text)


class AsciiFilter(LineFilter):
    """Puts stand-ins for all glyphs into what is drawn."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [Segment(to_ascii(text), style, control) for text, style, control in segments]
