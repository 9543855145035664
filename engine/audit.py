"""Does the engine's bookkeeping add up, and does the picture equal it?

Brute force on purpose: everything the core keeps incrementally is counted afresh here. Tests call
`audit` and `compare` after every step; both return findings instead of raising, so that a screen
can show them too.
"""

from collections import Counter

from .blocks import BlockState
from .engine import Engine
from .radix import Node
from .state import ROOT, EngineState


def audit(engine: Engine) -> list[str]:
    """Every broken invariant of queues, pool and tree, in words; empty when all is well."""
    return [*_audit_blocks(engine), *_audit_tree(engine), *_audit_queues(engine)]


def _audit_blocks(engine: Engine) -> list[str]:
    """Each block is exactly one of free, private to one request, or in one node of the tree."""
    found = []
    pool, tree = engine.cache.pool, engine.cache.tree
    owners: dict[int, list[str]] = {block: [] for block in range(pool.num_blocks)}
    for block in pool.free_blocks:
        owners[block].append("free")
    for node in tree.nodes():
        for block in node.blocks:
            owners[block].append("tree")
    in_tree = {block for node in tree.nodes() for block in node.blocks}
    for request in engine.scheduler.running:
        for block in request.block_table:
            if block not in in_tree:
                owners[block].append(f"request {request.id}")
    states = {"free": BlockState.FREE, "tree": BlockState.CACHED}
    for block, who in owners.items():
        if len(who) != 1:
            found.append(f"block {block} has {len(who)} owners: {who}")
        elif pool.state[block] != states.get(who[0], BlockState.PRIVATE):
            found.append(f"block {block} is marked {pool.state[block]} but belongs to {who[0]}")
    return found


def _audit_tree(engine: Engine) -> list[str]:
    """Links, ref counts, pins and the evictable total against a full walk."""
    found = []
    tree, size = engine.cache.tree, engine.config.block_size
    holders = Counter(b for r in engine.scheduler.running for b in r.block_table)
    nodes = list(tree.nodes())
    held: set[int] = set()  # nodes that are held, or have a held one below
    for node in reversed(nodes):  # children before their parents
        if node.refs or any(child.id in held for child in node.children.values()):
            held.add(node.id)
    evictable = sum(len(node.blocks) for node in nodes if node.id not in held)
    for node in nodes:
        if not node.blocks or len(node.tokens) != len(node.blocks) * size:
            found.append(f"{node} has {len(node.tokens)} tokens for {len(node.blocks)} blocks")
        if any(holders[block] != node.refs for block in node.blocks):
            found.append(f"{node}: live tables hold it {[holders[b] for b in node.blocks]} times")
        if any(tree.node_of.get(block) is not node for block in node.blocks):
            found.append(f"{node}: a block leads to another node")
        if node.pinned_children != sum(child.pinned for child in node.children.values()):
            found.append(f"{node} counts {node.pinned_children} pinned children")
        for key, child in node.children.items():
            if child.parent is not node or key != tuple(child.tokens[:size]):
                found.append(f"{child} is linked wrongly below {node}")
            if child.start != node.start + len(node.tokens):
                found.append(f"{child} starts at {child.start}, its parent ends elsewhere")
    if evictable != tree.evictable_blocks:
        found.append(f"{tree.evictable_blocks} blocks said to be evictable, {evictable} are")
    if len(nodes) != tree.num_nodes or len(tree.node_of) != sum(len(n.blocks) for n in nodes):
        found.append(f"sizes: {tree.num_nodes} nodes said, {len(nodes)} there")
    return found


def _audit_queues(engine: Engine) -> list[str]:
    scheduler = engine.scheduler
    found = []
    queued = [r.id for r in (*scheduler.waiting, *scheduler.running)]
    if sorted(queued) != sorted(engine.requests):
        found.append(f"queues hold {sorted(queued)}, live requests are {sorted(engine.requests)}")
    for request in scheduler.running:
        blocks = engine.config.blocks_for(request.computed)
        if len(request.block_table) < blocks:
            found.append(f"request {request.id} has {request.computed} tokens in too few blocks")
    found += [f"waiting request {r.id} holds blocks" for r in scheduler.waiting if r.block_table]
    return found


def compare(engine: Engine, state: EngineState) -> list[str]:
    """Where the picture differs from the engine, in words; empty when they are equal."""
    pairs = {
        "step": (engine.step_count, state.step),
        "waiting": ([r.id for r in engine.scheduler.waiting], state.waiting),
        "running": ([r.id for r in engine.scheduler.running], state.running),
        "block states": (engine.cache.pool.state, state.block_state),
        "free": (engine.cache.free, state.free),
        "cached": (len(engine.cache.tree.node_of), state.cached),
        "evictable": (engine.cache.evictable, state.evictable),
        "nodes": (
            sorted(n.id for n in engine.cache.tree.nodes()),
            sorted(n for n in state.nodes if n != ROOT),
        ),
    }
    found = [f"{what}: engine {a}, picture {b}" for what, (a, b) in pairs.items() if a != b]
    for request in (*engine.scheduler.waiting, *engine.scheduler.running):
        seen = state.requests[request.id]
        for name in (
            "tokens",
            "prompt_len",
            "status",
            "computed",
            "block_table",
            "cached_tokens",
            "preemptions",
            "queued_step",
        ):
            a, b = getattr(request, name), getattr(seen, name)
            if a != b:
                found.append(f"request {request.id} {name}: engine {a}, picture {b}")
    for node in engine.cache.tree.nodes():
        found += _compare_node(node, state)
    return found


def _compare_node(node: Node, state: EngineState) -> list[str]:
    seen = state.nodes.get(node.id)
    if seen is None:
        return []
    parent = node.parent.id if node.parent else ROOT
    names = ("start", "tokens", "blocks", "refs", "hits", "created", "last_used")
    names += ("pinned_children", "priority")
    found = [
        f"node {node.id} {name}: engine {getattr(node, name)}, picture {getattr(seen, name)}"
        for name in names
        if getattr(node, name) != getattr(seen, name)
    ]
    if seen.parent != parent or sorted(c.id for c in node.children.values()) != sorted(
        seen.children
    ):
        found.append(f"node {node.id} is linked differently in the picture")
    if any(state.block_owner[block] != node.id for block in node.blocks):
        found.append(f"node {node.id}: the picture's blocks belong elsewhere")
    return found
