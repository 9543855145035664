"""Colours, glyphs and the two themes. Every state has a glyph of its own as well as a colour.

The hues are Okabe and Ito's, which people with any colour vision can tell apart; the light variants
are the same hues, darkened until they read on white. What is drawn in which style is decided by the
views; they name a style, and only `style_table` knows what it looks like.
"""

from rich.style import Style
from textual.theme import Theme

from ..engine.request import Status

# name: (on dark, on light)
_STYLES: dict[str, tuple[str, str]] = {
    "text": ("#d5dce4", "#22272e"),
    "strong": ("bold #ffffff", "bold #000000"),
    "dim": ("#8d99a8", "#5d6875"),
    "faint": ("#4d5866", "#b3bbc4"),
    "heading": ("bold #8d99a8", "bold #5d6875"),
    "accent": ("bold #56b4e9", "bold #0072b2"),
    "prefill": ("#e69f00", "#9a6a00"),
    "decode": ("#56b4e9", "#0072b2"),
    "private": ("#f0e442", "#8a7f00"),
    "held": ("#12b886", "#00724f"),
    "shared": ("bold #e08fbf", "bold #a3487c"),
    "evictable": ("#4a90d9", "#0072b2"),
    "free": ("#4d5866", "#b3bbc4"),
    "good": ("#12b886", "#00724f"),
    "warn": ("#e69f00", "#9a6a00"),
    "bad": ("#e8703a", "#b84a00"),
    "title": ("bold #ffffff", "bold #000000"),
}

# What lies behind a row or a cell.
_GROUNDS: dict[str, tuple[str, str]] = {
    "": ("", ""),
    "cursor": ("on #26384a", "on #cfe3f5"),
    "linked": ("on #1d2a26", "on #d9efe5"),
    "changed": ("bold on #3a3325", "bold on #ffeeba"),
    "lit": ("bold on #35604f", "bold on #a9dcc6"),
    "cell": ("bold #000000 on #ffffff", "bold #ffffff on #000000"),
}

STATUS_GLYPHS: dict[str, tuple[str, str]] = {
    Status.WAITING: ("○", "dim"),
    Status.PREFILLING: ("◐", "prefill"),
    Status.DECODING: ("●", "decode"),
    Status.PREEMPTED: ("↩", "bad"),
    "stop": ("✓", "good"),
    "length": ("✓", "good"),
    "abort": ("⊘", "dim"),
    "error": ("✗", "bad"),
}

StyleTable = dict[tuple[str, str], Style]


def style_table(dark: bool) -> StyleTable:
    """Every (style, ground) as a Rich style, for a dark or a light theme."""
    column = 0 if dark else 1
    table: StyleTable = {}
    for ground, backs in _GROUNDS.items():
        for name, fronts in _STYLES.items():
            table[name, ground] = Style.parse(fronts[column]) + Style.parse(backs[column])
    return table


DARK = Theme(
    name="minisgl-dark",
    primary="#56b4e9",
    secondary="#cc79a7",
    accent="#56b4e9",
    warning="#e69f00",
    error="#d55e00",
    success="#009e73",
    foreground="#d5dce4",
    background="#0e1318",
    surface="#141b22",
    panel="#1b242d",
    dark=True,
)
LIGHT = Theme(
    name="minisgl-light",
    primary="#0072b2",
    secondary="#a3487c",
    accent="#0072b2",
    warning="#9a6a00",
    error="#b84a00",
    success="#00724f",
    foreground="#22272e",
    background="#fbfcfd",
    surface="#f1f4f7",
    panel="#e6ebf0",
    dark=False,
)
