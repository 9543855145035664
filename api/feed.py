"""What happens in the engine, for those who watch: the latest records, and viewers who read them.

The engine's thread puts each record at the end of a ring and goes on. The event loop encodes it
when the first viewer comes to it, once for all of them. A viewer reads as fast as he can; whoever
is so slow that the ring has lost what he wants next gets the state anew, and is told so.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import msgspec
from msgspec.structs import replace

from ..engine import events as ev
from ..engine.debugger import Debugger, Mode
from ..engine.events import StepRecord
from ..engine.feed import BEAT_SECONDS, Beat, Joining, Lease
from ..engine.snapshot import Snapshot
from ..engine.trace import encode_record, tokens_in, vocabulary
from .connection import EventStream
from .engine_thread import EngineThread
from .errors import ApiError
from .shown import Shown

MOST_RECORDS = 10_000  # in the ring …
MOST_NUMBERS = 4_000_000  # … with no more tokens, blocks and requests in them than this
MOST_VIEWERS = 64
_AT_ONCE = 64  # records sent in one piece

_encode = msgspec.json.Encoder().encode


class Said(msgspec.Struct):
    """One event of the stream; ``id`` is -1 if it has none."""

    kind: str
    data: bytes
    id: int = -1


class Viewing(EventStream):
    """The stream of one viewer."""

    ending = b""

    def event(self, said: msgspec.Struct) -> bytes:
        assert isinstance(said, Said)
        id = b"id: %d\n" % said.id if said.id >= 0 else b""
        return b"event: %b\n%bdata: %b\n\n" % (said.kind.encode(), id, said.data)


class _Entry:
    """A record in the ring; line and tokens are worked out when they are asked for."""

    __slots__ = ("_line", "_tokens", "numbers", "record")

    def __init__(self, record: StepRecord) -> None:
        self.record = record
        self.numbers = _numbers(record)
        self._line = b""
        self._tokens: frozenset[int] | None = None

    @property
    def line(self) -> bytes:
        self._line = self._line or encode_record(self.record)
        return self._line

    @property
    def tokens(self) -> frozenset[int]:
        if self._tokens is None:
            self._tokens = frozenset().union(*map(tokens_in, self.record.events))
        return self._tokens


class Feed:
    """What is ``shown`` of ``thread``'s engine. ``lease`` says who controls it; `changed` is to be
    called when he, or anything else that a `Beat` tells of, may have changed."""

    def __init__(self, thread: EngineThread, shown: Shown) -> None:
        model = replace(shown.header.model, path="")  # no path of this machine goes out
        self.header = replace(shown.header, model=model)
        self.dropped = 0  # records that viewers who fell behind did not get
        self.lease: Callable[[], Lease | None] = lambda: None
        self._thread = thread
        self._shown = shown
        self._speller = shown.speller
        self._ring: deque[_Entry] = deque()
        self._numbers = 0
        self._seq = -1  # of the last record
        self._lock = threading.Lock()  # of the three above
        self._viewers = 0
        self._news = asyncio.Event()
        self._told = False  # the event loop has been asked to look
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        shown.listen(self._hear)
        thread.debugger.on_change = self._tell

    @property
    def debugger(self) -> Debugger:
        return self._thread.debugger

    def start(self) -> None:
        """Serve the running event loop from now on."""
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """Let every viewer go."""
        self._closed = True
        self.changed()

    def changed(self) -> None:
        """Wake the viewers; for the event loop."""
        self._told = False
        self._news.set()
        self._news = asyncio.Event()

    # --- the engine's thread ---------------------------------------------------------------------

    def _hear(self, record: StepRecord) -> None:
        entry = _Entry(record)
        with self._lock:
            self._ring.append(entry)
            self._seq = record.seq
            self._numbers += entry.numbers
            while len(self._ring) > MOST_RECORDS or self._numbers > MOST_NUMBERS:
                self._numbers -= self._ring.popleft().numbers
        self._tell()

    def _tell(self) -> None:
        if self._viewers and not self._told and self._loop:
            self._told = True
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self.changed)

    def _look(self) -> tuple[int, Snapshot]:
        return self._seq, self._shown.state.snapshot()

    # --- the event loop --------------------------------------------------------------------------

    async def joining(self) -> bytes:
        """A `Joining` as JSON: where somebody who begins to watch now begins."""
        seq, snapshot = await self._thread.ask(self._look)
        return await asyncio.to_thread(self._joining, seq, snapshot)

    def _joining(self, seq: int, snapshot: Snapshot) -> bytes:
        tokens: set[int] = set()
        for node in snapshot.nodes.values():
            tokens.update(node.tokens)
        for request in snapshot.requests.values():
            tokens.update(request.tokens)
            for logprobs in request.logprobs:
                tokens.update(token for token, _ in logprobs.top) if logprobs else None
        joining = Joining(
            epoch=self.header.epoch,
            seq=seq,
            step=snapshot.step,
            paused=self.debugger.mode is Mode.PAUSED,
            header=self.header,
            vocab=vocabulary(sorted(tokens), self._speller),
            state=snapshot,
        )
        return _encode(joining)

    def view(self, seq: int, epoch: str) -> Viewing:
        """The stream after record ``seq`` of the run ``epoch``. ApiError 503 for one too many."""
        if self._viewers >= MOST_VIEWERS:
            raise ApiError(503, f"{MOST_VIEWERS} viewers are watching; this server takes no more")
        self._viewers += 1
        return Viewing(self._events(seq, epoch), self._leave)

    def _leave(self) -> None:
        self._viewers -= 1

    async def _events(self, seq: int, epoch: str) -> AsyncIterator[list[msgspec.Struct]]:
        told: set[int] = set()  # tokens that this viewer has been spelled
        clock = asyncio.get_running_loop().time
        beat_at, last = 0.0, None
        while not self._closed:
            # The beat first: so it never tells of what the records have not come to.
            news, stands, beat = self._news, self._stands(), self._beat()
            found = self._after(seq) if epoch == self.header.epoch else None
            if found is None:
                joining = await self.joining()
                head = msgspec.json.decode(joining, type=_Head)
                if epoch == self.header.epoch:
                    self.dropped += max(0, head.seq - seq)
                seq, epoch = head.seq, self.header.epoch
                yield [Said("reset", joining)]
                continue
            said: list[msgspec.Struct] = []
            for entry in found:
                new = entry.tokens - told
                if new and self._speller:
                    told |= new
                    said.append(Said("vocab", _encode(vocabulary(sorted(new), self._speller))))
                seq = entry.record.seq
                said.append(Said("step", entry.line, seq))
            if (stands != last and len(found) < _AT_ONCE) or clock() >= beat_at:
                last, beat_at = stands, clock() + BEAT_SECONDS
                said.append(Said("beat", _encode(beat)))
            if said:
                yield said
            if len(found) < _AT_ONCE:
                with suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), max(0.0, beat_at - clock()))

    def _after(self, seq: int) -> list[_Entry] | None:
        """The records after number ``seq``, not too many; None if they are gone, or yet to come."""
        with self._lock:
            first = self._ring[0].record.seq if self._ring else self._seq + 1
            if not first - 1 <= seq <= self._seq:
                return None
            at = seq + 1 - first
            return [self._ring[i] for i in range(at, min(len(self._ring), at + _AT_ONCE))]

    def _stands(self) -> tuple[object, ...]:
        """What of a `Beat` is told at once when it changes."""
        debugger, lease = self.debugger, self.lease()
        holder = lease.holder if lease else ""
        last = debugger.last_stop
        hits = [breakpoint.info for breakpoint in debugger.breakpoints]
        return debugger.mode, debugger.rate, debugger.idle, holder, last, hits

    def _beat(self) -> Beat:
        debugger, engine = self.debugger, self._thread.engine
        stop = debugger.last_stop
        return Beat(
            epoch=self.header.epoch,
            seq=self._seq,
            step=engine.step_count,
            t=engine.clock(),
            mode=debugger.mode,
            rate=debugger.rate,
            idle=debugger.idle,
            lease=self.lease(),
            dropped=self.dropped,
            stop=stop and self._shown.stop(stop),
            breakpoints=tuple(breakpoint.info for breakpoint in debugger.breakpoints),
        )


class _Head(msgspec.Struct):
    seq: int


def _numbers(record: StepRecord) -> int:
    """How many numbers the long lists of a record hold, about."""
    total = 0
    for event in record.events:
        total += 8
        if isinstance(event, ev.Submitted):
            total += len(event.prompt)
        elif isinstance(event, ev.Inserted | ev.Extended):
            total += len(event.tokens) + len(event.blocks)
        elif isinstance(event, ev.Sampled | ev.Decoding):
            total += 2 * len(event.reqs)
    return total
