"""The radix tree: which token prefixes have their KV in which blocks, and how many hold them.

A node is a run of whole blocks; children differ in their first block. The tree knows tokens, blocks
and holders, and nothing of requests, events or the free list: `cache.py` joins it to those.

Three facts keep it simple:

* *All blocks of a node have the same holders.* A partial match splits the node first, and only a
  leaf held by nobody but the grower is extended. So one ``refs`` a node is the ref count of each of
  its blocks, and a block table contains a node wholly or not at all.
* *A node is pinned while it, or anything below it, is held.* An unheld node can have held children
  (a request that computed a private twin of it and went on), so ``pinned_children`` is counted.
* *Evictable leaves wait in a list, and from the next eviction on in a heap*, so no allocation walks
  the tree. Every leaf that becomes evictable is offered afresh; entries of nodes that are held or
  gone are dropped when they come up, and one whose key has changed takes its new place. The policy
  is asked only when something is evicted, between changes: if it raises, nothing is half done.

The idea of a radix tree over KV is SGLang's (arXiv 2312.07104).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace
from typing import NamedTuple

from .policies import EvictionPolicy
from .snapshot import NodeState


class Node:
    """``tokens`` (from position ``start`` of the prefix) and the ``blocks`` that hold their KV.

    ``created`` and ``last_used`` are steps, ``hits`` counts the requests that matched it and
    ``priority`` is the most urgent (lowest) of those that used it.
    """

    __slots__ = (
        "blocks",
        "children",
        "created",
        "hits",
        "id",
        "key",
        "last_used",
        "parent",
        "pinned_children",
        "priority",
        "refs",
        "start",
        "tokens",
    )

    def __init__(
        self, id: int, parent: "Node | None", key: tuple[object, ...], start: int, step: int
    ) -> None:
        self.id = id
        self.parent = parent
        self.key = key  # under which the parent has it
        self.start = start
        self.tokens: list[int] = []
        self.blocks: list[int] = []
        self.children: dict[tuple[object, ...], Node] = {}
        self.refs = 0
        self.pinned_children = 0
        self.hits = 0
        self.priority = 0
        self.created = step
        self.last_used = step

    @property
    def pinned(self) -> bool:
        return self.refs > 0 or self.pinned_children > 0

    @property
    def evictable(self) -> bool:
        """A leaf that nobody holds. (The root, and a node that is gone, have no parent.)"""
        return not self.children and self.refs == 0 and self.parent is not None

    def __repr__(self) -> str:
        return f"Node({self.id}, blocks={self.blocks}, refs={self.refs})"


class Use(NamedTuple):
    """Who touches the tree, and when: stamped on the nodes of its path."""

    step: int
    salt: str = ""  # a namespace: prefixes under different salts never meet
    priority: int = 0


@dataclass(slots=True, frozen=True)
class Match:
    """The longest cached prefix: ``blocks`` in order, ending ``used`` blocks into ``node``.

    ``evictable`` of them are unpinned now: holding the match takes them from what can be evicted.
    """

    node: Node
    used: int
    blocks: list[int]
    evictable: int


class Cut(NamedTuple):
    """A split: the first ``tokens`` tokens of ``node`` are now in the new node ``upper`` above."""

    node: int
    upper: int
    tokens: int


class Insertion(NamedTuple):
    """What `insert` did: ``blocks`` (of ``tokens``) entered ``node``, new below ``parent`` unless
    ``extended``; ``cut`` if a node had to be split for it."""

    node: int
    parent: int
    tokens: list[int]
    blocks: list[int]
    extended: bool
    cut: Cut | None


class Trim(NamedTuple):
    """``blocks``, last first, were cut off the tail of ``node``."""

    node: int
    blocks: list[int]
    last_used: int


class RadixTree:
    """Maps token prefixes to blocks of ``block_size`` tokens; ``policy`` orders evictions."""

    def __init__(self, block_size: int, policy: EvictionPolicy) -> None:
        self.block_size = block_size
        self.root = Node(0, None, (), 0, 0)
        self.node_of: dict[int, Node] = {}  # block → node
        self.num_nodes = 0
        self.evictable_blocks = 0
        self._policy = policy
        self._next_id = 1
        self._offered: list[Node] = []
        self._heap: list[tuple[object, int, Node]] = []

    # --- looking ---------------------------------------------------------------------------------

    def match(self, tokens: Sequence[int], max_blocks: int, salt: str = "") -> Match:
        """The longest cached prefix of ``tokens``, up to ``max_blocks``. Changes nothing."""
        node, used = self.root, 0
        blocks: list[int] = []
        evictable = 0
        for child, fit in self._walk(tokens, max_blocks, self.root, 0, salt):
            node, used = child, fit
            blocks += child.blocks[:fit]
            evictable += 0 if child.pinned else fit
        return Match(node, used, blocks, evictable)

    def _walk(
        self, tokens: Sequence[int], max_blocks: int, node: Node, depth: int, salt: str
    ) -> Iterator[tuple[Node, int]]:
        """From the end of ``node``, ``depth`` blocks down: each further node on the path of
        ``tokens`` with how many of its blocks agree; only the last may agree in part."""
        size = self.block_size
        while depth < max_blocks:
            at = depth * size
            child = node.children.get(self._key(node, tokens[at : at + size], salt))
            if child is None:
                return
            limit = min(len(child.blocks), max_blocks - depth)
            fit = self._common_blocks(child.tokens, tokens, at, limit)
            yield child, fit
            if fit < len(child.blocks):
                return
            node, depth = child, depth + fit

    def _key(self, parent: Node, block: Sequence[int], salt: str) -> tuple[object, ...]:
        """What a child is found by: its first block, and below the root its namespace."""
        return (salt, *block) if salt and parent is self.root else tuple(block)

    def _common_blocks(self, run: list[int], tokens: Sequence[int], at: int, limit: int) -> int:
        """How many of the first ``limit`` blocks of ``run`` equal ``tokens[at:]``; at least one,
        since the first is the key."""
        size = self.block_size
        if run[: limit * size] == tokens[at : at + limit * size]:
            return limit
        fit = 1
        while run[fit * size : (fit + 1) * size] == tokens[at + fit * size : at + (fit + 1) * size]:
            fit += 1
        return fit

    # --- holding ---------------------------------------------------------------------------------

    def hold(self, match: Match, use: Use) -> tuple[Node, Cut | None]:
        """Give the matched path one more holder; returns the node that the match now ends."""
        node, cut = match.node, None
        if match.used < len(node.blocks):
            node, cut = self._split(node, match.used)
        on_path = node
        while on_path.parent is not None:
            on_path.hits += 1
            on_path.last_used = use.step
            on_path.priority = min(on_path.priority, use.priority)
            self._add_ref(on_path)
            on_path = on_path.parent
        return node, cut

    def release(self, table: Sequence[int], step: int) -> None:
        """Take one holder from every node whose blocks are in ``table``."""
        i = 0
        nodes: list[Node] = []
        while i < len(table):
            node = self.node_of.get(table[i])
            if node is None:
                i += 1
                continue
            nodes.append(node)
            i += len(node.blocks)
        for node in reversed(nodes):  # from the leaf up: parents find their children unpinned
            node.last_used = step
            self._drop_ref(node)

    def _add_ref(self, node: Node) -> None:
        was_pinned = node.pinned
        node.refs += 1
        if not was_pinned:
            self._became_pinned(node)

    def _drop_ref(self, node: Node) -> None:
        if node.refs == 0:
            raise AssertionError(f"node {node.id} released more often than held")
        node.refs -= 1
        if not node.pinned:
            self._became_unpinned(node)

    def _became_pinned(self, node: Node) -> None:
        while node.parent is not None:
            self.evictable_blocks -= len(node.blocks)
            parent = node.parent
            parent.pinned_children += 1
            if parent.refs or parent.pinned_children > 1:
                return
            node = parent

    def _became_unpinned(self, node: Node) -> None:
        while node.parent is not None:
            self.evictable_blocks += len(node.blocks)
            self._offer(node)
            parent = node.parent
            parent.pinned_children -= 1
            if parent.pinned:
                return
            node = parent

    # --- growing ---------------------------------------------------------------------------------

    def insert(
        self, tokens: Sequence[int], table: Sequence[int], known: int, use: Use
    ) -> Insertion | None:
        """Make the full blocks of ``tokens`` shareable; the first ``known`` of them were before.

        ``table`` holds one block for each, ending with the last to insert. Where the tree has the
        tokens already, it keeps its own block and the request keeps its private twin; None if that
        is so for all.
        """
        total = len(table)
        node, depth = self.root, 0
        if known and (own := self.node_of.get(table[known - 1])) is not None:
            node, depth = own, known  # held by us to its end: no need to walk from the root
        for child, fit in self._walk(tokens, total, node, depth, use.salt):
            node, depth = child, depth + fit
        if depth == total:
            return None
        cut = None
        fit = depth - node.start // self.block_size
        if fit < len(node.blocks):
            node, cut = self._split(node, fit)
        blocks = list(table[depth:])
        run = list(tokens[depth * self.block_size : total * self.block_size])
        if node.refs == 1 and not node.children and table[depth - 1] == node.blocks[-1]:
            node.last_used = use.step
            self._append(node, run, blocks)
            return Insertion(node.id, node.id, run, blocks, True, cut)
        child = self._add_child(node, run, blocks, use)
        return Insertion(child.id, node.id, run, blocks, False, cut)

    def _append(self, node: Node, run: list[int], blocks: list[int]) -> None:
        node.tokens += run
        node.blocks += blocks
        for block in blocks:
            self.node_of[block] = node

    def _add_child(self, parent: Node, run: list[int], blocks: list[int], use: Use) -> Node:
        key = self._key(parent, run[: self.block_size], use.salt)
        node = self._new_node(parent, key, parent.start + len(parent.tokens), use.step)
        self._append(node, run, blocks)
        node.priority = use.priority
        node.refs = 1
        self.evictable_blocks += len(blocks)  # _became_pinned takes them off again
        self._became_pinned(node)
        return node

    def _split(self, node: Node, keep: int) -> tuple[Node, Cut]:
        """Move the first ``keep`` blocks of ``node`` to a new node above it, and return that.

        The lower part keeps its identity; both keep the holders, the hits and the times.
        """
        assert node.parent is not None
        cut = keep * self.block_size
        upper = self._new_node(node.parent, node.key, node.start, node.created)
        tokens, blocks = node.tokens, node.blocks
        self._append(upper, tokens[:cut], blocks[:keep])
        node.tokens, node.blocks = tokens[cut:], blocks[keep:]
        upper.refs, upper.hits, upper.priority = node.refs, node.hits, node.priority
        upper.last_used = node.last_used
        upper.pinned_children = int(node.pinned)
        node.key = tuple(node.tokens[: self.block_size])
        upper.children[node.key] = node
        node.parent, node.start = upper, node.start + cut
        return upper, Cut(node.id, upper.id, cut)

    def _new_node(self, parent: Node, key: tuple[object, ...], start: int, step: int) -> Node:
        node = Node(self._next_id, parent, key, start, step)
        self._next_id += 1
        self.num_nodes += 1
        parent.children[key] = node
        return node

    # --- shrinking -------------------------------------------------------------------------------

    def evict(self, count: int) -> Trim:
        """Let go of up to ``count`` blocks, from the tail of the leaf the policy gives up first.
        The caller has checked `evictable_blocks`."""
        return self._trim(self._next_leaf(), count)

    def withdraw(self, block: int) -> Trim:
        """Take back ``block``, the last of a leaf that nobody holds: its KV is not there."""
        node = self.node_of[block]
        if not node.evictable or node.blocks[-1] != block:
            raise AssertionError(f"block {block} cannot be withdrawn from {node}")
        return self._trim(node, 1)

    def _next_leaf(self) -> Node:
        heap = self._heap
        if len(heap) > 2 * self.num_nodes + 64:  # mostly stale entries by now
            self._offered += [entry[2] for entry in heap]
            heap.clear()
        for node in dict.fromkeys(self._offered):
            if node.evictable:
                heappush(heap, (self._policy.key(node), node.id, node))
        self._offered.clear()
        asked: set[int] = set()
        while True:
            if not heap:
                raise AssertionError(f"no leaf for {self.evictable_blocks} evictable blocks")
            key, _, node = heap[0]
            if not node.evictable:
                heappop(heap)
                continue
            now = self._policy.key(node)
            if key == now or node.id in asked:
                return node
            asked.add(node.id)  # its key has changed: it gets the place it has now, once
            heapreplace(heap, (now, node.id, node))

    def _trim(self, node: Node, count: int) -> Trim:
        """Cut up to ``count`` blocks off the tail of a leaf, and the leaf if nothing is left."""
        keep = max(0, len(node.blocks) - count)
        freed = node.blocks[keep:][::-1]
        del node.blocks[keep:]
        del node.tokens[keep * self.block_size :]
        for block in freed:
            del self.node_of[block]
        self.evictable_blocks -= len(freed)
        if not node.blocks:
            parent = node.parent
            assert parent is not None
            del parent.children[node.key]
            node.parent = None
            self.num_nodes -= 1
            self._offer(parent)
        return Trim(node.id, freed, node.last_used)

    def _offer(self, node: Node) -> None:
        """Let ``node`` be evicted, if it can be."""
        if not node.evictable:
            return
        if len(self._offered) > 2 * self.num_nodes + 64:  # the same ones again and again
            self._offered = [n for n in dict.fromkeys(self._offered) if n.evictable]
        self._offered.append(node)

    # --- taking over -----------------------------------------------------------------------------

    def adopt(self, stored: Mapping[int, NodeState], next_id: int) -> None:
        """Become the tree in ``stored``, whose next new node is ``next_id``; it is empty so far."""
        self._next_id = next_id
        root = stored[self.root.id]
        self.root.pinned_children = root.pinned_children
        stack = [(id, self.root) for id in root.children]
        while stack:
            id, parent = stack.pop()
            seen = stored[id]
            key = self._key(parent, seen.tokens[: self.block_size], seen.salt)
            node = Node(id, parent, key, seen.start, seen.created)
            parent.children[key] = node
            self.num_nodes += 1
            self._append(node, seen.tokens, seen.blocks)
            node.refs, node.pinned_children = seen.refs, seen.pinned_children
            node.hits, node.priority = seen.hits, seen.priority
            node.last_used = seen.last_used
            self.evictable_blocks += 0 if node.pinned else len(node.blocks)
            stack += [(child, node) for child in seen.children]
        for node in self.nodes():
            self._offer(node)

    # --- for audits and pictures -----------------------------------------------------------------

    def nodes(self) -> Iterator[Node]:
        """Every node but the root, parents first."""
        stack = list(self.root.children.values())
        while stack:
            node = stack.pop()
            yield node
            stack += node.children.values()
