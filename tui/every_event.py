"""Every event of a run, by number: the newest in memory, those before them read from the record.

In memory is a ring over the records themselves, so that an event costs nothing but its share of an
index.
"""

from array import array
from bisect import bisect_right
from collections import OrderedDict, deque
from typing import NamedTuple

from ..engine import events as ev
from ..engine.history import History
from ..engine.state import EngineState

KEEP = 200_000  # events in memory …
KEEP_IDS = 8_000_000  # … with no more request ids and tokens in them than this, 64 MB
_READ = 64  # records read lately


class Placed(NamedTuple):
    """An event and where it happened."""

    at: ev.Position
    event: ev.AnyEvent


class EveryEvent:
    """Events are numbered as they come: ``first`` to ``end`` - 1 can be asked for.

    ``past`` has the record of what is taken in. Should it have a gap, ``first`` is that of the
    events in memory, else 0.
    """

    def __init__(self, past: History) -> None:
        self.end = 0
        self._past = past
        self._starts = array("q")  # the number of the first event of each record
        self._newest: deque[ev.StepRecord] = deque()
        self._ids = 0  # in the newest
        self._read: OrderedDict[int, ev.StepRecord] = OrderedDict()

    @property
    def first(self) -> int:
        before = len(self._starts) - len(self._newest)  # records that are no longer in memory
        return self._starts[before] if before > len(self._past) else 0

    def __len__(self) -> int:
        return self.end - self.first

    def __getitem__(self, number: int) -> Placed:
        if not self.first <= number < self.end:
            raise IndexError(f"event {number} is not known; {self.first} to {self.end - 1} are")
        i = bisect_right(self._starts, number) - 1
        record, index = self._record(i), number - self._starts[i]
        return Placed(record.position(index), record.events[index])

    def apply(self, record: ev.StepRecord, state: EngineState) -> None:
        """Take in one record."""
        newest = self._newest
        newest.append(record)
        self._starts.append(self.end)
        self.end += len(record.events)
        self._ids += _ids(record)
        while len(newest) > 1 and (
            self.end - self._starts[-len(newest)] - len(newest[0].events) >= KEEP
            or self._ids > KEEP_IDS
        ):
            self._ids -= _ids(newest.popleft())

    def _record(self, i: int) -> ev.StepRecord:
        before = len(self._starts) - len(self._newest)
        if i >= before:
            return self._newest[i - before]
        if i not in self._read:
            self._read[i] = self._past.record(i)
            if len(self._read) > _READ:
                self._read.popitem(last=False)
        return self._read[i]


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
