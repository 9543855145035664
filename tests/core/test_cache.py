"""What is shared, what is evicted, and who owns a block."""

from helpers import Bench, chunks
from minisgl_tui.engine.blocks import BlockState
from minisgl_tui.engine.events import Evicted, Extended, Inserted, Released, Split
from minisgl_tui.engine.state import ROOT

PROMPT = list(range(16))  # four blocks of four


def test_two_requests_arriving_together_share_the_prefix_in_one_step() -> None:
    bench = Bench()
    first = bench.submit([*PROMPT, 90])
    second = bench.submit([*PROMPT, 91])
    plan = bench.step()
    assert chunks(plan) == [(first.id, 17), (second.id, 1)]
    assert first.block_table[:4] == second.block_table[:4]
    assert second.cached_tokens == 16


def test_a_full_hit_still_computes_at_least_one_token() -> None:
    bench = Bench()
    bench.submit(PROMPT, max_tokens=1)
    bench.finish()
    again = bench.submit(PROMPT, max_tokens=1)
    plan = bench.step()
    assert chunks(plan) == [(again.id, 4)]
    assert again.cached_tokens == 12


def test_the_recomputed_last_block_stays_private_and_the_tree_keeps_its_own() -> None:
    bench = Bench()
    first = bench.submit(PROMPT, max_tokens=8)
    bench.step()
    second = bench.submit(PROMPT, max_tokens=8)
    bench.step()
    twin, own = second.block_table[3], first.block_table[3]
    assert twin != own
    assert bench.engine.cache.pool.state[twin] == BlockState.PRIVATE
    assert bench.engine.cache.pool.state[own] == BlockState.CACHED


def test_a_held_path_below_an_unheld_twin_is_not_evictable() -> None:
    """A request that went on from its private twin pins the tree's copy above its own node."""
    bench = Bench(next_token=lambda row: row.request.id)
    first = bench.submit(PROMPT, max_tokens=1)
    bench.finish()
    second = bench.submit(PROMPT, max_tokens=20)
    bench.step(6)
    node = bench.engine.cache.tree.node_of[second.block_table[4]]
    assert node.parent is not None
    assert (node.refs, node.parent.refs, node.parent.pinned) == (1, 0, True)
    assert bench.engine.cache.evictable == 0
    assert first.finished


def test_generated_blocks_are_hit_by_the_next_turn_of_the_chat() -> None:
    bench = Bench()
    first = bench.submit(PROMPT, max_tokens=9)
    bench.finish()
    second = bench.submit([*first.tokens, 7, 7])
    bench.step()
    assert second.cached_tokens == 24  # 16 of the prompt and 8 generated, in whole blocks


def test_a_leaf_grows_with_the_only_request_that_holds_it() -> None:
    bench = Bench()
    bench.submit(PROMPT, max_tokens=9)
    bench.finish()
    assert len(bench.events(Inserted)) == 1
    assert len(bench.events(Extended)) == 2


def test_a_divergence_inside_a_node_splits_it_and_keeps_holders_and_times() -> None:
    bench = Bench()
    first = bench.submit(PROMPT, max_tokens=8)
    bench.step()
    second = bench.submit([*PROMPT[:8], 50, 51, 52, 53, 54], max_tokens=8)
    bench.step()
    (split,) = bench.events(Split)
    upper = bench.state.nodes[split.upper]
    lower = bench.state.nodes[split.node]
    assert split.tokens == 8
    assert (upper.refs, lower.refs) == (2, 1)
    assert upper.created == lower.created == 1
    assert first.block_table[:2] == second.block_table[:2]


def test_a_match_compares_token_ids_within_a_long_node() -> None:
    bench = Bench()
    bench.submit(list(range(32)), max_tokens=1)
    bench.finish()
    almost = bench.submit([*range(11), 99, *range(12, 32)])
    bench.step()
    assert almost.cached_tokens == 8


def test_eviction_takes_the_least_recently_used_leaf_from_its_tail() -> None:
    bench = Bench(num_blocks=8)
    old = bench.submit([1] * 9, max_tokens=1)
    bench.finish()
    new = bench.submit([2] * 9, max_tokens=1)
    bench.finish()
    assert bench.engine.cache.free == 4
    bench.submit([3] * 20, max_tokens=1)
    bench.finish()
    (evicted,) = bench.events(Evicted)
    assert evicted.for_req == 2
    assert len(evicted.blocks) == 1
    assert bench.engine.cache.match(new).blocks
    assert len(bench.engine.cache.match(old).blocks) == 1


def test_eviction_frees_exactly_the_shortfall_and_never_a_held_block() -> None:
    bench = Bench(num_blocks=10)
    bench.submit([1] * 8 + [2], max_tokens=1)
    bench.finish()
    holder = bench.submit([1] * 8 + [3], max_tokens=30)
    bench.step()
    bench.submit([4] * 25, max_tokens=1)
    bench.step()
    assert bench.engine.cache.tree.node_of[holder.block_table[0]].refs == 1
    assert bench.events(Evicted) == []


def test_an_unaligned_tail_belongs_to_the_request_and_is_freed_once_at_the_end() -> None:
    bench = Bench()
    request = bench.submit(list(range(10)), max_tokens=1)
    bench.step()
    (released,) = bench.events(Released)
    assert request.finished
    assert (len(released.freed), released.cached) == (1, 2)
    assert bench.engine.cache.free + bench.engine.cache.evictable == 64


def test_reset_forgets_what_nobody_holds() -> None:
    bench = Bench()
    bench.submit([1] * 9, max_tokens=1)
    bench.finish()
    holder = bench.submit([2] * 9, max_tokens=9)
    bench.step()
    assert bench.engine.reset_prefix_cache() == 2
    bench.check()
    assert bench.engine.cache.match(holder).blocks
    bench.finish()
    bench.engine.reset_prefix_cache()
    bench.check()
    assert bench.engine.cache.free == 64
    assert list(bench.state.nodes) == [ROOT]


def test_a_hundred_requests_compute_their_512_token_system_prompt_once() -> None:
    system, tail, requests = list(range(512)), 8, 100
    bench = Bench(block_size=16, num_blocks=512, max_batch_tokens=512)
    submitted = [
        bench.submit([*system, *(10_000 + 10 * i + j for j in range(tail))], max_tokens=1)
        for i in range(requests)
    ]
    bench.finish()
    assert bench.runner.tokens_computed == 512 + requests * tail
    assert bench.state.stats.scheduled_tokens == 512 + requests * tail
    assert [r.cached_tokens for r in submitted] == [0] + [512] * 99
