"""Lints on what the KV cache keeps: evicted too early, kept in vain, wasted at the ends."""

from collections import deque
from typing import ClassVar
from zlib import crc32

import msgspec

from .. import events as ev
from ..state import ROOT, EngineState
from ..wording import plural
from .base import Hears, Lint, percent

EVICTED_KEPT = 65_536  # evicted blocks whose content is remembered, by hash

WASTE_EVERY = 4  # steps between two looks
WASTE_LOOKS = 8  # looks in a row, so 32 steps
WASTE_SHARE = 0.15  # of the held slots
WASTE_HELD = 0.5  # of the pool: while there is plenty, waste costs nobody anything

NEVER_EVICTED = 64  # blocks evicted for capacity between two verdicts
NEVER_SHARE = 0.8  # of them without a hit
NEVER_EVERY = 128  # steps between two looks at what is cached
NEVER_AGE = 256  # steps since a node was last touched
NEVER_CACHED = 0.5  # share of the pool


class _Again(msgspec.Struct):
    """What a request had to compute again."""

    tokens: int = 0
    soonest: int = 0  # steps since the eviction


class EvictedThenRecomputed(Lint):
    """A prefix that was evicted for capacity and computed again later.

    Content is known by a chain of hashes, one a block, each over the block's tokens and the hash
    before it; so equal hashes mean equal prefixes. `Evicted` carries no tokens and the picture has
    forgotten them by then, so the hashes of each node are kept here; they follow `Inserted`,
    `Extended`, `Split` and `Evicted`. A node that came before this lint listened has none.
    """

    name = "evicted-then-recomputed"

    def __init__(self) -> None:
        super().__init__()
        self._chains: dict[int, list[int]] = {}  # node → hash of each block's prefix
        self._gone: dict[int, int] = {}  # hash → step of eviction, the oldest first
        self._again: dict[int, _Again] = {}  # by request
        self._found: dict[int, list[int]] = {}  # request → steps of eviction of what it computes

    def summary(self, count: int) -> str:
        return f"{plural(count, 'request')} computed again what had been evicted for capacity"

    def _inserted(self, e: ev.Inserted, state: EngineState) -> None:
        if e.parent == ROOT:
            self._chains[e.node] = []
            self._enter(e, _namespace(e.salt), state)
        elif e.parent in self._chains:
            self._chains[e.node] = []
            self._enter(e, self._chains[e.parent][-1], state)

    def _extended(self, e: ev.Extended, state: EngineState) -> None:
        if e.node in self._chains:
            self._enter(e, self._chains[e.node][-1], state)

    def _enter(self, e: ev.Inserted | ev.Extended, before: int, state: EngineState) -> None:
        size = state.config.block_size
        chain = self._chains[e.node]
        for at in range(0, len(e.tokens), size):
            before = hash((before, *e.tokens[at : at + size]))
            chain.append(before)
            if before in self._gone:
                self._found.setdefault(e.req, []).append(self._gone.pop(before))

    def _begin(self, e: ev.StepBegan, state: EngineState) -> None:
        self._found.clear()

    def _scheduled(self, e: ev.Scheduled, state: EngineState) -> None:
        """It was a prefill; what a decode generates again, no cache would have spared."""
        if found := self._found.pop(e.req, None):
            tokens = len(found) * state.config.block_size
            self._warn(e.req, tokens, state.step - max(found), state)

    def _warn(self, req: int, tokens: int, age: int, state: EngineState) -> None:
        again = self._again.setdefault(req, _Again(0, age))
        again.tokens += tokens
        again.soonest = min(again.soonest, age)
        self.warn(
            f"request {req}",
            f"request {req} computed {plural(again.tokens, 'token')} again that had been evicted "
            f"for capacity, as little as {plural(again.soonest, 'step')} before: raise "
            f"--num-blocks (now {state.config.num_blocks}), or try another --eviction-policy or "
            "--schedule-policy",
            state.step,
            req,
        )

    def _split(self, e: ev.Split, state: EngineState) -> None:
        chain = self._chains.get(e.node)
        if chain is not None:
            cut = e.tokens // state.config.block_size
            self._chains[e.upper], self._chains[e.node] = chain[:cut], chain[cut:]

    def _evicted(self, e: ev.Evicted, state: EngineState) -> None:
        chain = self._chains.get(e.node)
        if chain is None:
            return
        keep = len(chain) - len(e.blocks)
        if e.why == "capacity":
            for block in reversed(chain[keep:]):  # tails first: heads are worth remembering longer
                self._gone.pop(block, None)
                self._gone[block] = state.step
            while len(self._gone) > EVICTED_KEPT:
                del self._gone[next(iter(self._gone))]
        del chain[keep:]
        if not chain:
            del self._chains[e.node]

    def _finished(self, e: ev.Finished, state: EngineState) -> None:
        self._again.pop(e.req, None)

    hears: ClassVar[Hears] = {
        ev.StepBegan: _begin,
        ev.Scheduled: _scheduled,
        ev.Inserted: _inserted,
        ev.Extended: _extended,
        ev.Split: _split,
        ev.Evicted: _evicted,
        ev.Finished: _finished,
    }


