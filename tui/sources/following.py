"""Following a server: its state once, then every record, whatever happens to the connection.

`Following` says what came, in order, and keeps the state that it comes to. When the connection is
lost it tries again, ever more slowly, and goes on after the last record it has. Where that cannot
be had any more (the server was restarted, or this viewer fell too far behind) it begins anew from a
state of the server's, and says what was not seen.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

import httpx2
import msgspec

from ...engine.errors import UserError
from ...engine.events import StepRecord
from ...engine.feed import Beat, Joining
from ...engine.state import EngineState
from ...engine.trace import Header, Piece, Vocab, pieces, read_record
from .base import Origin
from .server import DebugServer

FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0  # seconds before another attempt; each doubles the one before

RESTARTED = "the server was restarted"
BEHIND = "this viewer fell behind"


@dataclass(frozen=True, slots=True)
class Joined:
    """The picture begins, or begins anew: from `Following.state` as it is now."""

    origin: Origin


@dataclass(frozen=True, slots=True)
class Lost:
    """There is no connection; another will be tried after ``wait`` seconds."""

    reason: str
    attempt: int
    wait: float


News = Joined | StepRecord | Beat | Lost


class Following:
    """One viewer of ``server``. ``state`` includes every record that `news` has given.

    ``vocabulary`` has every token that came up, and grows before the record that needs it.
    ``unknown`` counts what a newer server told, by its kind.
    """

    header: Header
    state: EngineState

    def __init__(
        self, server: DebugServer, pause: Callable[[float], Awaitable[object]] = asyncio.sleep
    ) -> None:
        self.server = server
        self.vocabulary: dict[int, Piece] = {}
        self.unknown: Counter[str] = Counter()
        self._pause = pause
        self._epoch, self._seq = "", -1
        self._anew = ""  # why the state has to be asked for again

    @property
    def joined(self) -> bool:
        return bool(self._epoch)

    def copy(self) -> EngineState:
        """The state, to go on by itself."""
        return EngineState.restore(self.state.snapshot())

    async def news(self) -> AsyncIterator[News]:
        """What happens, for ever. Raises `UserError` if the server cannot be joined at all."""
        yield self._join(await self.server.state())
        attempt = 0
        while True:
            try:
                if self._anew:
                    yield self._join(await self.server.state())
                async for event in self.server.events(self._seq, self._epoch):
                    attempt = 0
                    for news in self._take(event):
                        yield news
                    if self._anew:
                        break
                reason = self._anew or f"{self.server.url} ended the stream"
            except UserError as error:
                reason = str(error)
            except msgspec.DecodeError as error:
                reason = f"{self.server.url} sent what cannot be read ({error})"
            attempt += 1
            wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempt - 1))
            yield Lost(reason, attempt, wait)
            await self._pause(wait)

    def _take(self, event: httpx2.ServerSentEvent) -> Iterator[News]:
        if event.event == "step":
            record = read_record(event.data, self.unknown)
            if self._follows_on(record):
                yield record
        elif event.event == "vocab":
            self.vocabulary.update(pieces(msgspec.json.decode(event.data, type=Vocab)))
        elif event.event == "beat":
            yield msgspec.json.decode(event.data, type=Beat)
        elif event.event == "reset":
            yield self._join(self.server.read_state(event.data))
        else:
            self.unknown[event.event] += 1

    def _follows_on(self, record: StepRecord) -> bool:
        """Take ``record`` into the state; false if it is there already, or does not fit."""
        if record.seq <= self._seq:
            return False
        if record.seq != self._seq + 1:
            self._anew = f"the records from {self._seq + 1} to {record.seq - 1} did not come"
            return False
        try:
            self.state.apply(record)
        except (LookupError, ValueError):
            kinds = ", ".join(map(repr, self.unknown))
            newer = f"; it told of {kinds}, which this program does not know" if kinds else ""
            self._anew = f"step {record.step} contradicts what came before{newer}"
            return False
        self._seq = record.seq
        return True

    def _join(self, state: Joining) -> Joined:
        step = state.state.step
        if not self._epoch:
            origin = Origin(unseen(1, step))
        elif state.epoch != self._epoch:
            origin = Origin(unseen(1, step), RESTARTED)
        else:
            origin = Origin(unseen(self.state.step + 1, step), self._anew or BEHIND)
        self._anew = ""
        self._epoch, self._seq = state.epoch, state.seq
        self.header = state.header
        self.vocabulary = dict(pieces(state.vocab))
        self.state = EngineState.restore(state.state)
        return Joined(origin)


def unseen(first: int, last: int) -> str:
    """
    >>> unseen(120, 1340), unseen(7, 7), unseen(1, 0)
    ('steps 120–1,340 were not seen', 'step 7 was not seen', '')
    """
    if first > last:
        return ""
    return (
        f"steps {first:,}–{last:,} were not seen" if first < last else f"step {last:,} was not seen"
    )
