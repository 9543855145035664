"""The radix tree pane: a line a node, its first tokens as text, its id and numbers at the right.

Which nodes show is the outline's business (`outline.py`): a large tree is folded up.
"""

from ...engine.snapshot import NodeState
from ...engine.state import EngineState
from ...engine.wording import plural
from ..cells import EVICTABLE, GLYPHS, STYLES, code_for
from ..outline import Outline, OutlineRow
from ..selection import Links, Target
from ..store import Store
from ..text import Line, clip, pad
from .base import Column, View, fit_table

NUMBERS = (
    Column("node", 5, ("node", 5)),
    Column("tokens", 6, ("tok", 5)),
    Column("blocks", 6, ("blk", 4)),
    Column("refs", 4, ("refs", 4)),
    Column("hits", 4, ("hits", 4)),
    Column("age", 4, ("age", 3)),
)


class TreeView(View):
    name = "Tree"
    about = "the radix tree: which token prefixes are cached, and in how many blocks"
    sideways_does = "unfolds and folds a node"
    scale_does = "unfolds or folds the whole tree"

    def __init__(self) -> None:
        super().__init__()
        self.outline = Outline()
        self._selected: Target | None = None

    def update(self, store: Store, width: int, height: int) -> None:
        self._store, self._width = store, width
        self._table = fit_table(NUMBERS, width, 32)
        self._text = max(8, width - self._table.width)
        self._weights = store.weights
        self.outline.update(store.weights)
        if store.selected != self._selected:
            self._selected = store.selected
            self.outline.reveal(store.links.nodes)
            self.outline.update(store.weights)
        nodes = len(store.state.nodes) - 1
        self.subtitle = f"{plural(nodes, 'node')} · {plural(store.state.cached, 'block')}"
        self.header = [[(pad("prefix", self._text), "heading"), *self._table.head]]
        if not nodes:
            words = "nothing is cached yet: full blocks enter the tree as prompts are computed"
            self.header = [[(clip(words, width), "dim")]]

    # --- the rows --------------------------------------------------------------------------------

    @property
    def items(self) -> int:
        return len(self.outline.rows)

    def target(self, item: int) -> Target | None:
        if not 0 <= item < self.items or self.outline.rows[item].hidden:
            return None
        return Target("node", self.outline.rows[item].node)

    def rests(self, item: int) -> bool:
        return 0 <= item < self.items

    def find(self, anchor: object) -> int | None:
        return self.outline.row_of(anchor.id) if isinstance(anchor, Target) else None

    def first_linked(self, links: Links) -> int | None:
        found = [self.outline.row_of(node) for node in links.nodes]
        return min((row for row in found if row is not None), default=None)

    def sideways(self, item: int, by: int) -> int:
        """Right unfolds a node or goes to what is below it, left folds it or goes to its parent."""
        if not 0 <= item < self.items:
            return item
        row, outline = self.outline.rows[item], self.outline
        if row.hidden:
            if by > 0:
                self.open(item)
            return item
        unfolded = bool(self._weights.children(row.node)) and outline.is_open(row.node)
        if by > 0 and unfolded:
            return item + 1
        if by > 0 or unfolded:
            outline.fold(row.node, open=by > 0)
            return item
        above = outline.row_of(self._weights.parent(row.node))
        return item if above is None else above

    def scale(self, item: int, by: int) -> int:
        self.outline.fold_all(by)
        return item

    def open(self, item: int) -> bool:
        if not (0 <= item < self.items and self.outline.rows[item].hidden):
            return False
        self.outline.show_more(self.outline.rows[item].node)
        return True

    def line(self, i: int) -> Line:
        row = self.outline.rows[i]
        guides = _cut(row.guides, self._text // 2)
        if row.hidden:
            words = f"… {row.hidden:,} more ({plural(row.tokens, 'token')}), enter shows some"
            return [(guides, "faint"), (clip(words, self._width - len(guides)), "dim")]
        state = self._store.state
        node = state.nodes[row.node]
        code = code_for(node.refs)
        quiet = code == EVICTABLE
        style = "dim" if quiet else "text"
        same = _tokens_like_a_neighbour(state, node, row)
        below = self._folded(row)
        room = self._text - len(guides) - 3 - len(below)
        age = state.step - node.last_used
        cells = [
            (str(node.id), style),
            (f"{len(node.tokens):,}", style),
            (f"{len(node.blocks):,}", style),
            (str(node.refs), STYLES[code] if node.refs else "dim"),
            (str(node.hits), style),
            (str(age) if age else "now", style),
        ]
        return [
            (guides, "faint"),
            (GLYPHS[code] + " ", STYLES[code]),
            (pad(self._store.texts.head(node, same), room), "dim" if quiet else STYLES[code]),
            (below + " ", "accent"),
            *self._table.row(cells),
        ]

    def _folded(self, row: OutlineRow) -> str:
        """What is folded up below a row, in a word."""
        if not self._weights.children(row.node) or self.outline.is_open(row.node):
            return ""
        return f" +{self._weights.nodes[row.node] - 1:,}"


def _cut(guides: str, limit: int) -> str:
    """The inner ones of the lines that lead to a node that is deep down, two cells a level."""
    if len(guides) <= limit:
        return guides
    keep = max(2, (limit - 2) // 2 * 2)
    return "… " + guides[-keep:]


def _tokens_like_a_neighbour(state: EngineState, node: NodeState, row: OutlineRow) -> int:
    """How many tokens ``node`` begins with that the sibling above or below it begins with too.

    Siblings differ in their first block, but perhaps only at its end: what tells them apart is what
    comes after these.
    """
    most = 0
    for id in (row.before, row.after):
        if id >= 0:
            pairs = zip(node.tokens, state.nodes[id].tokens, strict=False)
            same = next((i for i, (a, b) in enumerate(pairs) if a != b), 0)
            most = max(most, same)
    return most
