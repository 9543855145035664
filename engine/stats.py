"""Statistics: what a run has done so far, counted from events and nothing else.

`Statistics` owns totals and latency histograms; all of it is plain data, so it can be sent, stored
and compared along with the picture it belongs to. It keeps a few numbers for each live request and
drops them when the request ends. What it measured last is at hand for one record, for those who
keep more of it (`windows.py`: the last minutes). Queues, blocks and tree are not rebuilt here: that
is the reducer's (`state.py`), and the two block counts that only it knows are handed in.

Times are on the engine's clock, in seconds. A request is admitted at ``record.t``; a token is out
at ``record.t + record.seconds``.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from copy import copy
from math import ceil, inf, nan
from typing import Any, NamedTuple

import msgspec

from . import events as ev

# Upper edges of the buckets in seconds, ten a decade from 100 µs to 1000 s, rounded to three
# digits: 0.0001, 0.000126, 0.000158, 0.0002, … 1000. One more bucket takes what is longer.
EDGES = tuple(float(f"{10 ** (i / 10 - 4):.3g}") for i in range(71))


class Histogram(msgspec.Struct):
    """Durations in fixed log-spaced buckets: ``counts[i]`` of them are ≤ ``EDGES[i]`` and greater
    than the edge before; the last bucket is open. ``min`` and ``max`` are exact, 0 when empty.

    >>> h = Histogram()
    >>> h.add(0.010); h.add(0.030)
    >>> h.count, h.mean, h.bounds(1.0)
    (2, 0.02, (0.0251, 0.03))
    """

    count: int = 0
    sum: float = 0.0
    min: float = 0.0
    max: float = 0.0
    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(EDGES) + 1))

    def add(self, seconds: float, times: int = 1) -> None:
        """Count ``seconds``, ``times`` times."""
        if not self.count or seconds < self.min:
            self.min = seconds
        if not self.count or seconds > self.max:
            self.max = seconds
        self.counts[bisect_left(EDGES, seconds)] += times
        self.count += times
        self.sum += seconds * times

    @property
    def mean(self) -> float:
        """Exact; NaN when empty."""
        return self.sum / self.count if self.count else nan

    def bounds(self, q: float) -> tuple[float, float]:
        """Two values that the ``q``-quantile (sample number ⌈q·count⌉ in order) lies between.

        They are at most one bucket, 26 %, apart. NaN when empty; raises `ValueError` if ``q`` is
        not between 0 and 1.
        """
        low, high, _ = self._bucket(q)
        return low, high

    def quantile(self, q: float) -> float:
        """An estimate between the two `bounds`, as if a bucket's samples were evenly spread."""
        low, high, fraction = self._bucket(q)
        return low + (high - low) * fraction

    def _bucket(self, q: float) -> tuple[float, float, float]:
        if not 0 <= q <= 1:
            raise ValueError(f"the quantile {q} is not between 0 and 1")
        if not self.count:
            return nan, nan, 0.0
        rank = max(1, ceil(q * self.count))
        before = i = 0
        while before + self.counts[i] < rank:
            before += self.counts[i]
            i += 1
        low = max(self.min, EDGES[i - 1]) if i else self.min
        high = min(self.max, EDGES[i]) if i < len(EDGES) else self.max
        return low, high, (q * self.count - before) / self.counts[i]

    def cumulative(self) -> list[tuple[float, int]]:
        """``(edge, samples ≤ edge)`` for every edge and infinity: Prometheus' ``le`` buckets."""
        total, found = 0, []
        for edge, count in zip((*EDGES, inf), self.counts, strict=True):
            total += count
            found.append((edge, total))
        return found

    def merge(self, other: "Histogram") -> None:
        """Add the samples of ``other``; nothing is lost, the buckets are the same."""
        if not other.count:
            return
        self.min = min(self.min, other.min) if self.count else other.min
        self.max = max(self.max, other.max) if self.count else other.max
        self.count += other.count
        self.sum += other.sum
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]

    def copy(self) -> "Histogram":
        other = copy(self)
        other.counts = self.counts[:]
        return other


