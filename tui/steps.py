"""What each step did, in numbers: a few bytes a step, for strips and sparklines over a whole run.

`StepSeries` is about all steps that are known, whichever of them the screens look at. For strips
that show many steps in a column it keeps pyramids: at level ``j`` one entry stands for 2ʲ steps, so
that a column costs the same whatever it covers. A step takes about 90 bytes.
"""

from array import array
from collections.abc import Callable
from typing import NamedTuple

from ..engine import events as ev
from ..engine.state import EngineState
from ..engine.stats import Statistics

PREEMPTED, EVICTED, FAILED, STOPPED = 1, 2, 4, 8  # what a step is marked with, as bits

PARTS = ("forward", "schedule", "prepare", "sample", "commit")  # of a step's time, as shown
NO_TIME = -1.0

# What a step adds to the totals.
_TOTALS: dict[str, Callable[[Statistics], int]] = {
    "prefill": lambda stats: stats.prefill_tokens,
    "decode": lambda stats: stats.decode_tokens,
    "sampled": lambda stats: stats.sampled_tokens,
    "hit": lambda stats: stats.cached_tokens,
    "finished": lambda stats: sum(stats.finished.values()),
    "preempted": lambda stats: stats.preemptions,
    "evicted": lambda stats: stats.evicted_blocks,
    "failed": lambda stats: stats.failed_steps,
}
_SHORT = frozenset(("finished", "preempted", "failed"))  # two bytes do; more are said to be as many
_SHORT_MOST = (1 << 16) - 1
# What there is after a step: requests, then blocks.
_GAUGES: dict[str, Callable[[EngineState], int]] = {
    "waiting": lambda state: len(state.waiting),
    "running": lambda state: len(state.running),
    "held": lambda state: state.config.num_blocks - state.free - state.evictable,
    "cached": lambda state: state.evictable,
}
_MEANS = ("queue", "ttft", "itl")  # times of those that were let in, or got a token
_MARKS = (("preempted", PREEMPTED), ("evicted", EVICTED), ("failed", FAILED))


class Column(NamedTuple):
    """Tokens of one step, the fullest of those that share the column, and the marks of all."""

    prefill: int
    decode: int
    marks: int


class StepSeries:
    """A number for each step from ``first`` to ``last`` in each of the series: tokens, requests,
    blocks, and times in seconds (`NO_TIME` where there is none).

    ``start`` is the state before the first record. A step that was missed is all 0.
    """

    def __init__(self, start: EngineState) -> None:
        self.first = start.step + 1
        names = (*_TOTALS, *_GAUGES)
        self._counts = {name: array("H" if name in _SHORT else "I") for name in names}
        self._times = {name: array("f") for name in ("seconds", *PARTS, *_MEANS)}
        self._pyramid = Pyramid(self._counts["prefill"], self._counts["decode"])
        self._length = 0
        self._look(start.stats)

    @property
    def last(self) -> int:
        """The latest step known; ``first`` - 1 if none is."""
        return self.first + self._length - 1

    # --- reading ---------------------------------------------------------------------------------

    def values(self, name: str, start: int, end: int) -> list[float]:
        """The series ``name`` from step ``start`` to ``end``, both included, as far as it goes."""
        series = self._counts[name] if name in self._counts else self._times[name]
        return list(series[max(0, start - self.first) : max(0, end + 1 - self.first)])

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
        at = record.step - self.first
        if at < 0:
            self._look(state.stats)
            return
        for name, total in _TOTALS.items():
            count = self._counts[name][at] + total(state.stats) - self._totals[name]
            self._counts[name][at] = min(count, _SHORT_MOST) if name in _SHORT else count
        for name, gauge in _GAUGES.items():
            self._counts[name][at] = gauge(state)
        for name in _MEANS:
            self._mean(name, at, state.stats)
        if record.timings:
            self._times["seconds"][at] = record.seconds
            for part in PARTS:
                self._times[part][at] = record.timings.get(part, NO_TIME)
        self._look(state.stats)
        marks = sum(bit for name, bit in _MARKS if self._counts[name][at])
        self._pyramid.put(at, marks)

    def mark(self, step: int, bit: int) -> None:
        """Add a mark to a step that is known."""
        if self.first <= step <= self.last:
            self._pyramid.put(step - self.first, bit)

    def _grow(self) -> None:
        self._length += 1
        for counts in self._counts.values():
            counts.append(0)
        for times in self._times.values():
            times.append(NO_TIME)
        self._pyramid.put(self._length - 1, 0)

    def _look(self, stats: Statistics) -> None:
        """Remember the totals, to know what the next record adds."""
        self._totals = {name: total(stats) for name, total in _TOTALS.items()}
        self._sums = {name: _sum_and_count(stats, name) for name in _MEANS}

    def _mean(self, name: str, at: int, stats: Statistics) -> None:
        total, count = _sum_and_count(stats, name)
        before, known = self._sums[name]
        if count > known:
            self._times[name][at] = (total - before) / (count - known)


def _sum_and_count(stats: Statistics, name: str) -> tuple[float, int]:
    histogram = getattr(stats, name)
    return histogram.sum, histogram.count


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
