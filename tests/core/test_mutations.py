"""Would the suite notice? Each test breaks the code on purpose and expects the oracle to fire.

A mutation is a patch of one method, as small as the slip it stands for. If one of these fails, the
checks have gone blind, which is worse than a bug.
"""

from collections.abc import Callable
from unittest.mock import patch

import pytest
from minisgl_tui.engine.blocks import BlockPool, BlockState
from minisgl_tui.engine.cache import PrefixCache
from minisgl_tui.engine.radix import Match, RadixTree
from minisgl_tui.engine.request import Request
from minisgl_tui.engine.scheduler import Scheduler
from test_oracle import run_load

SEEDS = range(150)

hold, drop_ref = RadixTree.hold, RadixTree._drop_ref
share, release, grow = PrefixCache.share, PrefixCache.release, PrefixCache.grow
split, common = RadixTree._split, RadixTree._common_blocks


def hold_without_the_last_node(tree, match, use):
    node, cut = hold(tree, match, use)
    if node.parent is not None:
        drop_ref(tree, node)
    return node, cut


def drop_a_ref_count_twice(tree, node):
    drop_ref(tree, node)
    if node.refs:
        drop_ref(tree, node)


def free_private_blocks_twice(cache, request: Request):
    private = [b for b in request.block_table if cache.pool.state[b] == BlockState.PRIVATE]
    release(cache, request)
    cache.pool._free += private


def forget_the_tail(cache, request: Request):
    if request.computed % cache.block_size:
        request.block_table.pop()
    release(cache, request)


def evict_a_referenced_leaf(tree):
    return next(node for node in tree.nodes() if not node.children)


def share_a_block_one_token_early(cache, request: Request, before: int, after: int):
    share(cache, request, before, min(after + 1, len(request.block_table) * cache.block_size))


def allocate_one_block_too_few(cache, request: Request, tokens: int):
    grow(cache, request, tokens - 1)


def match_the_whole_prompt(cache, request: Request):
    return cache.tree.match(request.tokens, len(request.tokens) // cache.block_size, request.salt)


def compare_only_the_first_block(tree, run, tokens, at, limit):
    return limit


def split_without_ref_counts(tree, node, keep):
    upper, cut = split(tree, node, keep)
    upper.refs = 0
    return upper, cut


def take_the_whole_node_on_a_partial_match(tree, match, use):
    node, used = match.node, len(match.node.blocks)
    return hold(tree, Match(node, used, match.blocks, match.evictable), use)


def ignore_the_salt(tree, parent, block, salt):
    return tuple(block)


def keep_blocks_of_a_failed_step(cache):
    cache._inserted = []


def admit_without_asking(scheduler, preempted):
    return ""


def forget_to_publish(pool, blocks):
    pass


MUTATIONS: list[tuple[type, str, Callable]] = [
    (RadixTree, "hold", hold_without_the_last_node),
    (RadixTree, "_drop_ref", drop_a_ref_count_twice),
    (PrefixCache, "release", free_private_blocks_twice),
    (PrefixCache, "release", forget_the_tail),
    (RadixTree, "_next_leaf", evict_a_referenced_leaf),
    (PrefixCache, "share", share_a_block_one_token_early),
    (PrefixCache, "grow", allocate_one_block_too_few),
    (PrefixCache, "match", match_the_whole_prompt),
    (RadixTree, "_common_blocks", compare_only_the_first_block),
    (RadixTree, "_split", split_without_ref_counts),
    (RadixTree, "hold", take_the_whole_node_on_a_partial_match),
    (PrefixCache, "withdraw_step", keep_blocks_of_a_failed_step),
    (BlockPool, "publish", forget_to_publish),
    (Scheduler, "_closed", admit_without_asking),
]


@pytest.mark.parametrize(
    ("owner", "method", "fault"), MUTATIONS, ids=lambda m: getattr(m, "__name__", m)
)
def test_the_oracle_catches(owner: type, method: str, fault: Callable) -> None:
    with patch.object(owner, method, fault):
        for seed in SEEDS:
            try:
                run_load(seed)
            except (AssertionError, pytest.fail.Exception, IndexError, KeyError):
                return
    pytest.fail(f"nobody noticed {fault.__name__} in {len(SEEDS)} loads")
