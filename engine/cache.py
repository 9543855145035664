"""The prefix cache: block tables of requests over one pool and one radix tree.

The only place that touches both `BlockPool` and `RadixTree`, and so the only one that moves a block
between free, private and cached; every such change is complete before its event is added. Who gets
blocks and when is the scheduler's decision: it asks what there is (`free`, `evictable`, `room`),
then says `admit`, `grow`, `share`, `release`.

Block tables are append-only: a request never has a block swapped under it. A full block enters the
tree when the step that fills it is scheduled, so requests that arrive together share within one
step; within a layer every K/V of the step is written before any is read.
"""

from .blocks import BlockPool, BlockState
from .config import EngineConfig
from .events import Allocated, EventLog, Evicted, Extended, Inserted, Released, Split
from .policies import EvictionPolicy
from .radix import Cut, Match, RadixTree, Trim, Use
from .request import Request
from .state import EngineState

NO_REQUEST = -1


class PrefixCache:
    """Owns the pool and the tree; ``step`` is stamped on nodes as they are used."""

    def __init__(self, config: EngineConfig, policy: EvictionPolicy, log: EventLog) -> None:
        self.block_size = config.block_size
        self._blocks_for = config.blocks_for
        self.pool = BlockPool(config.num_blocks)
        self.tree = RadixTree(config.block_size, policy)
        self.log = log
        self.step = 0
        self._inserted: list[int] = []  # blocks that entered the tree in this step, in order

    def begin_step(self, step: int) -> None:
        self.step = step
        self._inserted = []

    def adopt(self, state: EngineState) -> None:
        """Become the pool and the tree in ``state``; both are empty so far."""
        self.step = state.step
        self.pool.adopt(state.block_state)
        self.tree.adopt(state.nodes, state.next_node)

    # --- looking ---------------------------------------------------------------------------------

    @property
    def free(self) -> int:
        return self.pool.num_free

    @property
    def evictable(self) -> int:
        return self.tree.evictable_blocks

    @property
    def available(self) -> int:
        """Blocks an allocation could get: the free ones, and cached ones nobody holds."""
        return self.pool.num_free + self.tree.evictable_blocks

    def match(self, request: Request) -> Match:
        """The cached prefix of what ``request`` knows, leaving it at least one token to compute,
        and all from the first whose logits are asked for."""
        limit = (len(request.tokens) - 1) // self.block_size
        if request.unscored:
            limit = request.unscored.start // self.block_size
        return self.tree.match(request.tokens, limit, request.salt)

    def room(self, request: Request) -> int:
        """How many more tokens ``request`` could compute with all the blocks it could get."""
        blocks = len(request.block_table) + self.available
        return blocks * self.block_size - request.computed

    def next_blocks(self, count: int) -> list[int]:
        """The blocks that the next ``count`` calls of `grow`, by one block each, would take without
        evicting; fewer where there are not so many."""
        return self.pool.next_free(count)

    # --- changing --------------------------------------------------------------------------------

    def admit(self, request: Request, match: Match) -> int:
        """Start ``request``'s table with the matched blocks; returns the node they end with."""
        node, cut = self.tree.hold(match, self._use(request))
        request.block_table = list(match.blocks)
        request.computed = len(match.blocks) * self.block_size
        self._log_split(cut)
        return node.id

    def grow(self, request: Request, tokens: int) -> None:
        """Allocate blocks until the table holds ``tokens`` tokens, evicting the shortfall."""
        count = self._blocks_for(tokens) - len(request.block_table)
        if count <= 0:
            return
        shortfall = count - self.pool.num_free
        if shortfall > 0:
            self._evict(shortfall, "capacity", request.id)
        blocks = self.pool.take(count)
        request.block_table += blocks
        if self.log.on:
            self.log.add(Allocated(request.id, blocks, self.pool.num_free))

    def share(self, request: Request, before: int, after: int) -> None:
        """Enter the blocks that fill up as ``request`` computes tokens ``before`` to ``after``."""
        known, full = before // self.block_size, after // self.block_size
        if full == known:
            return
        table = request.block_table[:full]
        new = self.tree.insert(request.tokens, table, known, self._use(request))
        if new is None:
            return
        self.pool.publish(new.blocks)
        self._inserted += new.blocks
        self._log_split(new.cut)
        if not self.log.on:
            return
        run, blocks = new.tokens[:], new.blocks[:]  # the node goes on changing its own
        if new.extended:
            self.log.add(Extended(request.id, new.node, run, blocks))
        else:
            self.log.add(Inserted(request.id, new.node, new.parent, run, blocks, request.salt))

    def release(self, request: Request) -> None:
        """Let go of the whole table: private blocks become free, cached ones stay in the tree."""
        table, state = request.block_table, self.pool.state
        private = [block for block in reversed(table) if state[block] == BlockState.PRIVATE]
        request.block_table = []
        request.computed = 0
        self.tree.release(table, self.step)
        self.pool.give_back(private)
        if self.log.on and table:
            self.log.add(Released(request.id, private, len(table) - len(private)))

    def withdraw_step(self) -> None:
        """Take back what this step inserted: it failed, so those blocks hold nothing. The requests
        of the step, the only possible holders, have been released."""
        inserted, self._inserted = self._inserted, []
        for block in reversed(inserted):
            self._to_free(self.tree.withdraw(block), "withdrawn", NO_REQUEST)

    def clear(self, blocks: int) -> None:
        """Evict until ``blocks`` blocks are free; the caller has checked `available`."""
        self._evict(blocks - self.pool.num_free, "capacity", NO_REQUEST)

    def reset(self) -> int:
        """Evict everything that nobody holds; returns the number of blocks freed."""
        count = self.tree.evictable_blocks
        self._evict(count, "reset", NO_REQUEST)
        return count

    def _use(self, request: Request) -> Use:
        return Use(self.step, request.salt, request.priority)

    def _evict(self, count: int, why: str, for_req: int) -> None:
        """Free exactly ``count`` cached blocks; the caller has checked `evictable`."""
        while count > 0:
            trim = self.tree.evict(count)
            self._to_free(trim, why, for_req)
            count -= len(trim.blocks)

    def _to_free(self, trim: Trim, why: str, for_req: int) -> None:
        self.pool.give_back(trim.blocks)
        if self.log.on:
            self.log.add(Evicted(trim.node, trim.blocks, why, for_req, trim.last_used))

    def _log_split(self, cut: Cut | None) -> None:
        if cut and self.log.on:
            self.log.add(Split(cut.node, cut.upper, cut.tokens))
