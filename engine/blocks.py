"""The pool of KV blocks: what each one is, and the free list.

A block is at all times exactly one of FREE, PRIVATE (one request's own) or CACHED (in the radix
tree). How many requests hold a cached block, and which node it belongs to, is the tree's business
(`radix.py`); when a block changes hands is decided in `cache.py`.
"""

from collections.abc import Iterable
from enum import IntEnum


class BlockState(IntEnum):
    FREE = 0
    PRIVATE = 1
    CACHED = 2


class BlockPool:
    """``num_blocks`` blocks, numbered from 0. The free list is a stack: the last freed is the first
    reused.

    >>> pool = BlockPool(4)
    >>> pool.take(2), pool.num_free
    ([0, 1], 2)
    """

    __slots__ = ("_free", "num_blocks", "state")

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.state = bytearray(num_blocks)
        self._free = list(range(num_blocks - 1, -1, -1))

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def free_blocks(self) -> tuple[int, ...]:
        """The free list as it stands, for audits."""
        return tuple(self._free)

    def adopt(self, state: bytes | bytearray) -> None:
        """Become the pool whose blocks are in ``state``, a `BlockState` each."""
        self.state[:] = state
        free = (i for i, what in enumerate(state) if what == BlockState.FREE)
        self._free = sorted(free, reverse=True)

    def take(self, count: int) -> list[int]:
        """Make ``count`` free blocks PRIVATE. The caller has checked `num_free`."""
        if count > len(self._free):
            raise AssertionError(f"take({count}) with {len(self._free)} free blocks")
        blocks = [self._free.pop() for _ in range(count)]
        for block in blocks:
            self.state[block] = BlockState.PRIVATE
        return blocks

    def next_free(self, count: int) -> list[int]:
        """What `take` would give; fewer where there are not so many."""
        return self._free[: -count - 1 : -1]

    def publish(self, blocks: Iterable[int]) -> None:
        """PRIVATE → CACHED: the tree takes them over; their request goes on holding them."""
        for block in blocks:
            if self.state[block] != BlockState.PRIVATE:
                raise AssertionError(f"block {block} is not private, so it cannot be published")
            self.state[block] = BlockState.CACHED

    def give_back(self, blocks: Iterable[int]) -> None:
        """→ FREE: private blocks their request drops, or cached ones the tree evicts."""
        for block in blocks:
            if self.state[block] == BlockState.FREE:
                raise AssertionError(f"block {block} freed twice")
            self.state[block] = BlockState.FREE
            self._free.append(block)
