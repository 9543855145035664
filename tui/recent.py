"""The events of the recent past, all kinds of them, by number and by position.

A ring over the records themselves, so that an event costs nothing but its share of an index. Who
wants older events pages them from the recording: `Recent` says where its own begin.
"""

from bisect import bisect_right
from typing import NamedTuple

from ..engine import events as ev
from ..engine.state import EngineState

KEEP = 200_000  # events …
KEEP_IDS = 8_000_000  # … with no more request ids and tokens in them than this, 64 MB
_SLACK = 64  # records that are dropped at a time


class Placed(NamedTuple):
    """An event and where it happened."""

    at: ev.Position
    event: ev.AnyEvent


class Recent:
    """Events are numbered as they come: ``first`` to ``end`` - 1 are kept."""

    def __init__(self) -> None:
        self.first = 0
        self.end = 0
        self._records: list[ev.StepRecord] = []
        self._starts: list[int] = []  # the number of the first event of each record
        self._ids = 0

    def __len__(self) -> int:
        return self.end - self.first

    def __getitem__(self, number: int) -> Placed:
        if not self.first <= number < self.end:
            raise IndexError(f"event {number} is not kept; {self.first} to {self.end - 1} are")
        i = bisect_right(self._starts, number) - 1
        record, index = self._records[i], number - self._starts[i]
        return Placed(record.position(index), record.events[index])

    def number_at(self, at: ev.Position) -> int:
        """How many of all events happened up to ``at``, which is one more than the number of the
        last of them."""
        i = bisect_right(self._records, at, key=lambda record: record.position(0)) - 1
        if i < 0:
            return self.first
        record = self._records[i]
        inside = at.event - record.first + 1 if at.step == record.step else len(record.events)
        return self._starts[i] + min(inside, len(record.events))

    def apply(self, record: ev.StepRecord, state: EngineState) -> None:
        """Take in one record."""
        if not record.events:
            return
        self._records.append(record)
        self._starts.append(self.end)
        self.end += len(record.events)
        self._ids += _ids(record)
        while len(self._records) > _SLACK and (
            self.end - self._starts[_SLACK] >= KEEP or self._ids > KEEP_IDS
        ):
            self._ids -= sum(map(_ids, self._records[:_SLACK]))
            del self._records[:_SLACK], self._starts[:_SLACK]
            self.first = self._starts[0]


def _ids(record: ev.StepRecord) -> int:
    """The numbers in the long lists of a record."""
    total = 0
    for event in record.events:
        if isinstance(event, ev.Decoding):
            total += len(event.reqs)
        elif isinstance(event, ev.Sampled):
            total += 2 * len(event.reqs)
        elif isinstance(event, ev.Submitted):
            total += len(event.prompt)
    return total
