"""The block map: a cell a block or several, wrapped at the width, and what is under the cursor."""

from itertools import groupby
from operator import itemgetter

from ...engine.blocks import BlockState
from ...engine.wording import plural
from ..cells import EVICTABLE, FREE, GLYPHS, HELD, PRIVATE, SHARED, STYLES, CellMap
from ..selection import Links, Target, names, node_holders
from ..store import Store
from ..text import Line, clip
from ..zoom import SIZES, STATE_OF
from .base import View

LEGEND = (
    (FREE, "free"),
    (PRIVATE, "private"),
    (HELD, "in the tree"),
    (SHARED, "shared"),
    (EVICTABLE, "evictable"),
)

_SHADES = ("", "shade1", "shade2", "shade3")
_LOOK = itemgetter(1, 2)
MARGIN = 1  # cells left of everything
FULL = 4096  # cells; with more blocks than that, one looks from farther away to begin with


class BlocksView(View):
    """``changed``, ``linked`` and cursor cells get a ground of their own from `grounds`."""

    name = "Blocks"
    about = "every KV block of the pool, one cell each"
    gutter = 0
    sideways_does = "moves the cursor"
    scale_does = "fewer or more blocks in a cell"

    def __init__(self) -> None:
        super().__init__()
        self._total = 0
        self._level = -1
        self._state: int | None = None  # the one that is picked out

    @property
    def size(self) -> int:
        """Blocks a cell."""
        return SIZES[max(0, self._level)]

    def update(self, store: Store, width: int, height: int) -> None:
        self._store = store
        cells = store.cells
        self._total = len(cells.codes)
        if self._level < 0:
            self._level = next((i for i, n in enumerate(SIZES) if self._total <= n * FULL), 4)
        size, total = self.size, self.items
        width -= MARGIN
        self._number = len(str(self._total - 1))
        room = width - self._number - 2
        legend = _legend(cells, width, self._state)
        # Far apart if they all fit like that, else close together.
        spare = height - len(legend) - 4
        self.pitch = 2 if size == 1 and -(-total // _across(room // 2)) <= spare else 1
        self.per_line = _across(room // self.pitch)
        around: Line = [(" " * MARGIN, "text")]
        self.header = [*([*around, *line] for line in legend), []]
        cursor = min(self.cursor, total - 1)
        described = self._describe(cursor, width) if size == 1 else self._sum_up(cursor, width)
        self.footer = [[], *([*around, *line] for line in described)]
        each = f" · {size} a cell" if size > 1 else ""
        self.subtitle = f"{self._total:,} blocks of {store.config.block_size} tokens{each}"
        self._changed = cells.changed
        self._linked = store.links.blocks
        self._codes, self._lit, self._shades = cells.codes, b"", b""
        if size > 1:
            zoomed = cells.zoomed(size, self._state)
            self._codes, self._lit, self._shades = zoomed.codes, zoomed.lit, zoomed.shades
            self._changed = {block // size for block in cells.changed}
            self._linked = frozenset(block // size for block in self._linked)

    @property
    def items(self) -> int:
        return -(-self._total // self.size)

    def target(self, item: int) -> Target | None:
        return Target("block", item * self.size) if 0 <= item < self.items else None

    def find(self, anchor: object) -> int | None:
        return anchor.id // self.size if isinstance(anchor, Target) else None

    def first_linked(self, links: Links) -> int | None:
        return min(links.blocks) // self.size if links.blocks else None

    def item_at(self, body_line: int, x: int) -> int:
        column = (x - MARGIN - self._number - 2) // self.pitch
        if not 0 <= column < self.per_line:
            return -1
        return body_line * self.per_line + column

    def scale(self, item: int, by: int) -> int:
        block = item * self.size
        self._level = max(0, min(len(SIZES) - 1, self._level - by))
        return block // self.size

    def pick_out(self) -> None:
        """Let one state stand out, with each call the next one, and after the last all again."""
        states = [None, *(state for state, _ in LEGEND)]
        self._state = states[(states.index(self._state) + 1) % len(states)]

    def line(self, i: int) -> Line:
        return [(text, style) for text, style, _ in self.grounds(i, -1)]

    def grounds(self, i: int, cursor: int) -> list[tuple[str, str, str]]:
        """Body line ``i`` as (text, style, ground), runs of equal cells merged."""
        first = i * self.per_line
        gap = " " * (self.pitch - 1)
        number = first * self.size
        runs: list[tuple[str, str, str]] = [(f"{number:>{MARGIN + self._number}}  ", "faint", "")]
        codes = self._codes[first : first + self.per_line]
        cells = range(first, first + len(codes))
        glyphs = [GLYPHS[code] for code in codes]
        looks = zip(glyphs, self._styles(cells, codes), self._backs(cells, cursor), strict=True)
        for (style, back), same in groupby(looks, _LOOK):
            texts = [glyph for glyph, _, _ in same]
            if back and gap:  # the ground is the cell's alone
                for text in texts:
                    runs += [(text, style, back), (gap, "text", "")]
            else:
                runs.append((gap.join(texts) + gap, style, back))
        return runs

    def _styles(self, cells: range, codes: bytes | bytearray) -> list[str]:
        """What each cell is drawn in: faint where another state is picked out."""
        if self._lit:
            out = self._lit[cells.start : cells.stop]
        elif self._state is None:
            return [STYLES[code] for code in codes]
        else:
            out = [STATE_OF[code] == self._state for code in codes]
        return [STYLES[code] if on else "faint" for code, on in zip(codes, out, strict=True)]

    def _backs(self, cells: range, cursor: int) -> list[str]:
        """The ground of each cell."""
        linked, changed = self._linked, self._changed
        shades = self._shades[cells.start : cells.stop] or bytes(len(cells))
        return [
            "cell" if cell == cursor
            else "lit" if cell in linked
            else "changed" if cell in changed
            else _SHADES[shade]
            for cell, shade in zip(cells, shades, strict=True)
        ]  # fmt: skip

    def _sum_up(self, cell: int, width: int) -> list[Line]:
        """Two lines on the blocks of ``cell``: how many are what."""
        first = cell * self.size
        codes = self._store.cells.codes[first : first + self.size]
        states = codes.translate(STATE_OF)
        line: Line = [(f"blocks {first}–{first + len(codes) - 1}: ", "strong")]
        for state, word in LEGEND:
            if count := states.count(state):
                glyph = "2–9+" if state == SHARED else GLYPHS[state]
                line += [(glyph, STYLES[state]), (f" {word} {count}   ", "text")]
        closer = f"a cell shows what most of its {plural(self.size, 'block')} are; + looks closer"
        return [line, [(clip(closer, width), "dim")]]

    def _describe(self, block: int, width: int) -> list[Line]:
        """Two lines on ``block``: what it is and who holds it, and the tokens in it."""
        state, size = self._store.state, self._store.config.block_size
        code = self._store.cells.codes[block]
        lead: Line = [(f"block {block} ", "strong"), (GLYPHS[code], STYLES[code])]
        kind, owner = state.block_state[block], state.block_owner[block]
        if kind == BlockState.FREE:
            return [[*lead, (" free", "dim")], []]
        if kind == BlockState.PRIVATE:
            request = state.requests[owner]
            at = request.block_table.index(block) * size
            tokens = request.tokens[at : min(at + size, request.computed)]
            what = f" private to #{owner}, {len(tokens)} of {size} slots filled"
        else:
            node = state.nodes[owner]
            offset = node.blocks.index(block) * size
            at, tokens = node.start + offset, node.tokens[offset : offset + size]
            what = f" node {owner}, held by {names(node_holders(state, node))}"
            if code == EVICTABLE:
                what += ": evictable"
        what += f" · positions {at}–{at + max(0, len(tokens) - 1)}"
        text = f"“{self._store.texts.run(tokens)}”"
        used = sum(len(part) for part, _ in lead)
        return [[*lead, (clip(what, width - used), "text")], [(clip(text, width), "dim")]]


def lines_wanted(cells: CellMap, width: int, limit: int) -> int:
    """Lines the whole map takes at ``width``; cells are set apart if that fits ``limit``."""
    total = len(cells.codes)
    width -= MARGIN
    room = width - len(str(total - 1)) - 2
    around = len(_legend(cells, width, None)) + 4
    apart = around + -(-total // _across(room // 2))
    return apart if apart <= limit else around + -(-total // _across(room))


def _across(room: int) -> int:
    """Cells in a row: a multiple of eight, so that one can count along."""
    return room // 8 * 8 if room >= 8 else max(1, room)


def _legend(cells: CellMap, width: int, picked: int | None) -> list[Line]:
    """Every state with its glyph and exact count, on as many lines as it takes."""
    lines: list[Line] = [[]]
    used = 0
    for code, word in LEGEND:
        glyph, count = GLYPHS[code], cells.counts[code]
        if code == SHARED:
            glyph, count = "2–9+", cells.shared
        length = len(f"{glyph} {word} {count:,}   ")
        if used and used + length - 3 > width:
            lines.append([])
            used = 0
        used += length
        if picked is None:
            lines[-1] += [(glyph, STYLES[code]), (f" {word} ", "dim"), (f"{count:,}   ", "text")]
        else:
            style = "strong" if code == picked else "faint"
            lines[-1] += [(glyph, STYLES[code] if code == picked else "faint")]
            lines[-1] += [(f" {word} ", style), (f"{count:,}   ", style)]
    return lines
