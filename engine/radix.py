"""The radix tree: which token prefixes have their KV in which blocks, and who holds them.

A node is a run of whole blocks; children differ in their first block. The tree knows tokens, blocks
and holders, and nothing of requests' state or of the free list (`cache.py` joins it to those).

Three facts keep it simple:

* *All blocks of a node have the same holders.* A partial match splits the node first, and only a
  leaf held by nobody but the grower is extended. So one ``refs`` a node is the ref count of each of
  its blocks, and a block table contains a node wholly or not at all.
* *A node is pinned while it, or anything below it, is held.* An unheld node can have held children
  (a request that computed a private twin of it and went on), so ``pinned_children`` is counted.
* *Evictable leaves sit in a heap with lazy deletion*: an entry counts if its key is still the
  node's. Every touch goes through hold and release, which pushes afresh, so a leaf that can be
  evicted always has a current entry, and no allocation walks the tree.

The idea of a radix tree over KV is SGLang's (arXiv 2312.07104).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from .events import EventLog, Evicted, Extended, Inserted, Split
from .policies import EvictionPolicy

NO_REQUEST = -1


class Node:
    """``tokens`` (from position ``start`` of the prefix) and the ``blocks`` that hold their KV."""

    __slots__ = (
        "blocks",
        "children",
        "created",
        "hits",
        "id",
        "last_used",
        "parent",
        "pinned_children",
        "refs",
        "start",
        "tokens",
    )

    def __init__(self, id: int, parent: "Node | None", start: int, step: int) -> None:
        self.id = id
        self.parent = parent
        self.start = start
        self.tokens: list[int] = []
        self.blocks: list[int] = []
        self.children: dict[tuple[int, ...], Node] = {}
        self.refs = 0
        self.pinned_children = 0
        self.hits = 0
        self.created = step
        self.last_used = step

    @property
    def pinned(self) -> bool:
        return self.refs > 0 or self.pinned_children > 0

    @property
    def evictable(self) -> bool:
        """A leaf that nobody holds. (The root has a parent of None and never is.)"""
        return not self.children and self.refs == 0 and self.parent is not None

    def __repr__(self) -> str:
        return f"Node({self.id}, blocks={self.blocks}, refs={self.refs})"


@dataclass(slots=True, frozen=True)
class Match:
    """The longest cached prefix: ``blocks`` in order, ending ``used`` blocks into ``node``.

    ``evictable`` of them are unpinned now: holding the match takes them from what can be evicted.
    """

    node: Node
    used: int
    blocks: list[int]
    evictable: int


class RadixTree:
    """Maps token prefixes to blocks of ``block_size`` tokens; ``policy`` orders evictions."""

    def __init__(self, block_size: int, policy: EvictionPolicy, log: EventLog) -> None:
        self.block_size = block_size
        self.log = log
        self.root = Node(0, None, 0, 0)
        self.node_of: dict[int, Node] = {}  # block → node
        self.num_nodes = 0
        self.evictable_blocks = 0
        self._policy = policy
        self._next_id = 1
        self._heap: list[tuple[object, int, Node]] = []

    # --- looking ---------------------------------------------------------------------------------

    def match(self, tokens: Sequence[int], max_blocks: int) -> Match:
        """The longest cached prefix of ``tokens``, up to ``max_blocks``. Changes nothing."""
        node, used = self.root, 0
        blocks: list[int] = []
        evictable = 0
        for child, fit in self._walk(tokens, max_blocks, self.root, 0):
            node, used = child, fit
            blocks += child.blocks[:fit]
            evictable += 0 if child.pinned else fit
        return Match(node, used, blocks, evictable)

    def _walk(
        self, tokens: Sequence[int], max_blocks: int, node: Node, depth: int
    ) -> Iterator[tuple[Node, int]]:
        """From the end of ``node``, ``depth`` blocks down: each further node on the path of
        ``tokens`` with how many of its blocks agree; only the last may agree in part."""
        size = self.block_size
        while depth < max_blocks:
            at = depth * size
            child = node.children.get(tuple(tokens[at : at + size]))
            if child is None:
                return
            limit = min(len(child.blocks), max_blocks - depth)
            fit = self._common_blocks(child.tokens, tokens, at, limit)
            yield child, fit
            if fit < len(child.blocks):
                return
            node, depth = child, depth + fit

    def _common_blocks(self, run: list[int], tokens: Sequence[int], at: int, limit: int) -> int:
        """How many of the first ``limit`` blocks of ``run`` equal ``tokens[at:]``."""
        size = self.block_size
        if run[: limit * size] == tokens[at : at + limit * size]:
            return limit
        fit = 1  # the first block is the child's key
        while run[fit * size : (fit + 1) * size] == tokens[at + fit * size : at + (fit + 1) * size]:
            fit += 1
        return fit

    # --- holding ---------------------------------------------------------------------------------

    def hold(self, match: Match, step: int) -> Node:
        """Give the matched path one more holder; returns the node that the match now ends."""
        node = match.node
        if match.used < len(node.blocks):
            node = self._split(node, match.used)
        on_path: Node | None = node
        while on_path is not None and on_path.parent is not None:
            on_path.hits += 1
            on_path.last_used = step
            self._add_ref(on_path)
            on_path = on_path.parent
        return node

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
        for node in reversed(
            nodes
        ):  # from the leaf up, so that parents find their children unpinned
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
        self, req: int, tokens: Sequence[int], table: Sequence[int], known: int, step: int
    ) -> list[int]:
        """Make the full blocks of ``tokens`` shareable; the first ``known`` of them were before.

        ``table`` holds one block for each, ending with the last to insert. Where the tree has the
        tokens already, it keeps its own block and the request keeps its private twin. Returns the
        blocks of ``table`` that entered the tree.
        """
        total = len(table)
        node, depth = self.root, 0
        if known and (own := self.node_of.get(table[known - 1])) is not None:
            node, depth = own, known  # we hold that node to its end: no need to walk from the root
        for child, fit in self._walk(tokens, total, node, depth):
            node, depth = child, depth + fit
        if depth == total:
            return []
        fit = depth - node.start // self.block_size
        if fit < len(node.blocks):
            node = self._split(node, fit)
        new = list(table[depth:])
        run = list(tokens[depth * self.block_size : total * self.block_size])
        if node.refs == 1 and not node.children and table[depth - 1] == node.blocks[-1]:
            self._extend(req, node, run, new, step)
        else:
            self._add_child(req, node, run, new, step)
        return new

    def _extend(self, req: int, node: Node, run: list[int], blocks: list[int], step: int) -> None:
        node.tokens += run
        node.blocks += blocks
        node.last_used = step
        for block in blocks:
            self.node_of[block] = node
        if self.log.on:
            self.log.add(Extended(req, node.id, run, blocks))

    def _add_child(
        self, req: int, parent: Node, run: list[int], blocks: list[int], step: int
    ) -> None:
        node = self._new_node(parent, parent.start + len(parent.tokens), step)
        node.tokens, node.blocks = run, blocks
        parent.children[tuple(run[: self.block_size])] = node
        for block in blocks:
            self.node_of[block] = node
        node.refs = 1
        self.evictable_blocks += len(blocks)  # _became_pinned takes them off again
        self._became_pinned(node)
        if self.log.on:
            self.log.add(Inserted(req, node.id, parent.id, list(run), list(blocks)))

    def _split(self, node: Node, keep: int) -> Node:
        """Move the first ``keep`` blocks of ``node`` to a new node above it, and return that.

        The lower part keeps its identity; both keep the holders, the hits and the times.
        """
        parent = node.parent
        assert parent is not None
        cut = keep * self.block_size
        upper = self._new_node(parent, node.start, node.created)
        upper.tokens, node.tokens = node.tokens[:cut], node.tokens[cut:]
        upper.blocks, node.blocks = node.blocks[:keep], node.blocks[keep:]
        upper.refs, upper.hits, upper.last_used = node.refs, node.hits, node.last_used
        upper.pinned_children = int(node.pinned)
        parent.children[tuple(upper.tokens[: self.block_size])] = upper
        upper.children[tuple(node.tokens[: self.block_size])] = node
        node.parent, node.start = upper, node.start + cut
        for block in upper.blocks:
            self.node_of[block] = upper
        if self.log.on:
            self.log.add(Split(node.id, upper.id, cut))
        return upper

    def _new_node(self, parent: Node, start: int, step: int) -> Node:
        node = Node(self._next_id, parent, start, step)
        self._next_id += 1
        self.num_nodes += 1
        return node

    # --- shrinking -------------------------------------------------------------------------------

    def evict(self, count: int, why: str, for_req: int = NO_REQUEST) -> list[int]:
        """Free exactly ``count`` blocks, from the tails of the leaves the policy gives up first.

        The caller has checked `evictable_blocks`.
        """
        freed: list[int] = []
        while len(freed) < count:
            freed += self._trim(self._next_leaf(), count - len(freed), why, for_req)
        return freed

    def withdraw(self, blocks: Sequence[int]) -> None:
        """Take back ``blocks``, the latest inserted and held by nobody: their KV is not there."""
        for block in reversed(blocks):
            node = self.node_of[block]
            if not node.evictable or node.blocks[-1] != block:
                raise AssertionError(f"block {block} cannot be withdrawn from {node}")
            self._trim(node, 1, "withdrawn", NO_REQUEST)

    def _next_leaf(self) -> Node:
        heap = self._heap
        while True:
            key, _, node = heap[0]
            if node.evictable and node.blocks and key == self._policy.key(node):
                return node
            heappop(heap)

    def _trim(self, node: Node, count: int, why: str, for_req: int) -> list[int]:
        """Cut up to ``count`` blocks off the tail of a leaf, and the leaf if nothing is left."""
        keep = max(0, len(node.blocks) - count)
        freed = node.blocks[keep:][::-1]
        first = tuple(node.tokens[: self.block_size])
        del node.blocks[keep:]
        del node.tokens[keep * self.block_size :]
        for block in freed:
            del self.node_of[block]
        self.evictable_blocks -= len(freed)
        if self.log.on:
            self.log.add(Evicted(node.id, freed, why, for_req, node.last_used))
        if not node.blocks:
            parent = node.parent
            assert parent is not None
            del parent.children[first]
            node.parent = None
            self.num_nodes -= 1
            self._offer(parent)
        return freed

    def _offer(self, node: Node) -> None:
        """Enter ``node`` into the eviction order if it can be evicted."""
        if not node.evictable:
            return
        if len(self._heap) > 2 * self.num_nodes + 64:  # mostly stale entries by now
            self._heap = [e for e in self._heap if e[2].evictable and e[2].blocks]
            heapify(self._heap)
        heappush(self._heap, (self._policy.key(node), node.id, node))

    # --- for audits and pictures -----------------------------------------------------------------

    def nodes(self) -> Iterator[Node]:
        """Every node but the root, parents first."""
        stack = list(self.root.children.values())
        while stack:
            node = stack.pop()
            yield node
            stack += node.children.values()
