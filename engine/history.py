"""Every moment of a run, found again: records in a file, and the state at any position of them.

One interface for a run that is going on (`History.live`, whose records go to a temporary file) and
for a recording (`trace_file.py` fills the index from its lines). A state is the nearest snapshot
before the position with the records in between applied to it; states found lately are kept, so a
walk backwards does not replay the same records at every step.

What the lines say is `trace.py`'s; how positions are written by people, `positions.py`'s.
"""

import tempfile
import threading
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter, OrderedDict
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO, NamedTuple

import msgspec

from .config import EngineConfig
from .errors import UserError
from .events import AnyEvent, Position, StepRecord
from .garbage import no_collection
from .snapshot import RequestState, Snapshot
from .state import RETAIN_FINISHED, EngineState
from .trace import Ended, LineMaker, Snap, read_record

KEEP = 12  # states found lately …
KEEP_BYTES = 64 << 20  # … unless they would be longer than this as lines …
KEEP_AT_LEAST = 3  # … but so many in any case
KEEP_ENDED = 2 * RETAIN_FINISHED  # ended requests read lately
BEFORE = 16  # records between the state that was asked for and an earlier one that is kept with it


class Span(NamedTuple):
    """A line: where it begins, and how many bytes it has."""

    offset: int
    length: int


class Keyframe(NamedTuple):
    """A snapshot of the state after ``records`` records; ``ended`` lines come before it."""

    records: int
    span: Span
    ended: int