class TailWaste(Lint):
    """Blocks so large that the empty ends of last blocks take a good part of what is held."""

    name = "tail-waste"

    def __init__(self) -> None:
        super().__init__()
        self._looks: deque[tuple[int, int]] = deque(maxlen=WASTE_LOOKS)  # empty, held slots

    def summary(self, count: int) -> str:
        return f"over {WASTE_SHARE:.0%} of the held KV slots are empty ends of blocks"

    def close(self, record: ev.StepRecord, state: EngineState) -> None:
        if not record.timings or record.step % WASTE_EVERY:
            return
        size, blocks = state.config.block_size, state.config.num_blocks
        held = blocks - state.free - state.evictable
        if held < WASTE_HELD * blocks:
            self._looks.clear()
            return
        self._looks.append((state.stats.tail_slots, held * size))
        empty, slots = (sum(column) for column in zip(*self._looks, strict=True))
        if len(self._looks) < WASTE_LOOKS or empty < WASTE_SHARE * slots:
            return
        self._looks.clear()
        better = size
        while better > 1 and empty * better > WASTE_SHARE / 2 * slots * size:
            better //= 2  # waste is about half a block for each request
        self.warn(
            "engine",
            f"over the last {WASTE_EVERY * WASTE_LOOKS} steps {percent(empty, slots)} of the held "
            f"KV slots ({empty // WASTE_LOOKS} of {slots // WASTE_LOOKS}) were empty ends of "
            f"blocks of {plural(size, 'token')}: try --block-size {better}",
            record.step,
        )


class NeverReused(Lint):
    """Cached blocks that nobody ever asked for: evicted without a hit, or old without one."""

    name = "never-reused"

    def __init__(self) -> None:
        super().__init__()
        self._paid: set[int] = set()  # blocks now in the tree that an admission found there
        self._evicted_blocks = 0
        self._evicted_unpaid = 0

    def summary(self, count: int) -> str:
        return "most of what the prefix cache keeps is never asked for again"

    def _admitted(self, e: ev.Admitted, state: EngineState) -> None:
        self._paid.update(e.blocks)

    def _evicted(self, e: ev.Evicted, state: EngineState) -> None:
        paid = len(self._paid.intersection(e.blocks))
        self._paid.difference_update(e.blocks)
        if e.why != "capacity":
            return
        self._evicted_blocks += len(e.blocks)
        self._evicted_unpaid += len(e.blocks) - paid
        if self._evicted_blocks < NEVER_EVICTED:
            return
        blocks, unpaid = self._evicted_blocks, self._evicted_unpaid
        self._evicted_blocks = self._evicted_unpaid = 0
        if unpaid >= NEVER_SHARE * blocks:
            self.warn(
                "evicted blocks",
                f"{unpaid} of the last {blocks} evicted blocks ({percent(unpaid, blocks)}) never "
                "had a hit: prompts share little, or the cache is too small to hold them until "
                "they are asked for again; put what prompts share first, raise --num-blocks, or "
                "try another --eviction-policy",
                state.step,
            )

    def close(self, record: ev.StepRecord, state: EngineState) -> None:
        if not record.timings or record.step % NEVER_EVERY:
            return
        born = record.step - NEVER_AGE
        old = sum(
            len(node.blocks)
            for node in state.nodes.values()
            if node.hits == 0 and node.refs == 0 and node.last_used <= born
        )
        pool = state.config.num_blocks
        if old >= NEVER_CACHED * pool:
            self.warn(
                "cached blocks",
                f"{old} of {pool} blocks ({percent(old, pool)}) hold prefixes that have had no hit "
                f"and no holder for {NEVER_AGE} steps: a smaller --num-blocks would do for this "
                "load",
                record.step,
            )

    hears: ClassVar[Hears] = {ev.Admitted: _admitted, ev.Evicted: _evicted}


def _namespace(salt: str) -> int:
    """Where the chain of a root's child begins: prefixes of different salts are never the same.
    (``hash`` of a text differs from process to process.)"""
    return crc32(salt.encode())
