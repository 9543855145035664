"""Numbers in order while they come and go, and exact quantiles of them at any time."""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate
from math import ceil, nan

_LOAD = 128  # different values a chunk has at the most, twice as many before it is split


class Ordered:
    """A multiset of numbers. To add or remove one among ``n`` costs about √n.

    >>> times = Ordered([(0.02, 3)])
    >>> times.add(0.5); times.remove(0.02)
    >>> times.count, times.quantile(0.5), times.quantile(1)
    (3, 0.02, 0.5)
    """

    def __init__(self, numbers: Iterable[tuple[float, int]] = ()) -> None:
        """``numbers``, each with how often it is there."""
        often: dict[float, int] = {}
        for value, times in numbers:
            often[value] = often.get(value, 0) + times
        self.count = sum(often.values())
        self._values: list[list[float]] = []  # chunks, none of them empty, in order
        self._times: list[list[int]] = []  # how often each value is there
        self._sums: list[int] = []  # of a chunk's times
        self._ends: list[float] = []  # a chunk's last value
        values = sorted(often)
        for start in range(0, len(values), _LOAD):
            chunk = values[start : start + _LOAD]
            self._put(len(self._ends), chunk, [often[value] for value in chunk])

    def add(self, value: float, times: int = 1) -> None:
        self.count += times
        if not self._values:
            self._put(0, [value], [times])
            return
        i = min(bisect_left(self._ends, value), len(self._ends) - 1)
        values, counts = self._values[i], self._times[i]
        at = bisect_left(values, value)
        self._sums[i] += times
        if at < len(values) and values[at] == value:
            counts[at] += times
            return
        values.insert(at, value)
        counts.insert(at, times)
        self._ends[i] = values[-1]
        if len(values) > 2 * _LOAD:
            self._take(i)
            self._put(i, values[_LOAD:], counts[_LOAD:])
            self._put(i, values[:_LOAD], counts[:_LOAD])

    def remove(self, value: float, times: int = 1) -> None:
        """Take out what is in it at least so often."""
        self.count -= times
        i = bisect_left(self._ends, value)
        values, counts = self._values[i], self._times[i]
        at = bisect_left(values, value)
        counts[at] -= times
        self._sums[i] -= times
        if counts[at]:
            return
        del values[at], counts[at]
        if values:
            self._ends[i] = values[-1]
        else:
            self._take(i)

    def quantile(self, q: float) -> float:
        """Number ⌈``q`` · count⌉ in order, as `Histogram.bounds` has it; NaN if it is empty."""
        if not self.count:
            return nan
        rank = max(1, ceil(q * self.count))
        if rank == self.count:
            return self._ends[-1]
        i, rank = _find(self._sums, rank)
        at, _ = _find(self._times[i], rank)
        return self._values[i][at]

    def _put(self, i: int, values: list[float], times: list[int]) -> None:
        self._values.insert(i, values)
        self._times.insert(i, times)
        self._sums.insert(i, sum(times))
        self._ends.insert(i, values[-1])

    def _take(self, i: int) -> None:
        del self._values[i], self._times[i], self._sums[i], self._ends[i]


def _find(counts: list[int], rank: int) -> tuple[int, int]:
    """Which of ``counts`` number ``rank`` is among, and its number there, from 1 on."""
    upto = list(accumulate(counts))
    i = bisect_left(upto, rank)
    return i, rank - upto[i] + counts[i]
