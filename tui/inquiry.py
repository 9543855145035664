"""What every question of why is answered with: events of a record, quoted, and who holds the pool.

`causes` asks about requests, `block_causes` about blocks and nodes.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ..engine import events as ev
from ..engine.chronicle import Kind
from ..engine.events import Position
from ..engine.state import EngineState
from ..engine.wording import agrees, plural
from .changes import describe
from .explain import supply
from .record import Record
from .selection import Target

SHOWN_HOLDERS = 4

TokenText = Callable[[Sequence[int]], str]


class Cause(NamedTuple):
    """One line of the chain: ``depth`` 0 answers the question, deeper ones say what is behind it.
    ``position`` is the event it quotes, ``target`` what it is about."""

    depth: int
    text: str
    position: Position | None = None
    target: Target | None = None


class Inquiry:
    """Questions put to one position of a record; ``text`` spells tokens."""

    def __init__(self, record: Record, position: Position, text: TokenText) -> None:
        self._record = record
        self._here = position
        self._text = text

    @property
    def _state(self) -> EngineState:
        return self._record.state_at(self._here)

    def _quote(self, depth: int, at: Position | None, target: Target) -> Iterator[Cause]:
        """The event at ``at`` in words."""
        if at is None:
            yield Cause(depth, "That lies before the beginning of this record.")
            return
        yield Cause(depth, sentence(self._record.event_at(at)), at, target)

    def _first(self, kind: Kind, id: int) -> Position | None:
        found = self._record.chronicle.of(kind, id)
        return found[0] if found else None

    def _all(self, kind: Kind, id: int, event: type) -> Iterator[Position]:
        """Every such event up to here that touched it."""
        for at in self._record.chronicle.of(kind, id):
            if at <= self._here and isinstance(self._record.event_at(at), event):
                yield at

    def _last(self, kind: Kind, id: int, event: type, of: int | None = None) -> Position | None:
        """The last ``event`` up to here that touched it; ``of``: whose ``req`` is that."""
        chronicle = self._record.chronicle
        at = chronicle.before(kind, id, after(self._here))
        while at is not None:
            found = self._record.event_at(at)
            if isinstance(found, event) and (of is None or getattr(found, "req", None) == of):
                return at
            at = chronicle.before(kind, id, at)
        return None

    def _holders(self, depth: int, state: EngineState, victim: int = -1) -> Iterator[Cause]:
        """Who holds the pool's blocks in ``state``, the largest first, and what ``victim`` has."""
        total = state.config.num_blocks
        held = total - state.free - state.evictable
        of = f"{held} of {plural(total, 'block')} {agrees(held, 'is', 'are')} held"
        pool = f"{of}: {_supply_of(state)}"
        yield Cause(depth, f"{pool}.")
        tables = [(len(state.requests[r].block_table), r) for r in state.running]
        order = [id for _, id in sorted(tables, key=lambda pair: (-pair[0], pair[1]))]
        shown = [id for at, id in enumerate(order) if at < SHOWN_HOLDERS or id == victim]
        for id in shown:
            text = f"#{id} holds {_blocks_of(state, [id])}."
            yield Cause(depth + 1, text, None, Target("request", id))
        rest = [id for id in order if id not in shown]
        if rest:
            hold = agrees(len(rest), "holds", "hold")
            yield Cause(depth + 1, f"{len(rest)} more {hold} {_blocks_of(state, rest)}.")
        above = held - len({b for id in order for b in state.requests[id].block_table})
        if above:
            text = f"{plural(above, 'block')} of the tree nobody holds, but what is below is held."
            yield Cause(depth + 1, text)

    def _behind_eviction(self, depth: int, at: Position) -> Iterator[Cause]:
        """Why blocks had to go at ``at``, and why that node's."""
        event = self._record.event_at(at)
        if not isinstance(event, ev.Evicted) or event.why != "capacity":
            return
        state = self._record.state_before(at)
        order = state.config.eviction_policy
        first = f"By the policy {order} it was the first to go of what nobody held"
        yield Cause(depth, f"{first}.", at, Target("node", event.node))
        yield from self._holders(depth, state)


def sentence(event: ev.AnyEvent) -> str:
    """Any event in a sentence: a decision with its reason, a change with what changed."""
    words = describe(event).sentence
    return f"{words[0].upper()}{words[1:]}" + ("" if words.endswith(".") else ".")


def _supply_of(state: EngineState) -> str:
    return supply(state.free, state.evictable, 0).removesuffix(" − promised 0")


def after(position: Position) -> Position:
    return Position(position.step, position.event + 1)


def _blocks_of(state: EngineState, ids: list[int]) -> str:
    """How many blocks these requests hold, each counted once."""
    blocks = {block for id in ids for block in state.requests[id].block_table}
    shared = sum(state.refs(block) > 1 for block in blocks)
    return plural(len(blocks), "block") + (f", {shared} of them with others" if shared else "")
