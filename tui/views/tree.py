"""The radix tree pane: a line a node, its first tokens as text, its id and numbers at the right."""

from ...engine.state import ROOT, EngineState, NodeState
from ..cells import EVICTABLE, GLYPHS, STYLES, code_for
from ..selection import Target
from ..store import Store
from ..text import Line, pad, plural
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

    def __init__(self) -> None:
        super().__init__()
        self._keys: list[int] = []

    def update(self, store: Store, width: int, height: int) -> None:
        self._store, self._width = store, width
        self._table = fit_table(NUMBERS, width, 32)
        self._text = max(8, width - self._table.width)
        self._keys = store.order
        blocks = store.config.num_blocks - store.cells.counts[0] - store.cells.counts[1]
        self.subtitle = f"{plural(len(self._keys), 'node')} · {plural(blocks, 'block')}"
        self.header = [[(pad("prefix", self._text), "heading"), *self._table.head]]
        if not self._keys:
            self.header = []

    @property
    def items(self) -> int:
        return len(self._keys)

    def target(self, item: int) -> Target | None:
        return Target("node", self._keys[item]) if 0 <= item < len(self._keys) else None

    def line(self, i: int) -> Line:
        store = self._store
        state = store.state
        node = state.nodes[self._keys[i]]
        code = code_for(node.refs)
        quiet = code == EVICTABLE
        style = "dim" if quiet else "text"
        same = _tokens_like_a_neighbour(state, node)
        guides = _guides(state, node, self._text // 2)
        room = self._text - len(guides) - 3
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
            (pad(store.texts.head(node, same), room) + " ", "dim" if quiet else STYLES[code]),
            *self._table.row(cells),
        ]


def _tokens_like_a_neighbour(state: EngineState, node: NodeState) -> int:
    """How many tokens ``node`` begins with that the sibling above or below it begins with too.

    Siblings differ in their first block, but perhaps only at its end: what tells them apart is what
    comes after these.
    """
    siblings = state.nodes[node.parent].children
    at = siblings.index(node.id)
    most = 0
    for other in (*siblings[max(0, at - 1) : at], *siblings[at + 1 : at + 2]):
        pairs = zip(node.tokens, state.nodes[other].tokens, strict=False)
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), 0)
        most = max(most, same)
    return most


def _guides(state: EngineState, node: NodeState, limit: int) -> str:
    """The lines that lead to ``node``: two cells a level, the outer ones cut where it is deep.

    The root holds no tokens and is not drawn, so its children need no line to lead to them.
    """
    parts: list[str] = []
    parent = state.nodes[node.parent]
    if parent.id == ROOT:
        return ""
    parts.append("└╴" if parent.children[-1] == node.id else "├╴")
    while len(parts) * 2 < limit:
        above = state.nodes[parent.parent]
        if above.id == ROOT:
            return "".join(reversed(parts))
        parts.append("  " if above.children[-1] == parent.id else "│ ")
        parent = above
    parts[-1] = "… "
    return "".join(reversed(parts))
