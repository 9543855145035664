"""Lines of styled text: measured in cells, clipped, padded, wrapped, and safe to put on a screen.

Nothing here knows of widgets or of the engine. A `Line` is a list of (text, style name) spans.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

from rich import cells
from rich.cells import set_cell_size

Span = tuple[str, str]
Line = list[Span]
Links = list[tuple[Line, str]]
"""Words, and the action that a click on them is."""

_SHOWN = {"\n": "↵", "\r": "␍", "\t": "⇥"}
_PUNCTUATION = "“”–−…→≥"  # of our sentences; in a prompt it is no glyph of ours either


class _Escapes:
    """Whether what is not ASCII is spelled out, for terminals that cannot show it."""

    on = False


def escape_texts(on: bool) -> None:
    """Spell out characters beyond ASCII, as in ``\\xe9``, from now on or no longer."""
    _Escapes.on = on
    _shown.cache_clear()


@lru_cache(maxsize=4096)
def _shown(char: str) -> str:
    """Itself, unless it would move the cursor, reorder the line or be invisible."""
    if _Escapes.on and not (char.isascii() and char.isprintable()) and char not in _PUNCTUATION:
        return char.encode("unicode_escape").decode()
    if char in _SHOWN:
        return _SHOWN[char]
    return "·" if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") else char


def visible(text: str) -> str:
    """``text`` on one line, with line ends and tabs drawn and nothing a terminal would obey.

    >>> visible("a\\nb\\x1b")
    'a↵b·'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_shown, text))


def cell_len(text: str) -> int:
    """The cells that ``text`` takes."""
    if text.isascii() and text.isprintable():
        return len(text)
    return cells.cell_len(text)


def clip(text: str, width: int) -> str:
    """The first ``width`` cells, ending in … if anything had to go."""
    if width <= 0:
        return ""
    if len(text) <= width and cell_len(text) <= width:
        return text
    # A cell is at least one character short of two: never look at more than could fit.
    return set_cell_size(text[: width * 2], width - 1).rstrip() + "…"


def clip_left(text: str, width: int) -> str:
    """The last ``width`` cells, beginning with … if anything had to go."""
    if width <= 0:
        return ""
    if len(text) <= width and cell_len(text) <= width:
        return text
    tail = text[-(width - 1) :] if width > 1 else ""
    while cell_len(tail) > width - 1:
        tail = tail[1:]
    return "…" + tail


def pad(text: str, width: int) -> str:
    """``text`` in exactly ``width`` cells, at the left."""
    text = clip(text, width)
    return text + " " * (width - cell_len(text))


def pad_left(text: str, width: int) -> str:
    """``text`` in exactly ``width`` cells, at the right."""
    text = clip(text, width)
    return " " * (width - cell_len(text)) + text


def plain(line: Line) -> str:
    return "".join(text for text, _ in line)


def wrap(text: str, width: int) -> list[str]:
    """``text`` in lines of at most ``width`` cells, broken at spaces and at its own line ends."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        lines += _wrap_paragraph(visible(paragraph), max(1, width))
    return lines


def _wrap_paragraph(text: str, width: int) -> list[str]:
    lines: list[str] = []
    while cell_len(text) > width:
        fits = _characters_that_fit(text, width)
        at = text.rfind(" ", 1, fits + 1)
        if at <= 0:
            at = fits
        lines.append(text[:at].rstrip())
        text = text[at:].lstrip(" ")
    lines.append(text)
    return lines


def _characters_that_fit(text: str, width: int) -> int:
    count = min(len(text), width)
    while count > 1 and cell_len(text[:count]) > width:
        count -= 1
    return count


def bar(parts: Iterable[tuple[int, str, str]], width: int) -> Line:
    """A bar of ``width`` cells divided among (count, glyph, style) parts in proportion.

    A part that is not zero gets a cell at least, so that nothing there goes unseen.
    """
    parts = [part for part in parts if part[0] > 0]
    shares = _shares([count for count, _, _ in parts], width)
    return [(glyph * n, style) for n, (_, glyph, style) in zip(shares, parts, strict=True) if n]


def _shares(counts: Sequence[int], width: int) -> list[int]:
    total = sum(counts)
    if not total or width < len(counts):
        return [0] * len(counts)
    shares = [max(1, count * width // total) for count in counts]
    while sum(shares) != width:
        step = 1 if sum(shares) < width else -1
        # Correct the part that is furthest off in that direction.
        off = [step * (counts[i] * width / total - shares[i]) for i in range(len(shares))]
        if step < 0:
            off = [o if shares[i] > 1 else float("-inf") for i, o in enumerate(off)]
        shares[off.index(max(off))] += step
    return shares
