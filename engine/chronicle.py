"""Which events touched what: for every request, tree node and block the positions of its events,
and those of all that are notable: preemptions, evictions, refusals and failures.

Built as records come, a few numbers an event, and asked from the screens: when did block 812 last
change, what happened to request 7 next, and was the prefix that this request missed here once? The
events themselves are not kept: whoever has a position finds them in the recording.

Not listed are the steps in which a request merely decodes, as those are all between its admission
and its end; and a request that lets go of blocks which stay in the tree does not touch those.
"""

from array import array
from bisect import bisect_left
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, get_args

from . import events as ev
from .state import ROOT, EngineState

Kind = Literal["request", "node", "block", "notable"]

ALL = 0  # the id under which notable events are
RETAIN_EVICTIONS = 1 << 18  # evicted blocks whose prefixes are remembered; older ones are forgotten
_EVENT_BITS = 24


class Eviction(NamedTuple):
    """The event that removed a cached block, and the node it was the end of."""

    position: ev.Position
    node: int
    event: ev.Evicted


class _Evictions(NamedTuple):
    """All evictions of one prefix, the last first."""

    last: Eviction
    earlier: "_Evictions | None"


class Chronicle:
    """An index over records given to `apply` in order; ``start`` is the state before the first.

    >>> chronicle.before("block", 812, here)      # its last change, or None
    Position(step=118, event=3)
    >>> chronicle.after("notable", ALL, here)
    Position(step=130, event=0)
    """

    def __init__(self, start: EngineState) -> None:
        self._size = start.config.block_size
        # Ids below these were given out before the first record.
        self._given: dict[Kind, int] = {
            "request": max(start.requests, default=-1) + 1,
            "node": start.next_node,
        }
        self._lists: dict[Kind, defaultdict[int, array[int]]] = {
            kind: defaultdict(_none) for kind in get_args(Kind)
        }
        self._chains: dict[int, list[int]] = {}  # node → hash of the prefix at each of its blocks
        self._ends: dict[int, int] = {}  # node → hash of the prefix above it
        self._evicted: OrderedDict[int, _Evictions] = OrderedDict()  # by the prefix's hash
        stack = list(start.nodes[ROOT].children)
        while stack:
            node = start.nodes[stack.pop()]
            self._enter(node.id, node.parent, node.tokens, node.salt)
            stack += node.children

    def apply(self, record: ev.StepRecord, state: EngineState) -> None:
        """Take in one record, which ``state`` includes."""
        first = _pack(record.position(0))
        for at, event in enumerate(record.events, first):
            for kind, ids in touched(event):
                lists = self._lists[kind]
                for id in ids:
                    lists[id].append(at)
            if isinstance(event, _OF_THE_TREE):
                self._follow_tree(event, record, at - first)

    # --- asking ----------------------------------------------------------------------------------

    def of(self, kind: Kind, id: int) -> list[ev.Position]:
        """Every event that touched it, in order."""
        return [_unpack(at) for at in self._lists[kind].get(id, ())]

    def came(self, kind: Kind, id: int, position: ev.Position) -> bool:
        """Whether it was ever there, or touched, up to ``position``."""
        positions = self._lists[kind].get(id)
        return id < self._given.get(kind, 0) or bool(positions and positions[0] <= _pack(position))

    def before(self, kind: Kind, id: int, position: ev.Position) -> ev.Position | None:
        """The last event that touched it before ``position``."""
        positions = self._lists[kind].get(id, _NONE)
        at = bisect_left(positions, _pack(position))
        return _unpack(positions[at - 1]) if at else None

    def after(self, kind: Kind, id: int, position: ev.Position) -> ev.Position | None:
        """The first event that touched it after ``position``."""
        positions = self._lists[kind].get(id, _NONE)
        at = bisect_left(positions, _pack(position) + 1)
        return _unpack(positions[at]) if at < len(positions) else None

    def eviction_of(
        self, prefix: Sequence[int], before: ev.Position, salt: str = ""
    ) -> Eviction | None:
        """How the cache last lost the last block of ``prefix``, a whole number of blocks, before
        that position; None if it never did, or so long ago that it is forgotten."""
        found = self._evicted.get(self._chain(hash(salt), prefix)[-1])
        while found and found.last.position >= before:
            found = found.earlier
        return found.last if found else None

    # --- prefixes --------------------------------------------------------------------------------

    def _follow_tree(self, event: ev.AnyEvent, record: ev.StepRecord, index: int) -> None:
        """Keep a hash of the whole prefix for every block in the tree, and for those that left."""
        if isinstance(event, ev.Extended):
            self._chains[event.node] += self._chain(self._last(event.node), event.tokens)
        elif isinstance(event, ev.Inserted):
            self._enter(event.node, event.parent, event.tokens, event.salt)
        elif isinstance(event, ev.Split):
            chain, keep = self._chains[event.node], event.tokens // self._size
            self._chains[event.upper], self._chains[event.node] = chain[:keep], chain[keep:]
            self._ends[event.upper] = self._ends[event.node]
            self._ends[event.node] = chain[keep - 1]
        elif isinstance(event, ev.Evicted):
            chain = self._chains[event.node]
            eviction = Eviction(record.position(index), event.node, event)
            for _ in event.blocks:
                gone = chain.pop()
                self._evicted[gone] = _Evictions(eviction, self._evicted.get(gone))
                self._evicted.move_to_end(gone)
            if not chain:
                del self._chains[event.node], self._ends[event.node]
            while len(self._evicted) > RETAIN_EVICTIONS:
                self._evicted.popitem(last=False)

    def _enter(self, node: int, parent: int, tokens: Sequence[int], salt: str) -> None:
        above = hash(salt) if parent == ROOT else self._last(parent)
        self._ends[node] = above
        self._chains[node] = self._chain(above, tokens)

    def _last(self, node: int) -> int:
        chain = self._chains[node]
        return chain[-1] if chain else self._ends[node]

    def _chain(self, above: int, tokens: Sequence[int]) -> list[int]:
        size = self._size
        chain: list[int] = []
        for at in range(0, len(tokens), size):
            above = hash((above, *tokens[at : at + size]))
            chain.append(above)
        return chain


