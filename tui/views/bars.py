"""The words around the panes: tabs, the keys that work, and what is said in place of panes."""

from collections.abc import Callable, Collection, Iterable, Mapping

from ..actions import Action, key
from ..text import Line, Links, cell_len, clip, wrap

_FAILURE_LINES = 5


def tabs(names: Mapping[int, str], active: int, shown: Collection[int], width: int) -> Links:
    """A word for each pane; where there is no room for all of them, the numbers of most."""
    words = {number: f"{number} {name}" for number, name in names.items()}
    gap = " " if sum(len(word) + 2 for word in words.values()) < width else ""
    if sum(len(word) + 1 for word in words.values()) + 2 > width:
        words = {n: word if n == active else str(n) for n, word in words.items()}
    links: Links = []
    for number, word in words.items():
        style = "accent" if number == active else "text" if number in shown else "dim"
        text = f"[{word}]" if number == active else f"{gap}{word}{gap or ' '}"
        links.append(([(text, style)], f"pane({number})"))
    return links


def rule(subtitle: str, width: int) -> list[Line]:
    """Above the one pane of a narrow terminal, which has no border: what it shows."""
    words = clip(subtitle, width - 4)
    lead = "─" * (width - cell_len(words) - 3)
    return [[(f"{lead} ", "faint"), (words, "dim"), (" ─", "faint")]]


def key_words(usable: Iterable[Action], word: Callable[[Action], str], width: int) -> Links:
    """The keys of ``usable``, each with its word; if they are too many, those that matter most."""
    words = {action: word(action) for action in usable}
    while sum(len(a.shown) + len(text) + 3 for a, text in words.items()) > width - 1:
        del words[max(words, key=lambda action: action.rank)]
    return [
        ([(action.shown, "accent"), (f" {text}", "dim")], action.call)
        for action, text in words.items()
    ]


def too_small(columns: int, rows: int, smallest: tuple[int, int], width: int) -> list[Line]:
    need = "×".join(map(str, smallest))
    text = (
        f"the terminal is {columns}×{rows}; minisgl-tui needs {need}: "
        f"enlarge it, or press {key('quit')} to quit"
    )
    return [[(part, "warn")] for part in wrap(text, width)]


def failure_lines(failure: str, width: int) -> list[Line]:
    """The beginning and the end of a long one."""
    lines = wrap(failure, width)
    if len(lines) > _FAILURE_LINES:
        lines = [*lines[:2], "…", *lines[-2:]]
    return [[(part, "bad")] for part in lines]
