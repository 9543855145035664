"""The core benchmark runs, and the cost of the tree grows as it should: counted, not timed."""

import pytest
from minisgl_tui.engine.bench.core import loaded_engine, measure
from minisgl_tui.engine.errors import UserError


def test_it_reports_every_figure_for_the_size_asked_for() -> None:
    results = measure(running=20, nodes=50, blocks=500, steps=10, tree_sizes=(100, 200))
    assert results["running_requests"] == 20
    assert results["tree_nodes"] >= 50
    assert {
        "step_ms_events_off",
        "events_ratio",
        "match_us_100_nodes",
        "evict_us_200_nodes",
    } <= set(results)
    assert all(value > 0 for value in results.values())


@pytest.mark.parametrize(
    ("running", "nodes", "blocks", "what"),
    [
        (1, 900, 300, "900 nodes in the tree"),
        (90, 20, 300, "90 requests to decode at once"),
        (1, 1, 15, "a prompt of 256 tokens"),
    ],
)
def test_a_pool_too_small_for_the_load_is_told(
    running: int, nodes: int, blocks: int, what: str
) -> None:
    with pytest.raises(UserError, match=f"a pool of {blocks} blocks is too small for {what}"):
        loaded_engine(running, nodes, blocks)


def comparisons_per_eviction(nodes: int) -> float:
    """How often the policy is asked for a key, once the order is settled."""
    engine = loaded_engine(running=1, nodes=nodes, blocks=4 * nodes + 64)
    tree = engine.cache.tree
    tree.evict(1)
    asked = 0
    policy = tree._policy

    class Counting:
        def key(self, node) -> tuple[int, ...]:
            nonlocal asked
            asked += 1
            return policy.key(node)

    tree._policy = Counting()
    for _ in range(50):
        tree.evict(1)
    return asked / 50


def test_eviction_cost_grows_slower_than_the_tree() -> None:
    assert comparisons_per_eviction(4000) < 2 * comparisons_per_eviction(250) < 10