def percentile(samples: Sequence[float], q: float) -> float | None:
    """Sample number ⌈q·n⌉ in order (nearest rank), exactly; None without samples."""
    return sorted(samples)[max(1, ceil(q * len(samples))) - 1] if samples else None


class Live(msgspec.Struct, gc=False):
    """What is remembered of a request until it ends. Times are in seconds; -1: not known yet."""

    prompt_len: int
    submitted_at: float
    queued: float = -1.0  # from its submission to its first admission
    first_at: float = 0.0
    last_at: float = 0.0
    worst_gap: float = -1.0  # the longest between two of its tokens
    outputs: int = 0
    chunk_end: int = 0  # tokens with KV after the latest prefill chunk …
    chunk_outputs: int = 0  # … when it had this many outputs

    @property
    def computed(self) -> int:
        """Tokens with KV in the table: all that are known but the last, once it decodes."""
        if self.outputs == self.chunk_outputs:
            return self.chunk_end
        return self.prompt_len + self.outputs - 1

    def at_chunk(self, end: int) -> None:
        self.chunk_end, self.chunk_outputs = end, self.outputs


class Sample(NamedTuple):
    """``times`` that ``seconds`` were measured, for the histogram ``of`` that name."""

    of: str
    seconds: float
    times: int


class Statistics(msgspec.Struct):
    """Totals since the start. ``submitted`` = ``refused`` + all ``finished`` + those still live.

    Prefix hits of a first admission (``cached_tokens`` of ``prompt_tokens``) and those of a
    re-admission after preemption (``rehit_tokens``) are kept apart: only the first save work.
    ``tail_slots`` are the empty slots in the last blocks of all tables. ``e2e`` and ``tpot`` count
    requests that ended with ``stop`` or ``length``; ``tpot`` is (last - first) / (n - 1).

    ``measured`` and ``gone`` are of the latest record alone: what went into the histograms, and
    which requests ended, in order.
    """

    num_blocks: int
    block_size: int

    submitted: int = 0
    refused: int = 0
    finished: dict[str, int] = {}  # by reason
    prompt_tokens: int = 0  # of admitted requests
    cached_tokens: int = 0
    rehit_tokens: int = 0
    prefill_tokens: int = 0  # scheduled, as are the next
    decode_tokens: int = 0
    sampled_tokens: int = 0
    evicted: dict[str, int] = {}  # blocks, by why
    deferred: dict[str, int] = {}  # times, by why
    preemptions: int = 0
    lost_tokens: int = 0
    steps: int = 0
    failed_steps: int = 0

    free_blocks: int = -1  # -1: nothing was applied yet
    evictable_blocks: int = 0
    tail_slots: int = 0

    queue: Histogram = msgspec.field(default_factory=Histogram)
    ttft: Histogram = msgspec.field(default_factory=Histogram)
    itl: Histogram = msgspec.field(default_factory=Histogram)
    tpot: Histogram = msgspec.field(default_factory=Histogram)
    e2e: Histogram = msgspec.field(default_factory=Histogram)
    step_time: Histogram = msgspec.field(default_factory=Histogram)

    started_at: float | None = None
    began: float = 0.0  # start and end of the latest record
    now: float = 0.0
    live: dict[int, Live] = {}
    unsampled: list[int] = []  # requests whose decode of this step has given no token yet
    measured: list[Sample] = []
    gone: list[tuple[int, Live]] = []

    # --- reading ---------------------------------------------------------------------------------

    @property
    def scheduled_tokens(self) -> int:
        """Every token ever given to the runner."""
        return self.prefill_tokens + self.decode_tokens

    @property
    def evicted_blocks(self) -> int:
        return sum(self.evicted.values())

    @property
    def ended(self) -> int:
        """Requests that are no longer live, refused ones among them."""
        return self.refused + sum(self.finished.values())

    @property
    def hit_rate(self) -> float:
        """Share of prompt tokens that were in the cache at first admission; 0 without any."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0

    @property
    def held_blocks(self) -> int:
        """Blocks that are neither free nor evictable."""
        return self.num_blocks - self.free_blocks - self.evictable_blocks

    @property
    def fragmentation(self) -> float:
        """Share of the held slots that is empty: the ends of the tables' last blocks."""
        held = self.held_blocks * self.block_size
        return self.tail_slots / held if held else 0.0

    def summary(self) -> dict[str, float | int]:
        """All of it as plain numbers. Times are in seconds; a histogram without samples has only
        its count."""
        numbers: dict[str, float | int] = {
            "steps": self.steps,
            "failed_steps": self.failed_steps,
            "requests_submitted": self.submitted,
            "requests_refused": self.refused,
            "requests_live": len(self.live),
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "rehit_tokens": self.rehit_tokens,
            "hit_rate": self.hit_rate,
            "prefill_tokens": self.prefill_tokens,
            "decode_tokens": self.decode_tokens,
            "sampled_tokens": self.sampled_tokens,
            "preemptions": self.preemptions,
            "lost_tokens": self.lost_tokens,
            "blocks_held": self.held_blocks,
            "blocks_evictable": self.evictable_blocks,
            "blocks_free": self.free_blocks,
            "fragmentation": self.fragmentation,
        }
        numbers |= {f"requests_{reason}": n for reason, n in sorted(self.finished.items())}
        numbers |= {f"evicted_blocks_{why}": n for why, n in sorted(self.evicted.items())}
        numbers |= {f"deferred_{why}": n for why, n in sorted(self.deferred.items())}
        for name in HISTOGRAMS:
            histogram: Histogram = getattr(self, name)
            numbers[f"{name}_count"] = histogram.count
            if histogram.count:
                numbers[f"{name}_mean"] = histogram.mean
                numbers[f"{name}_max"] = histogram.max
                for percent in (50, 90, 99):
                    numbers[f"{name}_p{percent}"] = histogram.quantile(percent / 100)
        return numbers

    def copy(self) -> "Statistics":
        """The same numbers in another that counts on by itself."""
        other = copy(self)
        for name in HISTOGRAMS:
            setattr(other, name, getattr(self, name).copy())
        other.finished = dict(self.finished)
        other.evicted = dict(self.evicted)
        other.deferred = dict(self.deferred)
        other.live = {req: copy(live) for req, live in self.live.items()}
        other.unsampled = self.unsampled[:]
        other.measured = self.measured[:]
        other.gone = self.gone[:]
        return other

    # --- counting --------------------------------------------------------------------------------

    def apply(self, record: ev.StepRecord, free: int, evictable: int) -> None:
        """Take in one record; ``free`` and ``evictable`` are the pool's blocks after it.

        Both are known to the picture (`EngineState.free`, `.evictable`) and to the engine's cache.
        Requests whose submission was not seen are left out of the times. Whoever goes event by
        event calls the three parts instead: `begin`, `take` for each event, and `end`.
        """
        self.begin(record)
        for event in record.events:
            self.take(event)
        self.end(record, free, evictable)

    def begin(self, record: ev.StepRecord) -> None:
        if self.started_at is None:
            self.started_at = record.t
        self.began = record.t
        self.now = record.t + record.seconds
        self.measured = []
        self.gone = []

    def take(self, event: ev.AnyEvent) -> None:
        handler = _APPLY.get(type(event))
        if handler is not None:
            handler(self, event)

    def end(self, record: ev.StepRecord, free: int, evictable: int) -> None:
        if record.timings:
            self._measure("step_time", record.seconds)
        self.unsampled = []
        self.free_blocks = free
        self.evictable_blocks = evictable

    def _step_began(self, e: ev.StepBegan) -> None:
        self.steps += 1

    def _step_failed(self, e: ev.StepFailed) -> None:
        self.failed_steps += 1

    def _submitted(self, e: ev.Submitted) -> None:
        self.submitted += 1
        self.live[e.req] = Live(len(e.prompt), self.began)

    def _refused(self, e: ev.Refused) -> None:
        self.refused += 1
        self.live.pop(e.req, None)

    def _deferred(self, e: ev.Deferred) -> None:
        self.deferred[e.why] = self.deferred.get(e.why, 0) + 1

    def _admitted(self, e: ev.Admitted) -> None:
        self.tail_slots += len(e.blocks) * self.block_size - e.cached_tokens
        live = self.live.get(e.req)
        if e.recompute:
            self.rehit_tokens += e.cached_tokens
        elif live is not None:
            self.prompt_tokens += live.prompt_len
            self.cached_tokens += e.cached_tokens
            live.queued = self.began - live.submitted_at
            self._measure("queue", live.queued)
        if live is not None:
            live.at_chunk(e.cached_tokens)

    def _scheduled(self, e: ev.Scheduled) -> None:
        self.prefill_tokens += e.count
        self.tail_slots -= e.count
        live = self.live.get(e.req)
        if live is not None:
            live.at_chunk(e.start + e.count)

    def _decoding(self, e: ev.Decoding) -> None:
        self.unsampled = e.reqs
        self.decode_tokens += len(e.reqs)
        self.tail_slots -= len(e.reqs)

    def _preempted(self, e: ev.Preempted) -> None:
        self.preemptions += 1
        self.lost_tokens += e.lost_tokens

    def _sampled(self, e: ev.Sampled) -> None:
        self.unsampled = []
        self.sampled_tokens += len(e.reqs)
        lives, now = self.live, self.now
        gap, times = 0.0, 0  # most of a batch has the same gap: count it in one go
        for req in e.reqs:
            live = lives.get(req)
            if live is None:
                continue
            if live.outputs:
                since_last = now - live.last_at
                if since_last != gap:
                    if times:
                        self._measure("itl", gap, times)
                    gap, times = since_last, 0
                times += 1
                if gap > live.worst_gap:
                    live.worst_gap = gap
            else:
                live.first_at = now
                self._measure("ttft", now - live.submitted_at)
            live.outputs += 1
            live.last_at = now
        if times:
            self._measure("itl", gap, times)

    def _finished(self, e: ev.Finished) -> None:
        live = self.live.pop(e.req, None)
        if live is None:  # refused, or never seen
            return
        self.finished[e.reason] = self.finished.get(e.reason, 0) + 1
        self.gone.append((e.req, live))
        if e.reason in ("stop", "length"):
            self._measure("e2e", self.now - live.submitted_at)
            if live.outputs > 1:
                self._measure("tpot", (live.last_at - live.first_at) / (live.outputs - 1))

    def _measure(self, name: str, seconds: float, times: int = 1) -> None:
        getattr(self, name).add(seconds, times)
        self.measured.append(Sample(name, seconds, times))

    def _allocated(self, e: ev.Allocated) -> None:
        self.tail_slots += len(e.blocks) * self.block_size

    def _released(self, e: ev.Released) -> None:
        """The table goes, and with it what was computed. A request that ends in the middle of a
        step (it failed, or was aborted) has had its decode counted, but no token for it."""
        self.tail_slots -= (len(e.freed) + e.cached) * self.block_size
        live = self.live.get(e.req)
        if live is not None:
            self.tail_slots += live.computed + (e.req in self.unsampled)
            live.at_chunk(0)

    def _evicted(self, e: ev.Evicted) -> None:
        self.evicted[e.why] = self.evicted.get(e.why, 0) + len(e.blocks)


HISTOGRAMS = ("queue", "ttft", "itl", "tpot", "e2e", "step_time")

_APPLY: dict[type, Callable[[Statistics, Any], None]] = {
    ev.StepBegan: Statistics._step_began,
    ev.StepFailed: Statistics._step_failed,
    ev.Submitted: Statistics._submitted,
    ev.Refused: Statistics._refused,
    ev.Deferred: Statistics._deferred,
    ev.Admitted: Statistics._admitted,
    ev.Scheduled: Statistics._scheduled,
    ev.Decoding: Statistics._decoding,
    ev.Preempted: Statistics._preempted,
    ev.Sampled: Statistics._sampled,
    ev.Finished: Statistics._finished,
    ev.Allocated: Statistics._allocated,
    ev.Released: Statistics._released,
    ev.Evicted: Statistics._evicted,
}
