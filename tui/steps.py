"""What each step did, in numbers: a few bytes a step, for a strip over a whole run.

`StepSeries` is about all steps that are known, whichever of them the screens look at. For strips
that show many steps in a column it keeps pyramids: at level ``j`` one entry stands for 2ʲ steps, so
that a column costs the same whatever it covers. A step takes about 18 bytes.
"""

from array import array
from collections.abc import Callable
from typing import NamedTuple

from ..engine import events as ev
from ..engine.state import EngineState
from ..engine.stats import Statistics

PREEMPTED, EVICTED, FAILED, STOPPED = 1, 2, 4, 8  # what a step is marked with, as bits

# What a step is marked with where it adds to these totals.
_MARKS: dict[int, Callable[[Statistics], int]] = {
    PREEMPTED: lambda stats: stats.preemptions,
    EVICTED: lambda stats: stats.evicted_blocks,
    FAILED: lambda stats: stats.failed_steps,
}


class Column(NamedTuple):
    """Tokens of one step, the fullest of those that share the column, and the marks of all."""

    prefill: int
    decode: int
    marks: int


class StepSeries:
    """The tokens of each step from ``first`` to ``last``, and its marks.

    ``start`` is the state before the first record. A step that was missed is all 0.
    """

    def __init__(self, start: EngineState) -> None:
        self.first = start.step + 1
        self._prefill, self._decode = array("I"), array("I")
        self._pyramid = Pyramid(self._prefill, self._decode)
        self._look(start.stats)

    @property
    def last(self) -> int:
        """The latest step known; ``first`` - 1 if none is."""
        return self.first + len(self._prefill) - 1

    # --- reading ---------------------------------------------------------------------------------

    def column(self, number: int, level: int) -> Column | None:
        """The steps from ``first`` + ``number`` · 2^``level`` on, 2^``level`` of them; None where
        none is known."""
        return self._pyramid.at(number, level)

    def column_of(self, step: int, level: int) -> int:
        return (step - self.first) >> level

    # --- recording -------------------------------------------------------------------------------

    def apply(self, record: ev.StepRecord, state: EngineState) -> None:
        """Take in one record, which ``state`` has taken in already."""
        while self.last < record.step:
            self._grow()
        stats, at = state.stats, record.step - self.first
        if at >= 0:
            self._prefill[at] += stats.prefill_tokens - self._prefilled
            self._decode[at] += stats.decode_tokens - self._decoded
            marks = sum(bit for bit, total in _MARKS.items() if total(stats) > self._totals[bit])
            self._pyramid.put(at, marks)
        self._look(stats)

    def mark(self, step: int, bit: int) -> None:
        """Add a mark to a step that is known."""
        if self.first <= step <= self.last:
            self._pyramid.put(step - self.first, bit)

    def _grow(self) -> None:
        self._prefill.append(0)
        self._decode.append(0)
        self._pyramid.put(len(self._prefill) - 1, 0)

    def _look(self, stats: Statistics) -> None:
        """Remember the totals, to know what the next record adds."""
        self._prefilled, self._decoded = stats.prefill_tokens, stats.decode_tokens
        self._totals = {bit: total(stats) for bit, total in _MARKS.items()}


class Pyramid:
    """Columns of 1, 2, 4, … steps, up to one column of all: entry ``i`` of a level sums up ``2i``
    and ``2i + 1`` of the level below. The lowest is made of the series themselves."""

    def __init__(self, prefill: "array[int]", decode: "array[int]") -> None:
        self._levels = [_Level(prefill, decode)]

    def at(self, number: int, level: int) -> Column | None:
        top = len(self._levels) - 1
        if level > top and number == 0:
            level = top  # everything there is
        if not (level <= top and 0 <= number < len(self._levels[level].marks)):
            return None
        return self._levels[level].entry(number)

    def put(self, number: int, marks: int) -> None:
        """Entry ``number`` of the series, perhaps a new one, is as it is now, and has ``marks``."""
        lowest = self._levels[0]
        if number == len(lowest.marks):
            lowest.marks.append(0)
        lowest.marks[number] |= marks
        column = lowest.entry(number)
        for level in self._levels[1:]:
            number >>= 1
            level.put(number, column)
        top = self._levels[-1]
        if len(top.marks) > 1:
            higher = _Level(array("I"), array("I"))
            for entry in range(len(top.marks)):
                higher.put(0, top.entry(entry))
            self._levels.append(higher)


class _Level:
    """Columns side by side."""

    def __init__(self, prefill: "array[int]", decode: "array[int]") -> None:
        self.prefill = prefill
        self.decode = decode
        self.marks = bytearray()

    def entry(self, number: int) -> Column:
        return Column(self.prefill[number], self.decode[number], self.marks[number])

    def put(self, number: int, column: Column) -> None:
        """Keep the fuller one, and the marks of both."""
        prefill, decode, marks = column
        if number == len(self.marks):
            self.prefill.append(prefill)
            self.decode.append(decode)
            self.marks.append(marks)
            return
        if prefill + decode > self.prefill[number] + self.decode[number]:
            self.prefill[number], self.decode[number] = prefill, decode
        self.marks[number] |= marks
