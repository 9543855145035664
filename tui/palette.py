"""Colours, glyphs and the themes. Every state has a glyph of its own as well as a colour.

The hues are Okabe and Ito's, which people with any colour vision can tell apart; the light variants
are the same hues, darkened until they read on white, those of high contrast brightened on black.
The last theme leaves the colours to the terminal. What is drawn in which style is decided by the
views; they name a style, and only `style_table` knows what it looks like.
"""

from collections.abc import Mapping
from dataclasses import replace

from rich.style import Style
from textual.theme import BUILTIN_THEMES, Theme

from ..engine.request import Status

# name: (dark, light, high contrast, the terminal's own)
_STYLES: dict[str, tuple[str, str, str, str]] = {
    "text": ("#d5dce4", "#22272e", "#ffffff", "default"),
    "strong": ("bold #ffffff", "bold #000000", "bold #ffffff", "bold default"),
    "dim": ("#8d99a8", "#5d6875", "#d0d0d0", "default"),
    "faint": ("#4d5866", "#b3bbc4", "#8c8c8c", "bright_black"),
    "heading": ("bold #8d99a8", "bold #5d6875", "bold #d0d0d0", "bold default"),
    "accent": ("bold #56b4e9", "bold #0072b2", "bold #5cc8ff", "bold cyan"),
    "prefill": ("#e69f00", "#9a6a00", "#ffb000", "yellow"),
    "decode": ("#56b4e9", "#0072b2", "#5cc8ff", "cyan"),
    "private": ("#f0e442", "#8a7f00", "#fff200", "bright_yellow"),
    "held": ("#12b886", "#00724f", "#2ee6a6", "green"),
    "shared": ("bold #e08fbf", "bold #a3487c", "bold #ff9ad5", "bold magenta"),
    "evictable": ("#4a90d9", "#0072b2", "#7ab8ff", "blue"),
    "free": ("#4d5866", "#b3bbc4", "#8c8c8c", "bright_black"),
    "good": ("#12b886", "#00724f", "#2ee6a6", "green"),
    "warn": ("#e69f00", "#9a6a00", "#ffb000", "yellow"),
    "bad": ("#e8703a", "#b84a00", "#ff8a50", "red"),
    "title": ("bold #ffffff", "bold #000000", "bold #ffffff", "bold default"),
}

# What lies behind a row or a cell.
_GROUNDS: dict[str, tuple[str, str, str, str]] = {
    "": ("", "", "", ""),
    "cursor": ("on #26384a", "on #cfe3f5", "on #0050a0", "reverse"),
    "linked": ("on #1d2a26", "on #d9efe5", "on #004a38", "underline"),
    "changed": ("bold on #3a3325", "bold on #ffeeba", "bold on #5c4600", "bold underline"),
    "lit": ("bold on #35604f", "bold on #a9dcc6", "bold on #007a55", "reverse"),
    "shade1": ("on #131d26", "on #eef4f9", "on #1c1c1c", ""),
    "shade2": ("on #192834", "on #dfeaf3", "on #2e2e2e", ""),
    "shade3": ("on #203343", "on #cbdeec", "on #424242", ""),
    "cell": (
        "bold #000000 on #ffffff",
        "bold #ffffff on #000000",
        "bold #000000 on #ffffff",
        "bold reverse",
    ),
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

STYLE_NAMES = (*_STYLES, *filter(None, _GROUNDS))
_BASE = "base-of-styles"  # among the variables of a theme, which of ours it is made from

StyleTable = dict[tuple[str, str], Style]


def based_on(base: Theme, styles: Mapping[str, str]) -> dict[str, str]:
    """The variables of a theme that draws as ``base`` does but for ``styles``."""
    own = {f"style-{name}": value for name, value in styles.items()}
    return {**base.variables, _BASE: base.name, **own}


def style_table(theme: Theme) -> StyleTable:
    """Every (style, ground) as a Rich style; for a theme that is none of ours, ours of its kind."""
    names = [own.name for own in OWN]
    base = theme.variables.get(_BASE, theme.name)
    column = names.index(base) if base in names else 3 if theme.ansi else not theme.dark

    def style(name: str, ours: tuple[str, ...]) -> Style:
        return Style.parse(theme.variables.get(f"style-{name}", ours[column]))

    return {
        (name, ground): style(name, fronts) + style(ground, backs)
        for ground, backs in _GROUNDS.items()
        for name, fronts in _STYLES.items()
    }


DARK = Theme(
    name="dark",
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
    name="light",
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
CONTRAST = Theme(
    name="high-contrast",
    primary="#5cc8ff",
    secondary="#ff9ad5",
    accent="#5cc8ff",
    warning="#ffb000",
    error="#ff8a50",
    success="#2ee6a6",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#1c1c1c",
    dark=True,
)
ANSI = replace(BUILTIN_THEMES["ansi-dark"], name="ansi")
OWN = (DARK, LIGHT, CONTRAST, ANSI)
OWN_THEMES = {
    DARK.name: "on a dark ground",
    LIGHT.name: "on a light ground",
    CONTRAST.name: "bright on black",
    ANSI.name: "the terminal's own sixteen colours",
}
