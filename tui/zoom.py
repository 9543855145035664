"""The block map from farther away: several blocks a cell, worked out for the cells that changed.

A cell says which state most of its blocks are in, and how many of them are in use. With a state
picked out it says instead where there is any block in that state, and how many.
"""

from collections.abc import Iterable

SIZES = (1, 2, 8, 32, 128)  # blocks a cell
SHADES = 3  # a cell's: none, few, many, (nearly) all

_FREE, _SHARED = 0, 4  # codes of `cells.py`: the states are the codes up to that of shared blocks
STATE_OF = bytes(min(code, _SHARED) for code in range(256))


class Zoomed:
    """``codes[cell]`` is as in `CellMap`, ``shades[cell]`` from 0 to `SHADES`; ``lit[cell]`` is
    false where no block is in the state that is picked out."""

    def __init__(self, blocks: bytearray, size: int, state: int | None) -> None:
        self._blocks = blocks
        self._size = size
        self._state = state
        cells = -(-len(blocks) // size)
        self.codes = bytearray(cells)
        self.shades = bytearray(cells)
        self.lit = bytearray(cells)
        self._stale: set[int] = set(range(cells))

    def touch(self, blocks: Iterable[int]) -> None:
        """These blocks have a new code."""
        size = self._size
        self._stale.update(block // size for block in blocks)

    def refresh(self) -> None:
        """Work out the cells that were touched."""
        size, wanted = self._size, self._state
        for cell in self._stale:
            part = self._blocks[cell * size : (cell + 1) * size]
            states = part.translate(STATE_OF)
            if wanted is None:
                code = part[0]
                if part.count(code) < len(part):
                    code = max(set(part), key=lambda code: (part.count(code), code))
                some = len(part) - states.count(_FREE)
                self.lit[cell] = True
            else:
                some = states.count(wanted)
                code = wanted if some else max(set(states), key=states.count)
                self.lit[cell] = bool(some)
            self.codes[cell] = code
            self.shades[cell] = -(-SHADES * some // len(part))
        self._stale.clear()
