"""How much Python a step costs: the core alone, with a runner that computes nothing.

`measure` fills a pool and a tree to size, runs decoding requests over them and times whole steps,
with and without a listener; and it times one match and one eviction in trees of growing size.
"""

import gc
import random
import time
from collections.abc import Callable
from statistics import median

from ..config import EngineConfig
from ..engine import Engine
from ..errors import UserError
from ..events import Listener, StepRecord
from ..plan import Plan, Runner, StepOutput
from ..radix import Node
from ..request import Request
from ..sampling import SamplingParams

BLOCK_SIZE = 16
LONGEST = 256  # tokens of a prompt
ENDLESS = SamplingParams(max_tokens=1_000_000)


class NullRunner(Runner):
    """Samples the same token for everybody, at once."""

    def execute(self, plan: Plan) -> StepOutput:
        return StepOutput([7] * sum(row.samples for row in plan.rows))


def measure(
    running: int = 1000,
    nodes: int = 10_000,
    blocks: int = 100_000,
    steps: int = 200,
    tree_sizes: tuple[int, ...] = (1_000, 10_000, 100_000),
    progress: Callable[[str], None] = lambda stage: None,
) -> dict[str, float]:
    """Milliseconds of Python: the median step with events off and on, its 99th percentile, and
    one match and one eviction with each of ``tree_sizes`` nodes in the tree (microseconds)."""
    progress(f"{running} requests, {nodes} nodes, {blocks} blocks")
    engine = loaded_engine(running, nodes, blocks)
    off, on = _alternate(engine, steps)
    results = {
        "running_requests": running,
        "tree_nodes": engine.cache.tree.num_nodes,
        "blocks": blocks,
        "step_ms_events_off": median(off) * 1e3,
        "step_ms_events_off_p99": sorted(off)[int(len(off) * 0.99)] * 1e3,
        "step_ms_events_on": median(on) * 1e3,
        "events_ratio": median(on) / median(off),
    }
    for size in tree_sizes:
        progress(f"match and evict in {size} nodes")
        match, evict = time_tree(size)
        results[f"match_us_{size}_nodes"] = match * 1e6
        results[f"evict_us_{size}_nodes"] = evict * 1e6
    return results


def loaded_engine(
    running: int, nodes: int, blocks: int, listener: Listener | None = None
) -> Engine:
    """An engine with ``running`` requests decoding and ``nodes`` nodes of prefixes in its tree;
    ``listener`` hears all of it from the start. Raises UserError where they do not fit."""
    config = EngineConfig(
        block_size=BLOCK_SIZE,
        num_blocks=blocks,
        max_batch_tokens=1 << 16,
        max_running_requests=max(running, 1 << 14),
        max_model_len=1 << 20,
    )
    engine = Engine(config, NullRunner())
    if listener is not None:
        engine.log.listen(listener)
    if config.capacity < LONGEST:
        raise UserError(_too_small(engine, f"a prompt of {LONGEST} tokens"))
    _grow_tree(engine, nodes)
    rng = random.Random(1)
    for i in range(running):
        engine.submit([i, *_ids(rng, rng.randrange(32, LONGEST))], ENDLESS)
    while waiting := len(engine.scheduler.waiting):
        engine.step()
        if len(engine.scheduler.waiting) >= waiting:
            raise UserError(_too_small(engine, f"{running} requests to decode at once"))
    return engine


def _too_small(engine: Engine, what: str) -> str:
    blocks = engine.config.num_blocks
    return f"a pool of {blocks} blocks is too small for {what}; give more blocks or ask for less"


def _grow_tree(engine: Engine, nodes: int) -> None:
    """Fill the tree by prompts of one block of their own below a few hundred shared heads."""
    rng = random.Random(0)
    heads = [_ids(rng, 2 * BLOCK_SIZE) for _ in range(max(1, nodes // 50))]
    one = SamplingParams(max_tokens=1)
    while (had := engine.cache.tree.num_nodes) < nodes:
        for _ in range(min(1000, nodes - had)):
            engine.submit([*rng.choice(heads), *_ids(rng, BLOCK_SIZE + 1)], one)
        while engine.has_work():
            engine.step()
        if engine.cache.tree.num_nodes <= had:  # what comes evicts as much
            raise UserError(_too_small(engine, f"{nodes} nodes in the tree"))


def _ids(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(1 << 16) for _ in range(count)]


def _alternate(engine: Engine, steps: int) -> tuple[list[float], list[float]]:
    """Seconds of each step with events off and on, in turns of ten so that drift hits both."""
    off: list[float] = []
    on: list[float] = []

    def drop(record: StepRecord) -> None:
        pass

    for _ in range(max(1, steps // 10)):
        off += _time_steps(engine, 10)
        stop = engine.log.listen(drop)
        on += _time_steps(engine, 10)
        stop()
    return off, on


def _time_steps(engine: Engine, count: int) -> list[float]:
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        engine.step()
        seconds.append(time.perf_counter() - began)
    return seconds


def time_tree(nodes: int) -> tuple[float, float]:
    """Median seconds of one match, and of one eviction of a block, among ``nodes`` nodes."""
    engine = Engine(
        EngineConfig(block_size=BLOCK_SIZE, num_blocks=4 * nodes, max_batch_tokens=1 << 16),
        NullRunner(),
    )
    _grow_tree(engine, nodes)
    tree, rng = engine.cache.tree, random.Random(2)
    paths = [_path(node) for node in rng.choices(list(tree.nodes()), k=500)]
    requests = [Request(-1, [*tokens, 0], ENDLESS) for tokens in paths]
    engine.cache.tree.evict(1)  # the first one sorts what was offered since the start
    gc.collect()
    matches = [_timed(lambda r=r: engine.cache.match(r)) for r in requests]
    evictions = [_timed(lambda: tree.evict(1)) for _ in range(min(500, nodes // 2))]
    return median(matches), median(evictions)


def _path(node: Node | None) -> list[int]:
    tokens: list[int] = []
    while node is not None:
        tokens = node.tokens + tokens
        node = node.parent
    return tokens


def _timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began
