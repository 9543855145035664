"""Measurements of one kind in the order they were made, and those of a window in order of size.

What a window is, and which measurements it begins and ends with, says `windows.py`.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable

from .ordered import Ordered

KEEP = 1 << 20  # entries, 16 MB; the oldest are forgotten first


class Samples:
    """Measurements in the order they were made, with how many there were up to each: most of a
    batch have the same time, and are one entry."""

    def __init__(self, before: int) -> None:
        self.before = before  # how many there were before the first that is kept
        self.seconds = array("d")
        self.counts = array("q")
        self.dropped = 0  # entries

    def add(self, seconds: float, times: int) -> None:
        self.counts.append((self.counts[-1] if self.counts else self.before) + times)
        self.seconds.append(seconds)
        if len(self.counts) > KEEP + KEEP // 8:
            drop = len(self.counts) - KEEP
            self.before = self.counts[drop - 1]
            self.dropped += drop
            del self.counts[:drop], self.seconds[:drop]

    def entry(self, count: int) -> int:
        """How many entries there ever were when there were ``count`` measurements."""
        return self.dropped + bisect_right(self.counts, count)

    def has(self, first_count: int, end_count: int) -> bool:
        """Whether those from number ``first_count`` to ``end_count`` were heard, and are kept."""
        last = self.counts[-1] if self.counts else self.before
        return self.before <= first_count and end_count <= last

    def between(self, first: int, end: int) -> Iterable[tuple[float, int]]:
        for i in range(first - self.dropped, end - self.dropped):
            yield self.seconds[i], self.counts[i] - (self.counts[i - 1] if i else self.before)


class Within:
    """The measurements from one to another, in order; moving on costs what comes and goes."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._first = self._end = 0
        self.ordered = Ordered()

    def move(self, first_count: int, end_count: int) -> bool:
        """Have those from number ``first_count`` to ``end_count``; false if they are not kept."""
        samples = self._samples
        if not samples.has(first_count, end_count):
            return False
        first, end = samples.entry(first_count), samples.entry(end_count)
        change = abs(first - self._first) + abs(end - self._end)
        if change > end - first or self._first < samples.dropped:
            self.ordered = Ordered(samples.between(first, end))
        else:
            for a, b in ((self._end, end), (first, self._first)):
                for seconds, times in samples.between(a, b):
                    self.ordered.add(seconds, times)
            for a, b in ((self._first, first), (end, self._end)):
                for seconds, times in samples.between(a, b):
                    self.ordered.remove(seconds, times)
        self._first, self._end = first, end
        return True
