"""The prefix cache: block tables of requests over one pool and one radix tree.

The only place that touches both `BlockPool` and `RadixTree`, and so the only one that moves a block
between free, private and cached. Who gets blocks and when is the scheduler's decision; it asks here
what there is (`free`, `evictable`), then says `admit`, `grow`, `share`, `release`.

Block tables are append-only: a request never has a block swapped under it. A full block enters the
tree when the step that fills it is scheduled, so requests that arrive together share within one
step; within a layer every K/V of the step is written before any is read.
"""

from .blocks import BlockPool, BlockState
from .config import EngineConfig
from .events import Allocated, EventLog, Released
from .policies import EvictionPolicy
from .radix import Match, RadixTree
from .request import Request


class PrefixCache:
    """Owns the pool and the tree; ``step`` is stamped on nodes as they are used."""

    def __init__(self, config: EngineConfig, policy: EvictionPolicy, log: EventLog) -> None:
        self.block_size = config.block_size
        self.pool = BlockPool(config.num_blocks)
        self.tree = RadixTree(config.block_size, policy, log)
        self.log = log
        self.step = 0
        self._inserted: list[int] = []  # blocks that entered the tree in this step, in order

    def begin_step(self, step: int) -> None:
        self.step = step
        self._inserted = []

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
        """The cached prefix of what ``request`` knows, leaving it at least one token to compute."""
        return self.tree.match(request.tokens, (len(request.tokens) - 1) // self.block_size)

    def admit(self, request: Request, match: Match) -> int:
        """Start ``request``'s table with the matched blocks; returns the node they end with."""
        node = self.tree.hold(match, self.step)
        request.block_table = list(match.blocks)
        request.computed = len(match.blocks) * self.block_size
        return node.id

    def room(self, request: Request) -> int:
        """How many more tokens ``request`` could compute with all the blocks it could get."""
        blocks = len(request.block_table) + self.available
        return blocks * self.block_size - request.computed

    def grow(self, request: Request, tokens: int) -> None:
        """Allocate blocks until the table holds ``tokens`` tokens, evicting the shortfall."""
        count = -(-tokens // self.block_size) - len(request.block_table)
        if count <= 0:
            return
        shortfall = count - self.pool.num_free
        if shortfall > 0:
            self.pool.give_back(self.tree.evict(shortfall, "capacity", request.id))
        blocks = self.pool.take(count)
        request.block_table += blocks
        if self.log.on:
            self.log.add(Allocated(request.id, blocks, self.pool.num_free))

    def share(self, request: Request, before: int, after: int) -> None:
        """Enter the blocks that fill up as ``request`` computes tokens ``before`` to ``after``."""
        known, full = before // self.block_size, after // self.block_size
        if full > known:
            new = self.tree.insert(
                request.id, request.tokens, request.block_table[:full], known, self.step
            )
            self.pool.publish(new)
            self._inserted += new

    def release(self, request: Request) -> None:
        """Let go of the whole table: private blocks become free, cached ones stay in the tree."""
        table = request.block_table
        state = self.pool.state
        private = [block for block in reversed(table) if state[block] == BlockState.PRIVATE]
        self.tree.release(table, self.step)
        self.pool.give_back(private)
        if self.log.on and table:
            self.log.add(Released(request.id, private, len(table) - len(private)))
        request.block_table = []
        request.computed = 0

    def withdraw_step(self) -> None:
        """Take back what this step inserted: it failed, so those blocks hold nothing. The requests
        of the step, the only possible holders, have been released."""
        self.tree.withdraw(self._inserted)
        self.pool.give_back(self._inserted[::-1])
        self._inserted = []

    def reset(self) -> int:
        """Evict everything that nobody holds; returns the number of blocks freed."""
        blocks = self.tree.evict(self.tree.evictable_blocks, "reset")
        self.pool.give_back(blocks)
        return len(blocks)
