"""The step strip: the whole run from the left to the right, one column a step or more.

What a column shows is how much of the token budget the step used, and for what; the columns of
many steps show the fullest of them. Which step is looked at, and whether the strip follows the
newest one, comes from the store; the strip keeps only how many steps share a column.
"""

from functools import lru_cache
from itertools import groupby
from operator import itemgetter

from ...engine.wording import plural
from ..steps import EVICTED, FAILED, PREEMPTED, STOPPED, Column
from ..stops import GLYPH
from ..store import Store
from ..text import Line

BARS = " ▁▂▃▄▅▆▇█"
SHADES = "░▒▓"
MARKS = (
    (FAILED, "✗", "bad", "failed"),
    (STOPPED, GLYPH, "bad", "stopped by a breakpoint"),
    (PREEMPTED, "↓", "bad", "preempted"),
    (EVICTED, "×", "evictable", "evicted"),
)
_HIGH = 2  # lines of the bars where the strip has three
_MOST = 16  # levels of zoom

Runs = list[tuple[str, str, str]]  # text, style, ground
_LOOK = itemgetter(1, 2)


class StepsView:
    """2^``level`` steps share a column. `lines` draws, `step_at` finds a column again."""

    def __init__(self) -> None:
        self.level = 0
        self._left = 0  # the first column shown, and the cell it is in
        self._at = 0
        self._shown = 0

    def lines(self, store: Store, width: int, height: int) -> list[Runs]:
        """The strip: on one line, or on three with marks above the bars."""
        lead, rest = self._sides(store, width, height)
        side = len(lead[0][0][0]) + max((sum(len(t) for t, _ in line) for line in rest), default=0)
        room = max(1, width - side)
        columns = self._columns(store, room)
        here = store.steps.column_of(store.state.step, self.level) - self._left
        self._at = len(lead[0][0][0])
        budget = store.config.max_batch_tokens
        if height < 1 + _HIGH:
            middles = [[_one_line(column, budget) for column in columns]]
        else:
            marks = [_mark(column) for column in columns]
            bars = [[_bar(c, budget, low) for c in columns] for low in range(_HIGH - 1, -1, -1)]
            middles = [marks, *bars]
            if 0 <= here < len(marks) and marks[here][0] == " ":
                marks[here] = "▼", "accent"
        drawn: list[Runs] = []
        for left, cells, right in zip(lead, middles, rest, strict=False):
            fill = " " * (room - len(cells))
            runs = [(text, style, "") for text, style in left]
            runs += _runs(cells, here)
            drawn.append([*runs, (fill, "text", ""), *((t, s, "") for t, s in right)])
        return drawn

    def step_at(self, store: Store, x: int) -> int | None:
        """The step drawn in cell ``x``; of several the last. None where there is none."""
        column = self._left + x - self._at
        if not 0 <= x - self._at < self._shown:
            return None
        return min(store.steps.first + ((column + 1) << self.level) - 1, store.steps.last)

    def scale(self, store: Store, by: int) -> bool:
        """Fewer (``by`` = 1) or more steps in a column; false if that is not possible."""
        level = self.level - by
        longest = max(1, store.steps.last - store.steps.first + 1)
        if not 0 <= level <= min(_MOST, longest.bit_length()):
            return False
        self.level = level
        return True

    def _columns(self, store: Store, room: int) -> list[Column]:
        """What fits: up to the newest step, or around the one looked at if that is long past."""
        steps = store.steps
        newest = steps.column_of(steps.last, self.level)
        here = steps.column_of(store.state.step, self.level)
        left = max(0, newest - room + 1)
        if here < left:
            left = max(0, here - room // 2)
        self._left = left
        found = (steps.column(left + i, self.level) for i in range(room))
        columns = [column for column in found if column is not None]
        self._shown = len(columns)
        return columns

    def _sides(self, store: Store, width: int, height: int) -> tuple[list[Line], list[Line]]:
        """What stands before and behind the columns: the scale, and what the glyphs mean."""
        each = 1 << self.level
        scale = f" {plural(each, 'step')} a column" if self.level else ""
        if store.origin.note and not self._left:
            scale += f" {store.origin.note}"
        if height < 1 + _HIGH:
            return [[(" steps ", "dim")]], [[(scale, "dim")]]
        budget = f"{store.config.max_batch_tokens:,}"
        pad = max(len(budget), 5) + 1
        lead: list[Line] = [
            [(f"{'steps':>{pad}}  ", "dim")],
            [(f"{budget:>{pad}} ┤", "dim")],
            [(f"{0:>{pad}} ┤", "dim")],
        ]
        if width < 100:
            return lead, [[(scale, "dim")], [], []]
        marks: Line = [("  ", "text")]
        for _, glyph, style, word in MARKS[2:]:
            marks += [(glyph, style), (f" {word} ", "dim")]
        bars: Line = [("  ", "text"), ("▓", "prefill"), (" prefill ", "dim")]
        bars += [("█", "decode"), (" decode ", "dim"), ("▚", "prefill"), (" both ", "dim")]
        return lead, [[(f"{'  ' if scale else ''}{scale.strip()}", "dim")], bars, marks]


def _runs(cells: list[tuple[str, str]], here: int) -> Runs:
    """Equal neighbours in one piece, the column looked at on a ground of its own."""
    grounds = [""] * len(cells)
    if 0 <= here < len(cells):
        grounds[here] = "cell"
    looks = ((glyph, style, ground) for (glyph, style), ground in zip(cells, grounds, strict=True))
    return [("".join(glyph for glyph, _, _ in same), *look) for look, same in groupby(looks, _LOOK)]


@lru_cache(maxsize=1024)
def _mark(column: Column) -> tuple[str, str]:
    for bit, glyph, style, _ in MARKS:
        if column.marks & bit:
            return glyph, style
    return " ", "text"


@lru_cache(maxsize=1024)
def _one_line(column: Column, budget: int) -> tuple[str, str]:
    """A mark if there is one, else a shade for a step with prefill, a bar for one without."""
    mark = _mark(column)
    if mark[0] != " ":
        return mark
    used = min(1.0, (column.prefill + column.decode) / budget)
    if column.prefill:
        return SHADES[min(2, int(3 * used))], "prefill"
    if column.decode:
        return BARS[max(1, round(8 * used))], "decode"
    return "·", "faint"


@lru_cache(maxsize=1024)
def _bar(column: Column, budget: int, low: int) -> tuple[str, str]:
    """The piece of a stacked bar, decode below prefill, in line ``low`` from the bottom."""
    whole = 8 * _HIGH
    decode = min(whole, -(-whole * column.decode // budget))
    prefill = min(whole - decode, -(-whole * column.prefill // budget))
    of_decode = max(0, min(8, decode - 8 * low))
    both = max(0, min(8, decode + prefill - 8 * low))
    of_prefill = both - of_decode
    if of_decode and of_prefill:
        return "▚", "prefill"
    if of_prefill:
        return SHADES[min(2, (of_prefill - 1) * 3 // 8)], "prefill"
    if of_decode:
        return BARS[of_decode], "decode"
    return (" ", "text") if low or decode + prefill else ("·", "faint")
