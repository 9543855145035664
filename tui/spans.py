"""What became of every request, as spans of steps: queued, prefilling, decoding, and its end.

A request that decodes for a thousand steps is one number here, not a thousand. `Spans` is about all
steps that are known, whichever of them the screens look at.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from operator import attrgetter
from typing import NamedTuple

from ..engine import events as ev
from ..engine.state import EngineState

QUEUED, PREFILL, DECODE, IDLE, PREEMPTED, ENDED = range(6)  # IDLE: running, not in the step
NAMES = ("queued", "prefill", "decode", "idle", "preempted", "ended")
KEEP = 100_000  # requests; those that ended first are forgotten first

_KIND_BITS = 3


class Span(NamedTuple):
    """Steps ``start`` to ``end``, both included. The end of a span that goes on is the last step
    known."""

    kind: int
    start: int
    end: int


class Life:
    """One request: ``hits`` are the steps in which it was let in with a prefix found cached."""

    __slots__ = ("_changes", "arrived", "cached", "ended", "hits", "id", "reason")

    def __init__(self, id: int, arrived: int) -> None:
        self.id = id
        self.arrived = arrived  # the first step it could have been in
        self.ended: int | None = None  # the step in which it ended
        self.reason = ""
        self.cached = 0  # tokens found at the first admission
        self.hits = array("I")
        self._changes = array("Q")
        self.enter(QUEUED, arrived)

    def enter(self, kind: int, step: int) -> None:
        """From ``step`` on it is ``kind``; a second word on the same step replaces the first."""
        changes = self._changes
        if changes and changes[-1] >> _KIND_BITS >= step:
            changes.pop()
        if not changes or changes[-1] & (1 << _KIND_BITS) - 1 != kind:
            changes.append(step << _KIND_BITS | kind)

    def spans(self, first: int, last: int) -> Iterator[Span]:
        """What it was in the steps from ``first`` to ``last``, in order; steps in which it did not
        exist are left out."""
        changes = self._changes
        at = max(0, bisect_left(changes, (first + 1) << _KIND_BITS) - 1)
        while at < len(changes):
            start, kind = changes[at] >> _KIND_BITS, changes[at] & (1 << _KIND_BITS) - 1
            at += 1
            end = (changes[at] >> _KIND_BITS) - 1 if at < len(changes) else last
            if self.ended is not None:
                end = min(end, self.ended)
            if start > last:
                break
            if end >= first:
                yield Span(kind, max(start, first), min(end, last))

    @property
    def kind(self) -> int:
        """What it is since the latest change."""
        return self._changes[-1] & (1 << _KIND_BITS) - 1


class Spans:
    """The lives of all requests seen since ``start``, the state before the first record."""

    def __init__(self, start: EngineState) -> None:
        self.version = 0  # counts requests that came or went
        self._live: dict[int, Life] = {}
        self._arrived: list[Life] = []  # all of them, as they came, which is by id
        self._ended: list[Life] = []  # as they went
        self._decoding: set[int] = set()
        self._prefilling: set[int] = set()
        for id in sorted((*start.running, *start.waiting)):
            self._arrive(id, start.step + 1)

    def of(self, id: int) -> Life | None:
        """The life of one request, if it is kept."""
        at = bisect_left(self._arrived, id, key=_ID)
        found = self._arrived[at] if at < len(self._arrived) else None
        return found if found and found.id == id else None

    def between(self, first: int, last: int) -> list[Life]:
        """The requests that were there in any of the steps ``first`` to ``last``, by arrival."""
        going = bisect_left(self._ended, first, key=_end)
        coming = bisect_right(self._arrived, last, key=_arrival)
        if len(self._ended) - going + len(self._live) < coming:
            those = [*self._ended[going:], *self._live.values()]
            if coming < len(self._arrived):
                those = [life for life in those if life.arrived <= last]
            return sorted(those, key=_ID)
        those = self._arrived[:coming]
        return [life for life in those if life.ended is None or _end(life) >= first]

    def apply(self, record: ev.StepRecord, state: EngineState) -> None:
        """Take in one record."""
        step = record.step
        decoding: set[int] = set()
        scheduled: set[int] = set()
        for event in record.events:
            if isinstance(event, ev.Submitted):
                self._arrive(event.req, step + 1)
            elif isinstance(event, ev.Decoding):
                decoding = set(event.reqs)
                for id in decoding - self._decoding:  # mostly there are none
                    self._enter(id, DECODE, step)
            elif isinstance(event, ev.Scheduled):
                scheduled.add(event.req)
                self._enter(event.req, PREFILL, step)
            elif isinstance(event, ev.Admitted):
                self._admit(event, step)
            elif isinstance(event, ev.Preempted):
                self._enter(event.req, PREEMPTED, step)
                self._enter(event.req, QUEUED, step + 1)
            elif isinstance(event, ev.Finished):
                self._end(event, step)
        if record.events and isinstance(record.events[0], ev.StepBegan):
            self._idle(decoding, scheduled, step)
            self._decoding, self._prefilling = decoding, scheduled

    def _idle(self, decoding: set[int], scheduled: set[int], step: int) -> None:
        """Those that were in the step before and are not in this one, though they run."""
        gone = (self._decoding - decoding) | (self._prefilling - decoding)
        for id in gone - scheduled:
            life = self._live.get(id)
            if life is not None and life.kind in (PREFILL, DECODE):
                life.enter(IDLE, step)

    def _arrive(self, id: int, step: int) -> None:
        life = self._live[id] = Life(id, step)
        self._arrived.append(life)
        self.version += 1

    def _enter(self, id: int, kind: int, step: int) -> None:
        life = self._live.get(id)
        if life is not None:
            life.enter(kind, step)

    def _admit(self, event: ev.Admitted, step: int) -> None:
        life = self._live.get(event.req)
        if life is None or not event.cached_tokens:
            return
        life.hits.append(step)
        if not event.recompute:
            life.cached = event.cached_tokens

    def _end(self, event: ev.Finished, step: int) -> None:
        life = self._live.pop(event.req, None)
        if life is None:
            return
        life.ended, life.reason = step, event.reason
        self._ended.append(life)
        self.version += 1
        if len(self._ended) > KEEP + KEEP // 10:
            gone = {life.id for life in self._ended[:-KEEP]}
            self._ended = self._ended[-KEEP:]
            self._arrived = [life for life in self._arrived if life.id not in gone]


_ID = attrgetter("id")


def _end(life: Life) -> int:
    """The last step that says something of it: its end is marked in the step after it."""
    assert life.ended is not None
    return life.ended + 1


def _arrival(life: Life) -> int:
    return life.arrived