class History:
    """The records of one run, in order, and the states between them.

    >>> history.append(record, state)           # a live run, after state.apply(record)
    >>> history.state_at(Position(120, 7))      # right after event 120:7; the caller's own
    >>> history.before(Position(120, 7))        # Position(120, 6)

    ``start`` is the position before all events, ``end`` that of the last. Records are numbered from
    0 in the order they came. One thread may append while others ask.

    ``gap`` says why a live history has no more records than it has, if its file could not grow.
    ``unknown`` counts events of kinds that a newer program wrote; they are passed over.
    """

    def __init__(self, config: EngineConfig, file: BinaryIO) -> None:
        self.config = config
        self.gap = ""
        self.unknown: Counter[str] = Counter()
        self._file = file
        self._lock = threading.Lock()  # of the file's position
        self._finding = threading.Lock()  # of the states found lately
        self._size = 0
        self._begun: Position | None = None  # where a live run was joined
        self._lines = LineMaker()
        self._offsets, self._lengths = array("q"), array("q")
        self._steps, self._firsts, self._counts = array("q"), array("q"), array("q")
        self._keyframes: list[Keyframe] = []
        self._ended: list[Span] = []
        self._ended_read: OrderedDict[int, dict[int, RequestState]] = OrderedDict()
        self._ended_kept = 0
        self._keeper: threading.Thread | None = None  # writes the last snapshot
        self._lately: OrderedDict[int, tuple[Snapshot, int]] = OrderedDict()  # by records; weight

    @classmethod
    def live(cls, state: EngineState) -> "History":
        """An empty one of a run whose records are to be appended, as it is in ``state`` now."""
        history = cls(state.config, tempfile.TemporaryFile())  # noqa: SIM115  closed by `close`
        history._begun = Position(state.step, -1)
        if state != EngineState(state.config):
            history._keep_snapshot(state.snapshot(), 0)
        return history

    def close(self) -> None:
        """Give the file back; nothing can be asked any more."""
        self.settle()
        self._file.close()

    def settle(self) -> None:
        """Wait until what was appended is in the file, snapshots and all."""
        if self._keeper:
            self._keeper.join()

    # --- filling ---------------------------------------------------------------------------------

    def append(self, record: StepRecord, state: EngineState) -> None:
        """Add the next record. ``state`` is the picture that includes it and nothing later."""
        if self.gap:
            return
        try:
            span = self._write(self._lines.record(record))
        except OSError as error:
            self._end_at_gap(error)
            return
        self.add_record(span, record.step, record.first, len(record.events))
        if self._lines.due and not (self._keeper and self._keeper.is_alive()):
            self._lines.begin_snapshot()
            keep = partial(self._keep_snapshot, state.snapshot(), len(self))
            self._keeper = threading.Thread(target=keep, name="history", daemon=True)
            self._keeper.start()

    def add_record(self, span: Span, step: int, first: int, count: int) -> None:
        """There is a record in the file: ``count`` events from ``step:first`` on."""
        self._offsets.append(span.offset)
        self._lengths.append(span.length)
        self._steps.append(step)
        self._firsts.append(first)
        self._counts.append(count)

    def add_ended(self, span: Span) -> None:
        """There is a line of ended requests in the file."""
        self._ended.append(span)

    def add_snapshot(self, span: Span, records: int) -> None:
        """There is a snapshot of the state after ``records`` records in the file."""
        self._keyframes.append(Keyframe(records, span, len(self._ended)))

    def _keep_snapshot(self, snapshot: Snapshot, records: int) -> None:
        """Write ``snapshot``, which is of the state after ``records`` records."""
        try:
            *ended, line = self._lines.snapshot(snapshot, records)
            for those in ended:
                self.add_ended(self._write(those))
            self.add_snapshot(self._write(line), records)
        except OSError as error:
            self._end_at_gap(error)

    def _end_at_gap(self, error: OSError) -> None:
        self.gap = f"the past ends at {self.end}: {error.strerror or error}"

    # --- positions -------------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many records there are."""
        return len(self._counts)

    @property
    def start(self) -> Position:
        if self._begun is not None:
            return self._begun
        return Position(self._steps[0], self._firsts[0] - 1) if self._counts else Position(0, -1)

    @property
    def end(self) -> Position:
        return self.position_after(len(self))

    def step_of(self, record: int) -> int:
        """The step that record number ``record`` belongs to."""
        return self._steps[record]

    def position_after(self, records: int) -> Position:
        """The last event of the first ``records`` records."""
        if not records:
            return self.start
        i = records - 1
        return Position(self._steps[i], self._firsts[i] + self._counts[i] - 1)

    def records_until(self, position: Position) -> int:
        """How many records it takes to come to ``position``, a part of one as a whole."""
        return self._place(position)[0]

    def ends_record(self, position: Position) -> bool:
        """Whether ``position`` is the last event of its record, whose times are known there."""
        return self._place(position)[1] == 0

    def before(self, position: Position) -> Position | None:
        """The event before ``position``; `start` for the first one, None for `start`."""
        records, _ = self._place(position)
        if not records:
            return None
        if position.event > self._firsts[records - 1]:
            return Position(position.step, position.event - 1)
        return self.position_after(records - 1)

    def after(self, position: Position) -> Position | None:
        """The event after ``position``, or None at the end."""
        records, rest = self._place(position)
        if rest:
            return Position(position.step, position.event + 1)
        if records == len(self):
            return None
        return Position(self._steps[records], self._firsts[records])

    def end_of_step(self, step: int) -> Position:
        """The last event that has the number ``step``, or the nearest step before it."""
        return self.position_after(bisect_right(self._steps, step))

    def step_before(self, position: Position) -> Position | None:
        """The end of the step before that of ``position``; None at the start."""
        if position == self.start:
            return None
        return self.position_after(bisect_left(self._steps, position.step))

    def step_after(self, position: Position) -> Position | None:
        """The end of the first step that goes beyond ``position``; None at the end."""
        following = self.after(position)
        return self.end_of_step(following.step) if following else None

    def _place(self, position: Position) -> tuple[int, int]:
        """How many records reach ``position``, and how many events of the last come after it.

        Raises `UserError` if no event has that position.
        """
        if position == self.start:
            return 0, 0
        low, high = (
            bisect_left(self._steps, position.step),
            bisect_right(self._steps, position.step),
        )
        record = bisect_right(self._firsts, position.event, low, high) - 1
        if record >= low:
            rest = self._firsts[record] + self._counts[record] - 1 - position.event
            if rest >= 0:
                return record + 1, rest
        raise UserError(self._no_such(position, low, high))

    def _no_such(self, position: Position, low: int, high: int) -> str:
        if not len(self):
            return f"there is no {position}: nothing is recorded"
        if low == high:
            return f"there is no step {position.step}; the recording goes to {self.end}"
        last = self.position_after(high)
        return (
            f"there is no event {position}; step {position.step} has {self._firsts[low]} to "
            f"{last.event}"
        )

    # --- reading ---------------------------------------------------------------------------------

    def record(self, number: int) -> StepRecord:
        """Record ``number``, from 0 on."""
        line = self._read(Span(self._offsets[number], self._lengths[number]))
        try:
            return read_record(line, self.unknown)
        except msgspec.DecodeError as error:
            at = Position(self._steps[number], self._firsts[number])
            raise UserError(f"the recording is damaged at {at}: {error}") from error

    def records(self, first: int = 0, end: int | None = None) -> Iterator[StepRecord]:
        """Those from ``first`` on, before ``end``, read as they are asked for."""
        for number in range(first, len(self) if end is None else end):
            yield self.record(number)

    def lines(self) -> Iterator[bytes]:
        """All that a recording has between its header and its end, in order."""
        self.settle()
        told, frames = 0, [*self._keyframes][::-1]
        for records in range(len(self) + 1):
            while frames and frames[-1].records == records:
                frame = frames.pop()
                for span in (*self._ended[told : frame.ended], frame.span):
                    yield self._read(span)
                told = frame.ended
            if records < len(self):
                yield self._read(Span(self._offsets[records], self._lengths[records]))

    def event(self, position: Position) -> AnyEvent | None:
        """The event at ``position``; None at the start."""
        records, rest = self._place(position)
        events = self.record(records - 1).events if records else []
        return events[len(events) - 1 - rest] if rest < len(events) else None

    def state_at(self, position: Position) -> EngineState:
        """The state right after the event at ``position``; the caller may do with it as he likes.

        After the last event of a record it includes the times that belong to the whole record.
        """
        records, rest = self._place(position)
        if not rest:
            return self.state_after(records)
        state = self.state_after(records - 1)
        record = self.record(records - 1)
        taken = len(record.events) - rest
        for _ in state.unfold(record):
            taken -= 1
            if taken <= 0:
                break
        return state

    def state_after(self, records: int) -> EngineState:
        """The state after the first ``records`` records; the caller's own too."""
        with self._finding, no_collection():
            return self._find(records)

    def _find(self, records: int) -> EngineState:
        done, snapshot, weight = self._nearest(records)
        state = EngineState.restore(snapshot) if snapshot else EngineState(self.config)
        for number in range(done, records):
            try:
                state.apply(self.record(number))
            except (LookupError, ValueError) as error:
                at = Position(self._steps[number], self._firsts[number])
                raise UserError(
                    f"the recording contradicts itself at {at} ({type(error).__name__}: {error}); "
                    f"look at an earlier position"
                ) from error
            weight += self._lengths[number]
            if number + 1 in (records - BEFORE, records):
                self._remember(number + 1, state.snapshot(), weight)
        return state

    # --- states found lately ---------------------------------------------------------------------

    def _nearest(self, records: int) -> tuple[int, Snapshot | None, int]:
        """Where to begin: after how many records, with which snapshot, and what it weighs."""
        lately = max((n for n in self._lately if n <= records), default=0)
        k = bisect_right(self._keyframes, records, key=lambda frame: frame.records)
        while k:
            frame = self._keyframes[k - 1]
            if frame.records <= lately and lately:
                break
            snapshot = self._snapshot(frame)
            if snapshot is None:
                k -= 1
                continue
            weight = frame.span.length
            self._remember(frame.records, snapshot, weight)
            return frame.records, snapshot, weight
        if not lately:
            return 0, None, 0
        self._lately.move_to_end(lately)
        return lately, *self._lately[lately]

    def _remember(self, records: int, snapshot: Snapshot, weight: int) -> None:
        self._lately[records] = (snapshot, weight)
        self._lately.move_to_end(records)
        total = sum(weight for _, weight in self._lately.values())
        while len(self._lately) > KEEP or (
            total > KEEP_BYTES and len(self._lately) > KEEP_AT_LEAST
        ):
            _, (_, weight) = self._lately.popitem(last=False)
            total -= weight

    def _snapshot(self, frame: Keyframe) -> Snapshot | None:
        """None if it is of no use: with something in it that only a newer program knows, say."""
        try:
            snapshot = _SNAP.decode(self._read(frame.span)).state
        except msgspec.ValidationError:
            return None
        missing = set(snapshot.finished) - snapshot.requests.keys()
        line = frame.ended
        while missing and line:
            line -= 1
            found = self._ended_in(line)
            for id in missing & found.keys():
                snapshot.requests[id] = found[id]
            missing -= found.keys()
        if missing:
            return None
        snapshot.requests = dict(sorted(snapshot.requests.items()))
        return snapshot

    def _ended_in(self, line: int) -> dict[int, RequestState]:
        found = self._ended_read.get(line)
        if found is None:
            ended = _ENDED.decode(self._read(self._ended[line])).requests
            found = self._ended_read[line] = {request.id: request for request in ended}
            self._ended_kept += len(found)
            while self._ended_kept > KEEP_ENDED and len(self._ended_read) > 1:
                self._ended_kept -= len(self._ended_read.popitem(last=False)[1])
        else:
            self._ended_read.move_to_end(line)
        return found

    # --- the file --------------------------------------------------------------------------------

    def _write(self, line: bytes) -> Span:
        with self._lock:
            self._file.seek(self._size)
            self._file.write(line)
            self._file.flush()  # so that all of it is there, whatever becomes of this process
            span = Span(self._size, len(line))
            self._size += len(line)
        return span

    def _read(self, span: Span) -> bytes:
        with self._lock:
            self._file.seek(span.offset)
            return self._file.read(span.length)


_SNAP = msgspec.json.Decoder(Snap)
_ENDED = msgspec.json.Decoder(Ended)
