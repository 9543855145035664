"""How much of the radix tree hangs below each node, kept up to date from the records.

Children are kept by weight in powers of two, so that the heaviest of ten thousand are found without
looking at the others, and so that a leaf that grows does not change places with every block.
"""

from collections.abc import Iterable, Iterator
from heapq import nsmallest
from itertools import islice

from ..engine import events as ev
from ..engine.state import ROOT, EngineState


class Weights:
    """``tokens[node]`` and ``nodes[node]`` count a node and all below it, in ``state``'s tree.

    ``version`` grows whenever nodes come, go or change places.
    """

    def __init__(self, state: EngineState) -> None:
        self.version = 0
        self.tokens: dict[int, int] = {ROOT: 0}
        self.nodes: dict[int, int] = {ROOT: 0}
        self._own: dict[int, int] = {ROOT: 0}
        self._size = state.config.block_size
        self._parents: dict[int, int] = {}
        self._children: dict[int, dict[int, set[int]]] = {}  # parent → bits of weight → children
        order = [ROOT]
        for id in order:
            order += state.nodes[id].children
        for id in reversed(order):  # what is below comes first
            node = state.nodes[id]
            self._own[id] = len(node.tokens)
            self.tokens[id] = len(node.tokens) + sum(self.tokens[c] for c in node.children)
            self.nodes[id] = (id != ROOT) + sum(self.nodes[c] for c in node.children)
            for child in node.children:
                self._parents[child] = id
                self._place(child)

    def children(self, parent: int) -> int:
        """How many there are."""
        return sum(map(len, self._children.get(parent, {}).values()))

    def heaviest(self, parent: int, limit: int) -> list[int]:
        """The heaviest children; of those of like weight, the oldest first."""
        return list(islice(self._by_weight(parent, limit), limit))

    def above(self, node: int) -> Iterator[int]:
        """The nodes from ``node``'s parent up to the root, that not included."""
        while (node := self._parents.get(node, ROOT)) != ROOT:
            yield node

    def below(self, node: int) -> int:
        """The tokens of all its children and what hangs below them."""
        return self.tokens[node] - self._own[node]

    def parent(self, node: int) -> int:
        return self._parents.get(node, ROOT)

    def _by_weight(self, parent: int, limit: int) -> Iterator[int]:
        by_bits = self._children.get(parent, {})
        for bits in sorted(by_bits, reverse=True):
            yield from nsmallest(limit, by_bits[bits])

    # --- following -------------------------------------------------------------------------------

    def apply(self, events: Iterable[ev.AnyEvent]) -> None:
        """Follow the events of a record, in order."""
        for event in events:
            if isinstance(event, ev.Inserted):
                self._insert(event.node, event.parent, len(event.tokens))
            elif isinstance(event, ev.Extended):
                self._grow(event.node, len(event.tokens))
            elif isinstance(event, ev.Split):
                self._split(event)
            elif isinstance(event, ev.Evicted):
                self._shrink(event.node, len(event.blocks) * self._size)

    def _insert(self, node: int, parent: int, tokens: int) -> None:
        self.tokens[node], self.nodes[node], self._own[node] = 0, 1, 0
        self._parents[node] = parent
        self._place(node)
        for above in (*self.above(node), ROOT):
            self.nodes[above] += 1
        self._grow(node, tokens)
        self.version += 1

    def _split(self, event: ev.Split) -> None:
        node, upper = event.node, event.upper
        parent = self._parents[node]
        self._unplace(node)
        self.tokens[upper], self.nodes[upper] = self.tokens[node], self.nodes[node] + 1
        self.tokens[node] -= event.tokens
        self._own[upper] = event.tokens
        self._own[node] -= event.tokens
        self._parents[upper], self._parents[node] = parent, upper
        self._place(node)
        self._place(upper)
        for above in (*self.above(upper), ROOT):
            self.nodes[above] += 1
        self.version += 1

    def _shrink(self, node: int, tokens: int) -> None:
        self._grow(node, -tokens)
        if self.tokens[node]:
            return
        self._unplace(node)
        for above in (*self.above(node), ROOT):
            self.nodes[above] -= 1
        del self.tokens[node], self.nodes[node], self._own[node], self._parents[node]
        self.version += 1

    def _grow(self, node: int, tokens: int) -> None:
        self._own[node] += tokens
        for id in (node, *self.above(node)):
            before = self.tokens[id]
            moves = before.bit_length() != (before + tokens).bit_length()
            if moves:
                self._unplace(id)
            self.tokens[id] += tokens
            if moves:
                self._place(id)
                self.version += 1
        self.tokens[ROOT] += tokens

    def _place(self, node: int) -> None:
        by_bits = self._children.setdefault(self._parents[node], {})
        by_bits.setdefault(self.tokens[node].bit_length(), set()).add(node)

    def _unplace(self, node: int) -> None:
        parent, bits = self._parents[node], self.tokens[node].bit_length()
        by_bits = self._children[parent]
        by_bits[bits].remove(node)
        if not by_bits[bits]:
            del by_bits[bits]
        if not by_bits:
            del self._children[parent]
