"""The block map: one cell a block, wrapped at the width, and what is under the cursor."""

from ...engine.blocks import BlockState
from ..cells import EVICTABLE, FREE, GLYPHS, HELD, PRIVATE, SHARED, STYLES, CellMap
from ..selection import Links, Target, names, node_holders
from ..store import Store
from ..text import Line, clip
from .base import View

LEGEND = (
    (FREE, "free"),
    (PRIVATE, "private"),
    (HELD, "in the tree"),
    (SHARED, "shared"),
    (EVICTABLE, "evictable"),
)

MARGIN = 1  # cells left of everything


class BlocksView(View):
    """``changed``, ``linked`` and cursor cells get a ground of their own from `grounds`."""

    name = "Blocks"
    about = "every KV block of the pool, one cell each"
    sideways_does = "moves the cursor"
    gutter = 0

    def __init__(self) -> None:
        super().__init__()
        self._total = 0

    def update(self, store: Store, width: int, height: int) -> None:
        self._store = store
        cells = store.cells
        total = self._total = len(cells.codes)
        width -= MARGIN
        self._number = len(str(total - 1))
        room = width - self._number - 2
        # Far apart if they all fit like that, else close together.
        spare = height - len(_legend(cells, width)) - 4
        self.pitch = 2 if -(-total // _across(room // 2)) <= spare else 1
        self.per_line = _across(room // self.pitch)
        around: Line = [(" " * MARGIN, "text")]
        self.header = [*([*around, *line] for line in _legend(cells, width)), []]
        described = self._describe(min(self.cursor, total - 1), width)
        self.footer = [[], *([*around, *line] for line in described)]
        self.subtitle = f"{total} blocks of {store.config.block_size} tokens"

    @property
    def items(self) -> int:
        return self._total

    def target(self, item: int) -> Target | None:
        return Target("block", item) if 0 <= item < self.items else None

    def first_linked(self, links: Links) -> int | None:
        return min(links.blocks, default=None)

    def item_at(self, body_line: int, x: int) -> int:
        column = (x - MARGIN - self._number - 2) // self.pitch
        if not 0 <= column < self.per_line:
            return -1
        return body_line * self.per_line + column

    def line(self, i: int) -> Line:
        return [(text, style) for text, style, _ in self.grounds(i, -1)]

    def grounds(self, i: int, cursor: int) -> list[tuple[str, str, str]]:
        """Body line ``i`` as (text, style, ground), runs of equal cells merged."""
        store = self._store
        first = i * self.per_line
        codes = store.cells.codes[first : first + self.per_line]
        changed, linked = store.cells.changed, store.links.blocks
        gap = " " * (self.pitch - 1)
        runs: list[tuple[str, str, str]] = [(f"{first:>{MARGIN + self._number}}  ", "faint", "")]
        text, now, ground = "", -1, ""
        for block, code in enumerate(codes, first):
            back = ""
            if block == cursor:
                back = "cell"
            elif block in linked:
                back = "lit"
            elif block in changed:
                back = "changed"
            if code == now and back == ground:
                text += GLYPHS[code] + gap if not back else GLYPHS[code]
            else:
                if text:
                    runs.append((text, STYLES[now], ground))
                text, now, ground = GLYPHS[code] + ("" if back else gap), code, back
            if back and gap:
                runs.append((text, STYLES[now], ground))
                runs.append((gap, "text", ""))
                text, now = "", -1
        if text:
            runs.append((text, STYLES[now], ground))
        return runs

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
    around = len(_legend(cells, width)) + 4
    apart = around + -(-total // _across(room // 2))
    return apart if apart <= limit else around + -(-total // _across(room))


def _across(room: int) -> int:
    """Cells in a row: a multiple of eight, so that one can count along."""
    return room // 8 * 8 if room >= 8 else max(1, room)


def _legend(cells: CellMap, width: int) -> list[Line]:
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
        lines[-1] += [(glyph, STYLES[code]), (f" {word} ", "dim"), (f"{count:,}   ", "text")]
    return lines
