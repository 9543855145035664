"""The block map's data: one code a block, kept up to date from the records instead of recounted.

`EngineState` says what each block is; here that becomes the code of a glyph, with exact counts and
the blocks that changed since the last step began. Drawing is up to `views/blocks.py`.
"""

from ..engine import events as ev
from ..engine.blocks import BlockState
from ..engine.state import EngineState

FREE, PRIVATE, EVICTABLE, HELD, SHARED = range(5)  # SHARED + n - 2: held by n; the last: by 10 up
MOST = SHARED + 8
GLYPHS = "·▪□■23456789+"
STYLES = ("free", "private", "evictable", "held") + ("shared",) * 9


def code_for(refs: int) -> int:
    """The code of a block in the tree that ``refs`` requests hold."""
    if refs < 2:
        return HELD if refs else EVICTABLE
    return min(SHARED + refs - 2, MOST)


class CellMap:
    """``codes[block]`` indexes `GLYPHS` and `STYLES`; ``counts[code]`` counts blocks."""

    def __init__(self, num_blocks: int) -> None:
        self.codes = bytearray(num_blocks)
        self.counts = [0] * len(GLYPHS)
        self.counts[FREE] = num_blocks
        self.changed: set[int] = set()

    @property
    def used(self) -> int:
        """Blocks that a live request holds."""
        return len(self.codes) - self.counts[FREE] - self.counts[EVICTABLE]

    @property
    def shared(self) -> int:
        return sum(self.counts[SHARED:])

    def apply(self, state: EngineState, record: ev.StepRecord) -> None:
        """Take ``record`` into ``state`` and follow with the cells it touches."""
        moved: set[int] = set()  # blocks that changed hands
        counted: set[int] = set()  # blocks whose number of holders may have changed
        for event in record.events:
            if isinstance(event, ev.StepBegan):
                self.changed = set()
            elif isinstance(event, ev.Allocated | ev.Inserted | ev.Extended | ev.Evicted):
                moved.update(event.blocks)
            elif isinstance(event, ev.Admitted):
                counted.update(event.blocks)
            elif isinstance(event, ev.Released):
                moved.update(event.freed)
                request = state.requests.get(event.req)
                counted.update(request.block_table if request else ())
        state.apply(record)
        self._follow(state, moved, counted)

    def _follow(self, state: EngineState, moved: set[int], counted: set[int]) -> None:
        for block in moved | counted:
            code = self._code(state, block)
            before = self.codes[block]
            if code != before:
                self.codes[block] = code
                self.counts[before] -= 1
                self.counts[code] += 1
                self.changed.add(block)
        self.changed |= moved

    def _code(self, state: EngineState, block: int) -> int:
        kind = state.block_state[block]
        if kind == BlockState.CACHED:
            return code_for(state.nodes[state.block_owner[block]].refs)
        return PRIVATE if kind == BlockState.PRIVATE else FREE
