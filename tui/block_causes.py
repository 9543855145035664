"""Why a block is whose it is and where its content came from; how a node came to be and what became
of it."""

from collections.abc import Iterator

from ..engine import events as ev
from ..engine.blocks import BlockState
from ..engine.snapshot import RequestState
from ..engine.state import ROOT, EngineState
from ..engine.wording import agrees, plural, times
from .inquiry import Cause, Inquiry, after
from .selection import Target, names, node_holders

SHOWN_CHANGES = 4


class BlockInquiry(Inquiry):
    """Questions about blocks and nodes."""

    def block(self, id: int) -> Iterator[Cause]:
        state = self._state
        me = Target("block", id)
        changed = self._record.chronicle.before("block", id, after(self._here))
        kind, owner = BlockState(state.block_state[id]), state.block_owner[id]
        if kind is BlockState.FREE:
            words = "is free" if changed else "is free and was never used in this record"
            yield Cause(0, f"Block {id} {words}.", changed, me)
        elif kind is BlockState.PRIVATE:
            request = state.requests[owner]
            size = state.config.block_size
            first = request.block_table.index(id) * size
            text = f"Block {id} is private: it is for tokens {first}–{first + size - 1} of #{owner}"
            full = request.computed >= first + size
            text += "." if full else ", not shareable until full."
            yield Cause(0, text, changed, Target("request", owner))
            if full:
                yield self._twin(state, request, first)
        else:
            node = state.nodes[owner]
            held = names(node_holders(state, node))
            first = node.start + node.blocks.index(id) * state.config.block_size
            text = f"Block {id} is in the tree: node {owner}, from token {first}, held by {held}."
            yield Cause(0, text, changed, Target("node", owner))
        yield from self._history_of_block(id)

    def _twin(self, state: EngineState, request: RequestState, first: int) -> Cause:
        """Why a full block of ``request``, with the tokens from ``first`` on, is private."""
        node, tokens = state.nodes[ROOT], request.tokens[: first + state.config.block_size]
        while (at := node.start + len(node.tokens)) < len(tokens):
            children = (state.nodes[id] for id in node.children)
            rest = tokens[at:]
            below = (n for n in children if n.tokens[: len(rest)] == rest[: len(n.tokens)])
            found = next((n for n in below if n.salt == request.salt), None)
            if found is None:
                when = f"until #{request.id} fills its next"
                return Cause(1, f"It is full, a twin of a block no longer cached; private {when}.")
            node = found
        twin = node.blocks[(first - node.start) // state.config.block_size]
        text = f"It is full, a twin: block {twin} of node {node.id} has the same tokens cached."
        stays = f"It stays #{request.id}'s own as long as that is so, and is free when let go of."
        return Cause(1, f"{text} {stays}", None, Target("node", node.id))

    def _history_of_block(self, id: int) -> Iterator[Cause]:
        """How it changed hands lately, the last first."""
        at = self._record.chronicle.before("block", id, after(self._here))
        shown = 0
        while at is not None and shown < SHOWN_CHANGES:
            event = self._record.event_at(at)
            if not isinstance(event, ev.Admitted):  # one more holder
                yield from self._quote(1, at, Target("block", id))
                shown += 1
            if isinstance(event, ev.Evicted):
                yield from self._behind_eviction(2, at)
            at = self._record.chronicle.before("block", id, at)

    def node(self, id: int) -> Iterator[Cause]:
        state = self._state
        me = Target("node", id)
        node = state.nodes.get(id)
        made = self._first("node", id)
        if node is None:
            gone = self._record.chronicle.came("node", id, self._here)
            words = "is gone: its last block was evicted" if gone else "is not there yet"
            last = self._last("node", id, ev.Evicted)
            yield Cause(0, f"Node {id} {words}.", last, me)
            if gone:
                yield from self._quote(1, last, me)
            if last:
                yield from self._behind_eviction(2, last)
            return
        blocks = plural(len(node.blocks), "block")
        held = names(node_holders(state, node))
        hit = f"hit {times(node.hits)}" if node.hits else "never hit"
        text = f"Node {id} has {blocks}, held by {held}; {hit}, last used in step {node.last_used}."
        yield Cause(0, text, made, me)
        yield from self._quote(1, made, me)
        if grown := sum(1 for _ in self._all("node", id, ev.Extended)):
            last = self._last("node", id, ev.Extended)
            yield Cause(1, f"It grew {times(grown)} since.", last, me)
        if cut := self._last("node", id, ev.Evicted):
            yield from self._quote(1, cut, me)
            yield from self._behind_eviction(2, cut)
        if not node.pinned:
            order = state.config.eviction_policy
            yield Cause(1, f"Nobody holds it: it can be evicted, in the order of {order}.")
        elif not node.refs:
            below = plural(node.pinned_children, "node")
            below += f" below it {agrees(node.pinned_children, 'is', 'are')} held"
            yield Cause(1, f"Nobody holds it, but {below}: it cannot be evicted.")
