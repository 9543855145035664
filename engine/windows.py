"""The last seconds or minutes of a run, as a person on call asks for them, at any position of it.

`Statistics` says what counts and what is measured; `Windows` keeps that by time: the totals at the
end of every tenth of a second, every single measurement (`samples.py`), and the times of every
request that ended (`slowest.py`). A window is then a difference of totals and the measurements in
between. It ends where one looks, so that it is the same live, in the past and in a replay; all by
the engine's clock, and a window begins on a tenth of a second. What is kept is bounded: `Windows`
says where it begins.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable
from heapq import nlargest
from math import floor, nan
from typing import NamedTuple

from .events import StepRecord
from .samples import Samples, Within
from .slowest import Ended, Slow, in_the_end, slowest_alive, so_far
from .state import EngineState
from .stats import Histogram, Statistics

SLICE = 0.1  # seconds
KEEP = 1 << 18  # slices: 7 hours without a pause, 60 MB; the oldest are forgotten first

TOTALS: dict[str, Callable[[Statistics], int]] = {
    "submitted": lambda stats: stats.submitted,
    "ended": lambda stats: sum(stats.finished.values()),
    "failed": lambda stats: stats.refused + stats.finished.get("error", 0),
    "aborted": lambda stats: stats.finished.get("abort", 0),
    "prompt": lambda stats: stats.prompt_tokens,
    "hit": lambda stats: stats.cached_tokens,
    "prefill": lambda stats: stats.prefill_tokens,
    "sampled": lambda stats: stats.sampled_tokens,
    "preempted": lambda stats: stats.preemptions,
    "lost": lambda stats: stats.lost_tokens,
    "evicted": lambda stats: stats.evicted_blocks,
    "failed_steps": lambda stats: stats.failed_steps,
}
GAUGES: dict[str, Callable[[EngineState], int]] = {
    "waiting": lambda state: len(state.waiting),
    "running": lambda state: len(state.running),
    "held": lambda state: state.config.num_blocks - state.free - state.evictable,
    "cached": lambda state: state.evictable,
}
TIMES = ("queue", "ttft", "itl", "e2e", "step_time")  # of the histograms of `Statistics`
PERCENTS = (50, 95, 99)


class Times(NamedTuple):
    """Measurements of one kind in a window, in seconds; NaN where there is none. Exact, unless
    `Windows.estimates` says that percentiles lie somewhere between two edges of a histogram."""

    samples: int
    mean: float
    p50: float
    p95: float
    p99: float
    most: float


class Window(NamedTuple):
    """From ``start`` to ``end`` on the engine's clock, from after slice number ``row`` on.

    Of the ``whole`` run, totals and times are those of `Statistics` and `/metrics`, even where the
    first of its records were not heard; courses and requests are those from ``row`` on.
    """

    start: float
    end: float
    row: int
    whole: bool = False

    @property
    def seconds(self) -> float:
        return self.end - self.start


class Windows:
    """Follows a run from ``start``, the state before the first record it will hear."""

    def __init__(self, start: EngineState) -> None:
        self.began = 0.0  # no window reaches back further than this
        self._heard = False
        self._slices = array("q", [-1])  # numbers of the slices in which there were records
        self._totals = {name: array("q", [total(start.stats)]) for name, total in TOTALS.items()}
        self._gauges = {name: array("q", [gauge(start)]) for name, gauge in GAUGES.items()}
        self._counts = {name: array("q", [getattr(start.stats, name).count]) for name in TIMES}
        self._sums = {name: array("d", [getattr(start.stats, name).sum]) for name in TIMES}
        self._columns: list[array[int] | array[float]] = [self._slices]
        for columns in (self._totals, self._gauges, self._counts, self._sums):
            self._columns += columns.values()
        self._samples = {name: Samples(self._counts[name][0]) for name in TIMES}
        self._within = {name: Within(samples) for name, samples in self._samples.items()}
        self._ended = Ended(self._totals["ended"][0])
        self._last = 0.0

    def apply(self, record: StepRecord, state: EngineState) -> None:
        """Take in one record, which ``state`` includes."""
        stats = state.stats
        if not self._heard:
            self._heard = True
            self.began = record.t
            self._slices[0] = floor(record.t / SLICE) - 1
        number = max(floor(stats.now / SLICE), self._slices[-1])  # a clock may go back
        if number > self._slices[-1]:
            for column in self._columns:
                column.append(0)
            self._slices[-1] = number
        self._last = max(self._last, stats.now)
        for name, total in TOTALS.items():
            self._totals[name][-1] = total(stats)
        for name, gauge in GAUGES.items():
            self._gauges[name][-1] = gauge(state)
        for name in TIMES:
            histogram = getattr(stats, name)
            self._counts[name][-1], self._sums[name][-1] = histogram.count, histogram.sum
        for sample in stats.measured:
            if sample.of in self._samples:
                self._samples[sample.of].add(sample.seconds, sample.times)
        for req, live in stats.gone:
            self._ended.add(in_the_end(req, live, stats.now))
        if len(self._slices) > KEEP + KEEP // 8:
            for column in self._columns:
                del column[: len(column) - KEEP]
            self.began = (self._slices[0] + 1) * SLICE

    # --- asking ----------------------------------------------------------------------------------

    def known(self, stats: Statistics) -> bool:
        """Whether the position that ``stats`` are of is one that is kept: not before the first
        record heard, not after the last, and not too long ago."""
        return self._heard and self.began <= stats.now <= self._last

    def window(self, stats: Statistics, seconds: float | None) -> Window | None:
        """The last ``seconds`` before the position that ``stats`` are of, or as many as are known,
        and None where none are; the whole run up to there if ``seconds`` is None."""
        if seconds is None:
            began = stats.now if stats.started_at is None else stats.started_at
            return Window(began, stats.now, 0, whole=True)
        if not self.known(stats):
            return None
        first = floor((stats.now - seconds) / SLICE)
        row = max(0, bisect_left(self._slices, first) - 1)
        return Window(max(first * SLICE, self.began), stats.now, row)

    def counted(self, window: Window, stats: Statistics, name: str) -> int:
        """How much was added to the total ``name`` in the window that ends where ``stats`` do."""
        before = 0 if window.whole else self._totals[name][window.row]
        return TOTALS[name](stats) - before

    def times(self, window: Window, stats: Statistics, name: str) -> Times | None:
        """What was measured in the window; None if it is no longer kept."""
        histogram: Histogram = getattr(stats, name)
        if window.whole and not self._samples[name].has(0, histogram.count):
            quantiles = (histogram.quantile(percent / 100) for percent in (*PERCENTS, 100))
            return Times(histogram.count, histogram.mean, *quantiles)
        within, count, total = self._within[name], 0, 0.0
        if not window.whole:
            count, total = self._counts[name][window.row], self._sums[name][window.row]
        if not within.move(count, histogram.count):
            return None
        samples = within.ordered.count
        mean = (histogram.sum - total) / samples if samples else nan
        quantiles = (within.ordered.quantile(percent / 100) for percent in (*PERCENTS, 100))
        return Times(samples, mean, *quantiles)

    def estimates(self, window: Window, stats: Statistics) -> bool:
        """Whether some percentiles of the whole run are no more than that, as not all of it was
        heard or is still kept."""
        counts = {name: getattr(stats, name).count for name in TIMES}
        return window.whole and not all(self._samples[name].has(0, counts[name]) for name in TIMES)

    def course(self, window: Window, state: EngineState, cells: int) -> "Course | None":
        """How it went, in at most ``cells`` equal parts; None where that is not `known`."""
        return Course(self, window, state, cells) if self.known(state.stats) else None

    def times_of(self, req: int, stats: Statistics) -> Slow | None:
        """Those of one request, as they were where ``stats`` are of; None if they are not kept."""
        live = stats.live.get(req)
        if live is not None:
            return so_far(req, live, stats.now)
        return self._ended.find(req, TOTALS["ended"](stats))

    def slowest(self, window: Window, stats: Statistics, by: str, most: int) -> list[Slow]:
        """Those that took longest ``by`` one of `ORDERS`, the slowest first, of the requests that
        ended in the window and those that were alive at its end."""
        first, end = self._totals["ended"][window.row], TOTALS["ended"](stats)
        alive = slowest_alive(stats.live, stats.now, by, most)
        found = [*self._ended.slowest(first, end, by, most), *alive]
        known = (slow for slow in found if getattr(slow, by) >= 0)
        return nlargest(most, known, key=lambda slow: getattr(slow, by))


class Course:
    """How a window went: up to ``cells`` figures of each kind, the oldest first.

    The parts are a slice or more long and lie at whole multiples of their length, so that the
    figures of the past stay as they are while the window moves on; the last part is the one that
    has begun.
    """

    def __init__(self, windows: Windows, window: Window, state: EngineState, cells: int) -> None:
        self._windows, self._state = windows, state
        first = floor(max(window.start, windows.began) / SLICE)
        last = floor(window.end / SLICE)
        each = max(1, -(-(last - first + 1) // max(1, cells - 1)))
        edges = range(first // each * each, last + 1, each)
        rows = (bisect_left(windows._slices, edge) - 1 for edge in edges)
        self._rows = [max(row, window.row) for row in rows]

    def counted(self, name: str) -> list[float]:
        """What each part added to a total."""
        column = self._windows._totals[name]
        return _differences([column[row] for row in self._rows], TOTALS[name](self._state.stats))

    def gauge(self, name: str) -> list[float]:
        """What there was at the end of each part."""
        column = self._windows._gauges[name]
        return [*(float(column[row]) for row in self._rows[1:]), float(GAUGES[name](self._state))]

    def mean(self, name: str) -> list[float]:
        """The mean of what was measured in each part; -1 where nothing was."""
        histogram = getattr(self._state.stats, name)
        counts, sums = self._windows._counts[name], self._windows._sums[name]
        times = _differences([counts[row] for row in self._rows], histogram.count)
        seconds = _differences([sums[row] for row in self._rows], histogram.sum)
        return [s / n if n else -1.0 for s, n in zip(seconds, times, strict=True)]


def _differences(starts: list[float], end: float) -> list[float]:
    return [b - a for a, b in zip(starts, [*starts[1:], end], strict=True)]
