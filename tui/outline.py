"""Which nodes of the radix tree show, and in which order: the tree folded up to what matters.

What is heavy is unfolded to begin with; the user unfolds and folds the rest. Of many children the
heaviest show, and a line says how many more there are.
"""

from collections.abc import Collection
from typing import NamedTuple

from ..engine.state import ROOT
from .weights import Weights

CHILDREN = 20  # shown of a node, to begin with …
MORE = 100  # … and this many more each time they are asked for
SMALL = 200  # nodes: a tree no larger is unfolded whole
HEAVY = 50  # a node with one in so many tokens of the tree is unfolded
ROWS = 1000  # at most; what comes after stays folded
REVEALED = 64  # nodes that are unfolded to, at most

FOLDED, BY_WEIGHT, UNFOLDED = -1, 0, 1


class OutlineRow(NamedTuple):
    """A node; or with ``hidden``, the line for that many children of ``node`` that do not show.

    ``guides`` are the lines that lead to it. ``before`` and ``after`` are the siblings above and
    below it, -1 where there is none.
    """

    node: int
    guides: str
    before: int = -1
    after: int = -1
    hidden: int = 0
    tokens: int = 0  # of what is hidden


class Outline:
    """The rows for a tree, and what of it is folded."""

    def __init__(self) -> None:
        self.rows: list[OutlineRow] = []
        self._mode = BY_WEIGHT
        self._choices: dict[int, bool] = {}
        self._limits: dict[int, int] = {}
        self._revealed: frozenset[int] = frozenset()
        self._weights: Weights | None = None
        self._made_of = (-1, -1)
        self._edits = 0
        self._where: dict[int, int] = {}

    def update(self, weights: Weights) -> None:
        """Make the rows anew, if the tree or its folding has changed."""
        made_of = (weights.version, self._edits)
        if weights is not self._weights or made_of != self._made_of:
            self._made_of = made_of
            self._weights = weights
            self.rows = self._lay_out(weights)
            self._where = {row.node: i for i, row in enumerate(self.rows) if not row.hidden}

    def row_of(self, node: int) -> int | None:
        return self._where.get(node)

    def is_open(self, node: int) -> bool:
        """Its children show, as far as it has any."""
        chosen = self._choices.get(node)
        if chosen is not None or self._mode != BY_WEIGHT:
            return self._mode == UNFOLDED if chosen is None else chosen
        weights = self._weights
        assert weights is not None
        small = weights.nodes[ROOT] <= SMALL
        return small or weights.tokens[node] * HEAVY >= weights.tokens[ROOT]

    # --- folding ---------------------------------------------------------------------------------

    def fold(self, node: int, open: bool) -> None:
        self._choices[node] = open
        self._edits += 1

    def fold_all(self, by: int) -> None:
        """From all folded over what is heavy to all unfolded (``by`` = 1), or back (-1)."""
        self._mode = max(FOLDED, min(UNFOLDED, self._mode + by))
        self._choices, self._limits = {}, {}
        self._edits += 1

    def show_more(self, node: int) -> None:
        """More of its children."""
        self._limits[node] = self._limits.get(node, CHILDREN) + MORE
        self._edits += 1

    def reveal(self, nodes: Collection[int]) -> None:
        """Unfold what is above ``nodes``, and show them among however many siblings."""
        some = frozenset(sorted(nodes)[:REVEALED])
        if some == self._revealed:
            return
        self._revealed = some
        for node in some:
            for above in self._weights.above(node) if self._weights else ():
                self._choices[above] = True
        self._edits += 1

    # --- laying out ------------------------------------------------------------------------------

    def _lay_out(self, weights: Weights) -> list[OutlineRow]:
        rows: list[OutlineRow] = []
        stack = self._below(weights, ROOT, "", "")[::-1]
        while stack:
            row, lead = stack.pop()
            rows.append(row)
            if row.hidden or len(rows) + len(stack) > ROWS or not self.is_open(row.node):
                continue
            stack += self._below(weights, row.node, lead, "├╴")[::-1]
        return rows

    def _below(
        self, weights: Weights, parent: int, lead: str, branch: str
    ) -> list[tuple[OutlineRow, str]]:
        """The rows of ``parent``'s children, each with what leads to its own children."""
        count = weights.children(parent)
        limit = self._limits.get(parent, CHILDREN)
        shown = weights.heaviest(parent, limit)
        if count > len(shown):
            asked = self._revealed.difference(shown)
            shown += sorted(node for node in asked if weights.parent(node) == parent)
        shown = [node for node in shown if node in weights.tokens]
        hidden = count - len(shown)
        found: list[tuple[OutlineRow, str]] = []
        for i, node in enumerate(shown):
            last = i == len(shown) - 1 and not hidden
            guides = lead + (branch and ("└╴" if last else "├╴"))
            below = lead + (branch and ("  " if last else "│ "))
            before = shown[i - 1] if i else -1
            after = shown[i + 1] if i + 1 < len(shown) else -1
            found.append((OutlineRow(node, guides, before, after), below))
        if hidden > 0:
            rest = sum(weights.tokens[node] for node in shown)
            tokens = weights.below(parent) - rest
            found.append((OutlineRow(parent, lead + (branch and "└╴"), -1, -1, hidden, tokens), ""))
        return found