def _none() -> "array[int]":
    return array("q")


_NONE = _none()
_OF_THE_TREE = (ev.Extended, ev.Inserted, ev.Split, ev.Evicted)


def _pack(position: ev.Position) -> int:
    return position.step << _EVENT_BITS | position.event


def _unpack(at: int) -> ev.Position:
    return ev.Position(at >> _EVENT_BITS, at & (1 << _EVENT_BITS) - 1)


Touched = Iterable[tuple[Kind, Iterable[int]]]


_NOTABLE: tuple[Kind, Iterable[int]] = ("notable", (ALL,))


def _request(event: ev.Submitted | ev.Scheduled | ev.Starved | ev.Finished) -> Touched:
    return (("request", (event.req,)),)


def _refused(event: ev.Refused) -> Touched:
    return ("request", (event.req,)), _NOTABLE


def _failed(event: ev.StepFailed) -> Touched:
    return (_NOTABLE,)


def _admitted(event: ev.Admitted) -> Touched:
    nodes = (event.node,) if event.node != ROOT else ()
    return ("request", (event.req,)), ("node", nodes), ("block", event.blocks)


def _preempted(event: ev.Preempted) -> Touched:
    return ("request", {event.req, event.for_req}), _NOTABLE


def _allocated(event: ev.Allocated) -> Touched:
    return ("request", (event.req,)), ("block", event.blocks)


def _released(event: ev.Released) -> Touched:
    return ("request", (event.req,)), ("block", event.freed)


def _inserted(event: ev.Inserted | ev.Extended) -> Touched:
    return ("request", (event.req,)), ("node", (event.node,)), ("block", event.blocks)


def _split(event: ev.Split) -> Touched:
    return (("node", (event.node, event.upper)),)


def _evicted(event: ev.Evicted) -> Touched:
    who = (event.for_req,) if event.for_req >= 0 else ()
    return ("request", who), ("node", (event.node,)), ("block", event.blocks), _NOTABLE


def touched(event: ev.AnyEvent) -> Touched:
    """The requests, nodes and blocks that ``event`` is listed under."""
    listed = _TOUCHES.get(type(event))
    return listed(event) if listed else ()


def touches(event: ev.AnyEvent, kind: Kind, id: int) -> bool:
    """Whether ``event`` is listed under that one."""
    return any(kind == listed and id in ids for listed, ids in touched(event))


_TOUCHES: dict[type, Callable[[Any], Touched]] = {
    ev.Submitted: _request,
    ev.Refused: _refused,
    ev.Deferred: _request,
    ev.Admitted: _admitted,
    ev.Scheduled: _request,
    ev.Starved: _request,
    ev.Preempted: _preempted,
    ev.Finished: _request,
    ev.Allocated: _allocated,
    ev.Released: _released,
    ev.Inserted: _inserted,
    ev.Extended: _inserted,
    ev.Split: _split,
    ev.Evicted: _evicted,
    ev.StepFailed: _failed,
}
