"""Every attention backend computes what the reference does, for any shape of step."""

import random
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.models.base import Attend, AttentionSpec
from minisgl_tui.engine.runner.attention import grouped, varlen
from minisgl_tui.engine.runner.attention.base import (
    AttentionBackend,
    AttentionPlan,
    RowSpan,
    begun_blocks,
    causal_mask,
    token_slots,
)
from minisgl_tui.engine.runner.attention.fastest import FastestAttention
from minisgl_tui.engine.runner.attention.grouped import GroupedAttention
from minisgl_tui.engine.runner.attention.reference import ReferenceAttention
from minisgl_tui.engine.runner.attention.registry import make_backend
from minisgl_tui.engine.runner.attention.sharing import share
from minisgl_tui.engine.runner.kv_cache import KVCache

from .harness import CPU

PLAIN = AttentionSpec(num_heads=6, num_kv_heads=2, head_dim=8, value_dim=8, scale=0.3)
KINDS = {
    "grouped heads": [PLAIN],
    "a head each": [replace(PLAIN, num_kv_heads=6)],
    "one KV head": [replace(PLAIN, num_kv_heads=1)],
    "window": [PLAIN, replace(PLAIN, window=13)],
    "softcap": [replace(PLAIN, softcap=2.0)],
    "softcap and windows": [replace(PLAIN, softcap=2.0, window=size) for size in (1, 30)],
    "smaller values": [replace(PLAIN, value_dim=5)],
    "layers that differ": [PLAIN, replace(PLAIN, num_heads=4, num_kv_heads=4, head_dim=16)],
}


