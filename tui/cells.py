"""The block map's data: one code a block, kept up to date from the records instead of recounted.

`EngineState` says what each block is; here that becomes the code of a glyph, with exact counts and
the blocks that changed since the last step began. Drawing is up to `views/blocks.py`.
"""

from collections.abc import Sequence

from ..engine import events as ev
from ..engine.blocks import BlockState
from ..engine.state import EngineState
from .zoom import Zoomed

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
        self._zoomed: dict[tuple[int, int | None], Zoomed] = {}

    def zoomed(self, size: int, state: int | None = None) -> Zoomed:
        """The map with ``size`` blocks a cell; ``state`` is picked out. The one asked for last is
        kept up to date."""
        found = self._zoomed.get((size, state))
        if found is None:
            found = Zoomed(self.codes, size, state)
            self._zoomed = {(size, state): found}
        found.refresh()
        return found

    @property
    def used(self) -> int:
        """Blocks that a live request holds."""
        return len(self.codes) - self.counts[FREE] - self.counts[EVICTABLE]

    @property
    def shared(self) -> int:
        return sum(self.counts[SHARED:])

    @classmethod
    def of(cls, state: EngineState) -> "CellMap":
        """The map of a state that was not followed from its beginning; nothing in it is new."""
        cells = cls(state.config.num_blocks)
        codes = cells.codes
        codes[:] = state.block_state.translate(_UNHELD)
        for node in state.nodes.values():
            code = code_for(node.refs)
            for block in node.blocks:
                codes[block] = code
        cells.counts = [codes.count(code) for code in range(len(GLYPHS))]
        return cells

    def apply(self, state: EngineState, record: ev.StepRecord) -> None:
        """Take ``record`` into ``state`` and follow with the cells it touches."""
        moved, counted = self._touched(state, record.events)
        state.apply(record)
        self._follow(state, moved, counted)

    def apply_part(self, state: EngineState, record: ev.StepRecord, events: int) -> None:
        """The same with the first ``events`` of the record only. Nothing more of it may follow."""
        moved, counted = self._touched(state, record.events[:events])
        for taken, _ in enumerate(state.unfold(record), 1):
            if taken == events:
                break
        self._follow(state, moved, counted)

    def _touched(
        self, state: EngineState, events: Sequence[ev.AnyEvent]
    ) -> tuple[set[int], set[int]]:
        """The blocks that ``events``, about to happen, move; and those whose holders they may
        change in number."""
        moved: set[int] = set()
        counted: set[int] = set()
        for event in events:
            if isinstance(event, ev.StepBegan):
                self.changed = set()
            elif isinstance(event, _MOVES):
                moved.update(event.blocks)
            elif isinstance(event, ev.Admitted):
                counted.update(event.blocks)
            elif isinstance(event, ev.Released):
                moved.update(event.freed)
                request = state.requests.get(event.req)
                counted.update(request.block_table if request else ())
        return moved, counted

    def _follow(self, state: EngineState, moved: set[int], counted: set[int]) -> None:
        fresh: list[int] = []
        for block in moved | counted:
            code = self._code(state, block)
            before = self.codes[block]
            if code != before:
                self.codes[block] = code
                self.counts[before] -= 1
                self.counts[code] += 1
                fresh.append(block)
        self.changed.update(moved, fresh)
        for zoomed in self._zoomed.values():
            zoomed.touch(fresh)

    def _code(self, state: EngineState, block: int) -> int:
        kind = state.block_state[block]
        if kind == BlockState.CACHED:
            return code_for(state.nodes[state.block_owner[block]].refs)
        return PRIVATE if kind == BlockState.PRIVATE else FREE


_MOVES = (ev.Allocated, ev.Inserted, ev.Extended, ev.Evicted)  # blocks from one state to another
_UNHELD = bytes.maketrans(
    bytes((BlockState.FREE, BlockState.PRIVATE, BlockState.CACHED)),
    bytes((FREE, PRIVATE, EVICTABLE)),
)
