"""The one reducer: `EngineState` is what the events say, and all that a screen ever reads.

`apply` takes records in order; after each, the state equals what the engine itself holds
(`audit.py` checks it in tests). Plain data throughout, so a state can be sent, stored and compared:
`EngineState.snapshot` is all of it at one moment, and `EngineState.restore` goes on from there.
"""

import sys
from array import array
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import Any

import msgspec

from . import events as ev
from .blocks import BlockState
from .config import EngineConfig
from .request import Status
from .snapshot import NOBODY, NodeState, RequestState, RowState, Snapshot
from .stats import Statistics

RETAIN_FINISHED = 1000  # ended requests kept for the eye; older ones are forgotten
ROOT = 0

_SAME = ("config", "step", "now", "out_at", "free", "cached", "evictable", "began", "step_seconds")
_LISTS = ("waiting", "running", "finished", "rows", "notes")


class EngineState:
    """Queues, requests, blocks and tree, rebuilt from events alone.

    ``rows`` is the batch of the latest step, ``notes`` its decisions with their reasons, and
    ``stats`` everything counted since the start. States are equal when all of that is.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.step = 0
        self.now = 0.0
        self.out_at = 0.0  # when what the record in hand gives comes out: at its end
        self.requests: dict[int, RequestState] = {}
        self.waiting: list[int] = []
        self.running: list[int] = []
        self.finished: list[int] = []
        self.block_state = bytearray(config.num_blocks)
        self.block_owner = array("i", [NOBODY]) * config.num_blocks  # node if cached, else request
        self.nodes: dict[int, NodeState] = {ROOT: NodeState(ROOT, NOBODY, 0, 0)}
        self.next_node = 1  # the id of the next new one
        self.free = config.num_blocks
        self.cached = 0  # blocks in the tree, held or not
        self.evictable = 0  # those of them that could be evicted now
        self.rows: list[RowState] = []
        self.notes: list[ev.AnyEvent] = []
        self.began: ev.StepBegan | None = None
        self.step_seconds = 0.0
        self.timings: dict[str, float] = {}
        self.stats = Statistics(config.num_blocks, config.block_size)
        self._shared_requests: set[int] = set()  # with snapshots: to be copied before they change
        self._shared_nodes: set[int] = set()

    # --- storing ---------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """All of it as it is now, apart from what happens to the state later.

        Requests and nodes are shared until the state changes one, so that this costs little.
        """
        self._share()
        return Snapshot(
            **{name: getattr(self, name) for name in _SAME},
            **{name: getattr(self, name)[:] for name in _LISTS},
            requests=dict(self.requests),
            nodes=dict(self.nodes),
            block_state=bytes(self.block_state),
            block_owner=_little_endian(self.block_owner).tobytes(),
            timings=dict(self.timings),
            stats=self.stats.copy(),
            next_node=self.next_node,
        )

    @classmethod
    def restore(cls, snapshot: Snapshot) -> "EngineState":
        """The state that ``snapshot`` is of. It may be restored as often as one likes."""
        state = cls.__new__(cls)
        for name in _SAME:
            setattr(state, name, getattr(snapshot, name))
        for name in _LISTS:
            setattr(state, name, getattr(snapshot, name)[:])
        state.requests = dict(snapshot.requests)
        state.nodes = dict(snapshot.nodes)
        state._share()
        state.block_state = bytearray(snapshot.block_state)
        state.block_owner = _little_endian(array("i", snapshot.block_owner))
        state.timings = dict(snapshot.timings)
        state.stats = snapshot.stats.copy()
        state.next_node = snapshot.next_node or max(snapshot.nodes) + 1
        return state

    def _share(self) -> None:
        """Nothing that there is now may be changed in its place any more.

        Requests that have ended never are.
        """
        self._shared_requests = self.requests.keys() - self.finished
        self._shared_nodes = set(self.nodes)

    def _request(self, id: int) -> RequestState:
        """The request, to be changed."""
        if id in self._shared_requests:
            self._shared_requests.remove(id)
            self.requests[id] = self.requests[id].copy()
        return self.requests[id]

    def _own(self, ids: Iterable[int]) -> None:
        """Let all these requests be changed in their place, as `_request` does for one."""
        if self._shared_requests:
            for id in self._shared_requests.intersection(ids):
                self._request(id)

    def _node(self, id: int) -> NodeState:
        """The node, to be changed."""
        if id in self._shared_nodes:
            self._shared_nodes.remove(id)
            self.nodes[id] = self.nodes[id].copy()
        return self.nodes[id]

    def digest(self) -> str:
        """32 hex digits that are the same for equal states, on any machine.

        Costs as much as sending the state: whole seconds where the tree holds millions of tokens.
        """
        # Read back once: 0 and 0.0 are equal, and are spelled alike only where a type says so.
        wire = msgspec.json.encode(self.snapshot())
        plain = msgspec.json.decode(wire, type=Snapshot)
        sorted_keys = msgspec.to_builtins(plain, str_keys=True, order="deterministic")
        return blake2b(msgspec.json.encode(sorted_keys), digest_size=16).hexdigest()

    def __eq__(self, other: object) -> bool:
        names = (name for name in vars(self) if not name.startswith("_shared"))
        return isinstance(other, EngineState) and all(
            getattr(self, name) == getattr(other, name) for name in names
        )

    # --- reading ---------------------------------------------------------------------------------

    def refs(self, block: int) -> int:
        """How many live block tables contain ``block``."""
        state = self.block_state[block]
        if state == BlockState.CACHED:
            return self.nodes[self.block_owner[block]].refs
        return int(state == BlockState.PRIVATE)

    @property
    def prefills(self) -> list[RowState]:
        """The rows that are prefill chunks; all others are decodes, a token each."""
        return [row for row in self.rows if row.chunks]

    def nodes_of(self, request: RequestState) -> list[NodeState]:
        """The tree nodes whose blocks ``request`` holds, from the root down."""
        found: list[NodeState] = []
        i = 0
        while i < len(request.block_table):
            block = request.block_table[i]
            if self.block_state[block] == BlockState.CACHED:
                found.append(self.nodes[self.block_owner[block]])
                i += len(found[-1].blocks)
            else:
                i += 1
        return found

    def holders(self, block: int) -> list[int]:
        """The requests whose block table contains ``block``."""
        return [r for r in self.running if block in self.requests[r].block_table]

    # --- reducing --------------------------------------------------------------------------------

    def apply(self, record: ev.StepRecord) -> None:
        """Take in one record. Records come in order, none missing."""
        for _ in self.unfold(record):
            pass

    def unfold(self, record: ev.StepRecord) -> Iterator[ev.AnyEvent]:
        """`apply`, one event at a time: gives each when the state includes it, and nothing later.

        What belongs to the record as a whole (``timings``) is taken in when the events are
        exhausted, as they have to be.
        """
        self.step = record.step
        self.now = record.t
        self.out_at = record.t + record.seconds
        self.stats.begin(record)
        for event in record.events:
            _APPLY[type(event)](self, event)
            self.stats.take(event)
            yield event
        self.stats.end(record, self.free, self.evictable)
        self.now = self.out_at
        if record.timings:
            self.step_seconds = record.seconds
            self.timings = record.timings

    def _step_began(self, e: ev.StepBegan) -> None:
        self.began = e
        self.rows = []
        self.notes = []

    def _submitted(self, e: ev.Submitted) -> None:
        self.requests[e.req] = RequestState(
            e.req,
            list(e.prompt),
            len(e.prompt),
            e.params,
            self.step,
            self.now,
            priority=e.priority,
            salt=e.salt,
            group=e.group,
            name=e.name,
            queued_step=self.step,
            timeout=e.timeout,
        )
        self.waiting.append(e.req)

    def _note(self, e: ev.AnyEvent) -> None:
        self.notes.append(e)

    def _admitted(self, e: ev.Admitted) -> None:
        request = self._request(e.req)
        self.waiting.remove(e.req)
        self.running.append(e.req)
        request.status = Status.PREFILLING
        request.block_table = list(e.blocks)
        request.computed = e.cached_tokens
        if e.recompute:
            request.recomputed_hits += e.cached_tokens
        else:
            request.cached_tokens = e.cached_tokens
        for held in self.nodes_of(request):
            node = self._node(held.id)
            node.hits += 1
            node.last_used = self.step
            node.priority = min(node.priority, request.priority)
            self._hold(node)
        self.notes.append(e)

    def _scheduled(self, e: ev.Scheduled) -> None:
        request = self._request(e.req)
        request.computed = e.start + e.count
        request.chunk, request.chunks = e.chunk, e.chunks
        self.rows.append(RowState(e.req, e.start, e.count, e.chunk, e.chunks))

    def _decoding(self, e: ev.Decoding) -> None:
        self._own(e.reqs)
        requests, decodes = self.requests, []
        for req in e.reqs:
            request = requests[req]
            decodes.append(RowState(req, request.computed, 1))
            request.computed += 1
        self.rows[:0] = decodes

    def _preempted(self, e: ev.Preempted) -> None:
        request = self._request(e.req)
        self.running.remove(e.req)
        self.waiting.insert(0, e.req)
        request.status = Status.PREEMPTED
        request.preemptions += 1
        request.queued_step = self.step
        request.chunk = request.chunks = 0
        self.notes.append(e)

    def _sampled(self, e: ev.Sampled) -> None:
        self._own(e.reqs)
        requests, decoding = self.requests, Status.DECODING
        for req, token in zip(e.reqs, e.tokens, strict=True):
            request = requests[req]
            request.tokens.append(token)
            if request.status is not decoding:
                request.status = decoding
                if request.first_token_at is None:
                    request.first_token_at = self.out_at
        if e.logprobs:
            for req, logprobs in zip(e.reqs, e.logprobs, strict=True):
                requests[req].logprobs.append(logprobs)

    def _finished(self, e: ev.Finished) -> None:
        request = self._request(e.req)
        queue = self.running if e.req in self.running else self.waiting
        queue.remove(e.req)
        request.status = Status.FINISHED
        request.finish_reason, request.message = e.reason, e.message
        request.finished_at, request.finished_step = self.out_at, self.step
        self.finished.append(e.req)
        if len(self.finished) > RETAIN_FINISHED:
            del self.requests[self.finished.pop(0)]
        self.notes.append(e)

    def _allocated(self, e: ev.Allocated) -> None:
        self._request(e.req).block_table += e.blocks
        for block in e.blocks:
            self.block_state[block] = BlockState.PRIVATE
            self.block_owner[block] = e.req
        self.free -= len(e.blocks)

    def _released(self, e: ev.Released) -> None:
        request = self._request(e.req)
        for held in self.nodes_of(request):
            node = self._node(held.id)
            node.last_used = self.step
            self._let_go(node)
        self._to_free(e.freed)
        request.block_table = []
        request.computed = 0

    def _inserted(self, e: ev.Inserted) -> None:
        parent = self._node(e.parent)
        start = parent.start + len(parent.tokens)
        node = NodeState(e.node, e.parent, start, self.step, list(e.tokens))
        node.last_used, node.salt = self.step, e.salt
        node.priority = self.requests[e.req].priority
        self.nodes[e.node] = node
        self.next_node = e.node + 1
        parent.children.append(e.node)
        self._publish(node, e.blocks)
        self.evictable += len(e.blocks)
        self._hold(node)

    def _extended(self, e: ev.Extended) -> None:
        node = self._node(e.node)
        node.tokens += e.tokens
        node.last_used = self.step
        self._publish(node, e.blocks)

    def _publish(self, node: NodeState, blocks: list[int]) -> None:
        node.blocks += blocks
        for block in blocks:
            self.block_state[block] = BlockState.CACHED
            self.block_owner[block] = node.id
        self.cached += len(blocks)

    def _split(self, e: ev.Split) -> None:
        node = self._node(e.node)
        parent = self._node(node.parent)
        keep = e.tokens // self.config.block_size
        upper = NodeState(
            id=e.upper,
            parent=node.parent,
            start=node.start,
            created=node.created,
            tokens=node.tokens[: e.tokens],
            blocks=node.blocks[:keep],
            children=[node.id],
            refs=node.refs,
            pinned_children=int(node.pinned),
            hits=node.hits,
            last_used=node.last_used,
            salt=node.salt,
            priority=node.priority,
        )
        self.nodes[e.upper] = upper
        self.next_node = e.upper + 1
        parent.children[parent.children.index(node.id)] = e.upper
        node.parent = e.upper
        node.start += e.tokens
        node.tokens = node.tokens[e.tokens :]
        node.blocks = node.blocks[keep:]
        for block in upper.blocks:
            self.block_owner[block] = e.upper

    def _evicted(self, e: ev.Evicted) -> None:
        node = self._node(e.node)
        keep = len(node.blocks) - len(e.blocks)
        del node.blocks[keep:]
        del node.tokens[keep * self.config.block_size :]
        if not node.blocks:
            self._node(node.parent).children.remove(node.id)
            del self.nodes[node.id]
        self.cached -= len(e.blocks)
        self.evictable -= len(e.blocks)
        self._to_free(e.blocks)
        self.notes.append(e)

    def _to_free(self, blocks: list[int]) -> None:
        for block in blocks:
            self.block_state[block] = BlockState.FREE
            self.block_owner[block] = NOBODY
        self.free += len(blocks)

    # A node is pinned while it or anything below it is held; `evictable` counts unpinned blocks.

    def _hold(self, node: NodeState) -> None:
        was_pinned = node.pinned
        node.refs += 1
        while not was_pinned and node.id != ROOT:
            self.evictable -= len(node.blocks)
            node = self._node(node.parent)
            was_pinned = node.pinned
            node.pinned_children += 1

    def _let_go(self, node: NodeState) -> None:
        node.refs -= 1
        while not node.pinned and node.id != ROOT:
            self.evictable += len(node.blocks)
            node = self._node(node.parent)
            node.pinned_children -= 1


def _little_endian(numbers: "array[int]") -> "array[int]":
    """A copy whose bytes are in the order of snapshots, or back from there."""
    numbers = numbers[:]
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


_APPLY: dict[type, Callable[[EngineState, Any], None]] = {
    ev.Submitted: EngineState._submitted,
    ev.Refused: EngineState._note,
    ev.Deferred: EngineState._note,
    ev.Admitted: EngineState._admitted,
    ev.Scheduled: EngineState._scheduled,
    ev.Decoding: EngineState._decoding,
    ev.Starved: EngineState._note,
    ev.Preempted: EngineState._preempted,
    ev.Sampled: EngineState._sampled,
    ev.Finished: EngineState._finished,
    ev.Allocated: EngineState._allocated,
    ev.Released: EngineState._released,
    ev.Inserted: EngineState._inserted,
    ev.Extended: EngineState._extended,
    ev.Split: EngineState._split,
    ev.Evicted: EngineState._evicted,
    ev.StepBegan: EngineState._step_began,
    ev.StepFailed: EngineState._note,
}