class Step:
    """Random rows over a poisoned cache: decodes and chunks, some of them beginning with the blocks
    of others, all contexts filled in."""

    def __init__(self, seed: int, layers: list[AttentionSpec], dtype: torch.dtype) -> None:
        rng = random.Random(seed)
        self.size = rng.choice((1, 4, 16))
        self.cache = KVCache(layers, num_blocks=900, block_size=self.size, dtype=dtype, device=CPU)
        for tensor in (*self.cache.keys, *self.cache.values):
            tensor[:, :900] = float("nan")
        unused = rng.sample(range(900), 900)
        sizes = rng.choice(((2, 2, 2), (1, 4, 6)))
        trunks = [[unused.pop() for _ in range(size)] for size in sizes]
        trunks.append(trunks[0] + [unused.pop() for _ in range(3)])
        self.rows: list[RowSpan] = []
        first = 0
        counts = rng.choice(((1, 1, 1, 2, 5, 33), (1,), (5,)))  # rows of one shape run together
        most = rng.choice((1, 40))
        for _ in range(rng.randrange(1, 12)):
            blocks = list(rng.choice(trunks)) if rng.random() < 0.8 else []
            count = rng.choice(counts)
            length = len(blocks) * self.size + rng.randrange(0, most) + count
            blocks += [unused.pop() for _ in range(-(-length // self.size) - len(blocks))]
            self.rows.append(RowSpan(first, count, length, np.array(blocks)))
            first += count
        self.tokens = first
        torch.manual_seed(seed)
        # What earlier steps left: written by a plan in which every row computes all but its last.
        past = [
            RowSpan(0, row.start, row.start, row.blocks[: -(-row.start // self.size)])
            for row in self.rows
            if row.start
        ]
        self.cache.clear([int(block) for row in past for block in row.blocks])
        for row in past:
            slots = torch.from_numpy(token_slots([row], self.size))
            for layer, spec in enumerate(layers):
                shape = (len(slots), spec.num_kv_heads)
                k, v = torch.randn(*shape, spec.head_dim), torch.randn(*shape, spec.value_dim)
                self.cache.write(layer, slots, k.to(dtype), v.to(dtype))
        self.cache.clear(begun_blocks(self.rows, self.size))
        self.plan = AttentionPlan(self.rows, torch.from_numpy(token_slots(self.rows, self.size)))

    def run(self, backend: str | AttentionBackend) -> list[torch.Tensor]:
        made = make_backend(backend, CPU) if isinstance(backend, str) else backend
        attend = made.prepare(self.plan, self.cache)
        torch.manual_seed(1)
        outputs = []
        for layer, spec in enumerate(self.cache.layers):
            q = torch.randn(self.tokens, spec.num_heads, spec.head_dim)
            k = torch.randn(self.tokens, spec.num_kv_heads, spec.head_dim)
            v = torch.randn(self.tokens, spec.num_kv_heads, spec.value_dim)
            outputs.append(attend(layer, *(tensor.to(self.cache.dtype) for tensor in (q, k, v))))
        return outputs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", ["sdpa", "grouped"])
@pytest.mark.parametrize("tile", [4, 128])
def test_random_steps_equal_the_reference(
    kind: str, backend: str, tile: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(grouped, "TILE_TOKENS", tile)
    for seed in range(60):
        step = Step(seed, KINDS[kind], torch.float32)
        for ours, expected in zip(step.run(backend), step.run("reference"), strict=True):
            assert ours.shape == expected.shape
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", ["sdpa", "grouped"])
def test_random_steps_in_bfloat16_are_near_the_reference(kind: str, backend: str):
    for seed in range(25):
        step = Step(seed, KINDS[kind], torch.bfloat16)
        for ours, expected in zip(step.run(backend), step.run("reference"), strict=True):
            torch.testing.assert_close(ours, expected, rtol=0.05, atol=0.05)


def test_a_step_with_more_scores_than_one_product_may_have_is_split(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(grouped, "MOST_SCORES", 100)
    for seed in range(10):
        step = Step(seed, [PLAIN], torch.float32)
        for ours, expected in zip(step.run("grouped"), step.run("reference"), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def rows_over(*tables: list[int], count: int = 1, size: int = 4) -> list[RowSpan]:
    return [RowSpan(0, count, len(table) * size, np.array(table)) for table in tables]


def shared(rows: list[RowSpan]) -> list[tuple[int, int]]:
    return sorted((group.blocks, len(group.rows)) for group in share(rows, 4))


TRUNK = list(range(20))


def test_rows_with_one_beginning_share_it():
    assert shared(rows_over(*([*TRUNK, 50 + i] for i in range(5)))) == [(20, 5)]


def test_rows_with_nothing_in_common_are_one_group_that_shares_nothing():
    assert shared(rows_over(*([100 * i + j for j in range(20)] for i in range(5)))) == [(0, 5)]


def test_branches_share_more_than_their_trunk_where_that_saves_more():
    left = [[0, *range(100, 120), 200 + i] for i in range(4)]
    right = [[0, *range(300, 320), 400 + i] for i in range(4)]
    assert shared(rows_over(*left, *right)) == [(21, 4), (21, 4)]


def test_a_trunk_is_shared_where_its_branches_save_less():
    left = [[*TRUNK, 100, 200 + i] for i in range(4)]
    right = [[*TRUNK, 300, 400 + i] for i in range(4)]
    assert shared(rows_over(*left, *right)) == [(20, 8)]


def test_a_block_that_a_row_computes_in_this_step_is_not_shared_with_it():
    """The writer's own queries lie inside it, so they would see keys that come after them."""
    writer = rows_over(TRUNK, count=4 * 20)
    readers = rows_over(*([*TRUNK, 50 + i] for i in range(3)))
    groups = share([*writer, *readers], 4)
    assert all(writer[0] not in group.rows or not group.blocks for group in groups)
    assert max(group.blocks for group in groups) == 20


def test_any_number_of_rows_may_each_begin_with_the_one_before():
    rows = rows_over(*(list(range(length)) for length in range(2, 1502)))
    assert sum(len(group.rows) for group in share(rows, 4)) == len(rows)


def test_few_shared_blocks_are_not_worth_a_product_of_their_own():
    assert shared(rows_over([0, 1, 2], [0, 1, 3])) == [(0, 2)]


def emulated_varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    queries: torch.Tensor,
    keys: torch.Tensor,
    most_queries: int,
    longest: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> torch.Tensor:
    """What the documentation of ``varlen_attn`` promises, causal and aligned to the lower right."""
    assert queries.dtype == keys.dtype == torch.int32
    assert (enable_gqa, window_size[1]) == (q.shape[1] != k.shape[1], 0)
    out = torch.empty(*q.shape[:2], v.shape[2])
    for row in range(len(queries) - 1):
        mine = slice(int(queries[row]), int(queries[row + 1]))
        context = slice(int(keys[row]), int(keys[row + 1]))
        count, length = mine.stop - mine.start, context.stop - context.start
        assert count <= most_queries and length <= longest
        left = None if window_size[0] == -1 else window_size[0] + 1
        scores = torch.einsum(
            "qhd,khd->hqk", q[mine], k[context].repeat_interleave(q.shape[1] // k.shape[1], 1)
        )
        scores = scores * scale
        scores = scores.masked_fill(~causal_mask(count, length, CPU, left), float("-inf"))
        values = v[context].repeat_interleave(q.shape[1] // k.shape[1], 1)
        out[mine] = torch.einsum("hqk,khd->qhd", scores.softmax(-1), values)
    return out


@pytest.mark.parametrize("kind", ["grouped heads", "a head each", "window", "layers that differ"])
def test_varlen_is_called_with_what_it_needs(kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(varlen, "varlen_attn", emulated_varlen)
    for seed in range(10):
        step = Step(seed, KINDS[kind], torch.float32)
        ours = step.run(varlen.VarlenAttention())
        for mine, expected in zip(ours, step.run("reference"), strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)


def test_varlen_is_refused_where_it_cannot_run():
    with pytest.raises(UserError, match="varlen needs CUDA"):
        make_backend("varlen", CPU)
    with pytest.raises(UserError, match="softcap"):
        Step(0, KINDS["softcap"], torch.float32).run(varlen.VarlenAttention())


class Wrong(ReferenceAttention):
    """Fast, but forgets to scale."""

    def prepare(self, plan: AttentionPlan, cache: KVCache) -> Attend:
        attend = super().prepare(plan, cache)
        return lambda layer, q, k, v: attend(layer, q * 1.5, k, v)


class Failing(ReferenceAttention):
    def prepare(self, plan: AttentionPlan, cache: KVCache) -> Attend:
        raise RuntimeError("no kernel image is available for execution on the device")


class Slow(GroupedAttention):
    def prepare(self, plan: AttentionPlan, cache: KVCache) -> Attend:
        time.sleep(0.05)
        return super().prepare(plan, cache)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_fastest_backend_is_one_that_runs_and_is_right(dtype: torch.dtype):
    step = Step(3, KINDS["window"], dtype)
    good = GroupedAttention()
    chosen = FastestAttention([Wrong(), Failing(), Slow(), good])
    step.run(chosen)
    assert chosen.chosen is good


def test_where_no_candidate_is_right_the_reference_is_used():
    step = Step(3, KINDS["softcap"], torch.float32)
    chosen = FastestAttention([Wrong(), Failing(), varlen.VarlenAttention()])
    expected = step.run("reference")
    for ours, theirs in zip(step.run(chosen), expected, strict=True):
        assert torch.equal(ours, theirs)
    assert isinstance(chosen.chosen, ReferenceAttention)


@pytest.mark.parametrize("backend", ["sdpa", "grouped"])
@pytest.mark.parametrize("alike", [[0, 1, 0], [1, 0, 0], [0, 1, 0, 1], [0, 1, 2, 1, 0]])
def test_rows_of_one_shape_keep_their_places(backend: str, alike: list[int]):
    """Equal lengths, some beginning with the same block, though not enough to share: one part."""
    step = Step(0, [PLAIN], torch.float32)
    cache = KVCache([PLAIN], num_blocks=40, block_size=4, dtype=torch.float32, device=CPU)
    torch.manual_seed(0)
    for tensor in (*cache.keys, *cache.values):
        tensor[:, :40] = torch.randn_like(tensor[:, :40])
    own = iter(range(10, 40))
    step.rows = [
        RowSpan(first, 1, 12, np.array([trunk, next(own), next(own)]))
        for first, trunk in enumerate(alike)
    ]
    step.cache, step.tokens = cache, len(alike)
    step.plan = AttentionPlan(step.rows, torch.from_numpy(token_slots(step.rows, 4)))
    (expected,) = step.run("reference")
    (ours,) = step.run(backend)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
