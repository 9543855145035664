"""The slowest of many requests: those that ended, and those that are still alive."""

from array import array
from collections.abc import Callable, Iterable, Mapping
from heapq import nlargest
from typing import NamedTuple

from .stats import Live

KEEP = 1 << 18  # requests that ended, 10 MB; the oldest are forgotten first
_BLOCK = 256
ORDERS = ("ttft", "gap", "queue", "total")  # what the slowest can be found by


class Slow(NamedTuple):
    """The times of one request, in seconds; -1 where there was nothing to measure. Of one that is
    ``live`` they are as long as they have become."""

    req: int
    live: bool
    ttft: float
    gap: float
    queue: float
    total: float


# How long each of those that are alive has become.
_SO_FAR: dict[str, Callable[[Iterable[Live], float], list[float]]] = {
    "ttft": lambda those, now: [
        (of.first_at if of.outputs else now) - of.submitted_at for of in those
    ],
    "gap": lambda those, now: [
        max(of.worst_gap, now - of.last_at) if of.outputs else -1.0 for of in those
    ],
    "queue": lambda those, now: [
        of.queued if of.queued >= 0 else now - of.submitted_at for of in those
    ],
    "total": lambda those, now: [now - of.submitted_at for of in those],
}


def so_far(req: int, of: Live, now: float) -> Slow:
    """The times of a request that is alive ``now``."""
    return Slow(req, True, *(_SO_FAR[by]((of,), now)[0] for by in ORDERS))


def in_the_end(req: int, of: Live, now: float) -> Slow:
    """The times of a request that has just ended."""
    ttft = of.first_at - of.submitted_at if of.outputs else -1.0
    return Slow(req, False, ttft, of.worst_gap, of.queued, now - of.submitted_at)


def slowest_alive(live: Mapping[int, Live], now: float, by: str, most: int) -> list[Slow]:
    """Those that have taken longest so far ``by`` one of `ORDERS`."""
    reqs, times = list(live), _SO_FAR[by](live.values(), now)
    found = nlargest(most, range(len(reqs)), key=times.__getitem__)
    return [so_far(reqs[i], live[reqs[i]], now) for i in found]


class Ended:
    """The times of requests that ended, in that order, and the longest of every `_BLOCK` of them,
    so that the slowest of many are found without a look at each."""

    def __init__(self, before: int) -> None:
        self._before = before  # requests that ended before the first that is kept
        self._reqs = array("q")
        self._times = {by: array("d") for by in ORDERS}
        self._longest = {by: array("d") for by in ORDERS}

    def add(self, slow: Slow) -> None:
        if len(self._reqs) % _BLOCK == 0:
            for longest in self._longest.values():
                longest.append(-1.0)
        self._reqs.append(slow.req)
        for by in ORDERS:
            seconds = getattr(slow, by)
            self._times[by].append(seconds)
            self._longest[by][-1] = max(self._longest[by][-1], seconds)
        if len(self._reqs) >= KEEP + KEEP // 8:
            blocks = len(self._longest["ttft"]) - KEEP // _BLOCK
            self._before += blocks * _BLOCK
            del self._reqs[: blocks * _BLOCK]
            for by in ORDERS:
                del self._times[by][: blocks * _BLOCK], self._longest[by][:blocks]

    def find(self, req: int, end: int) -> Slow | None:
        """The times of one request, if they are kept and it is among the first ``end`` of all that
        ever ended."""
        end -= self._before
        i = self._reqs.index(req) if req in self._reqs else end
        return self._slow(i) if i < end else None

    def slowest(self, first: int, end: int, by: str, most: int) -> list[Slow]:
        """Among numbers ``first`` to ``end`` - 1 of all that ever ended, as far as they are
        kept."""
        first = max(0, first - self._before)
        end = min(len(self._reqs), max(0, end - self._before))
        times, longest = self._times[by], self._longest[by]
        whole = range(-(-first // _BLOCK), end // _BLOCK)
        if whole:
            best = nlargest(most, whole, key=longest.__getitem__)
            those = [i for block in best for i in range(block * _BLOCK, (block + 1) * _BLOCK)]
            those += range(first, whole.start * _BLOCK)
            those += range(whole.stop * _BLOCK, end)
        else:
            those = list(range(first, end))
        return [self._slow(i) for i in nlargest(most, those, key=times.__getitem__)]

    def _slow(self, i: int) -> Slow:
        return Slow(self._reqs[i], False, *(self._times[by][i] for by in ORDERS))
