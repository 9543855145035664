"""Attention through PyTorch's ``scaled_dot_product_attention``: the backend for GPUs.

Rows of one token (decodes) run together, padded to the longest of their bucket, with the query
heads that share a KV head as the rows of one query. Longer rows (prefill chunks) run one by one,
without padding.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.base import Attend, AttentionSpec
from ..kv_cache import KVCache
from .base import AttentionPlan, Part, RowSpan, attend_by_parts, cap, causal_mask


class SdpaAttention:
    """Buckets the decodes of a step by length and gathers K/V by block."""

    name: ClassVar[str] = "sdpa"

    def prepare(self, plan: AttentionPlan, cache: KVCache) -> Attend:
        return attend_by_parts(plan, cache, _arrange)


def _arrange(rows: Sequence[RowSpan], spec: AttentionSpec, cache: KVCache) -> Iterator[Part]:
    buckets: defaultdict[int, list[RowSpan]] = defaultdict(list)
    for row in rows:
        if row.count == 1:
            # Powers of two: at most half of what a bucket gathers is padding.
            buckets[len(row.blocks).bit_length()].append(row)
        else:
            yield _chunk(row, spec, cache)
    for bucket in buckets.values():
        yield _decodes(bucket, spec, cache)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """One row; ``mask [queries, length]``, or None where it is simply causal."""

    spec: AttentionSpec
    rows: slice
    own: Tensor
    length: int
    mask: Tensor | None

    def attend(self, cache: KVCache, layer: int, q: Tensor) -> Tensor:
        k, v = (tensor[:, : self.length] for tensor in cache.gather(layer, self.own, 1))
        queries, causal = q[self.rows].transpose(0, 1), self.mask is None
        return _attention(queries, k, v, self.mask, causal, self.spec).transpose(0, 1)


@dataclass(frozen=True, slots=True)
class _Decodes:
    """Rows of one query each; ``mask [KV * rows, 1, length]`` is true where it sees a key."""

    spec: AttentionSpec
    rows: Tensor
    own: Tensor
    mask: Tensor

    def attend(self, cache: KVCache, layer: int, q: Tensor) -> Tensor:
        spec, batch = self.spec, len(self.rows)
        k, v = cache.gather(layer, self.own, batch)
        queries = q.index_select(0, self.rows).view(batch, spec.num_kv_heads, spec.group, -1)
        result = _attention(queries.transpose(0, 1).flatten(0, 1), k, v, self.mask, False, spec)
        result = result.view(spec.num_kv_heads, batch, spec.group, -1).transpose(0, 1)
        return result.reshape(batch, spec.num_heads, -1)


def _chunk(row: RowSpan, spec: AttentionSpec, cache: KVCache) -> _Chunk:
    windowed = spec.window is not None and spec.window < row.length
    simple = row.start == 0 and not windowed
    mask = None if simple else causal_mask(row.count, row.length, cache.device, spec.window)
    rows = slice(row.first, row.first + row.count)
    return _Chunk(spec, rows, cache.index(row.blocks, spec.num_kv_heads), row.length, mask)


def _decodes(rows: list[RowSpan], spec: AttentionSpec, cache: KVCache) -> _Decodes:
    longest, heads = max(len(row.blocks) for row in rows), spec.num_kv_heads
    tables = np.full((len(rows), longest), cache.padding_block, dtype=np.int64)
    for index, row in enumerate(rows):
        tables[index, : len(row.blocks)] = row.blocks
    lengths = torch.tensor([row.length for row in rows], device=cache.device)[:, None]
    positions = torch.arange(longest * cache.block_size, device=cache.device)
    seen = positions < lengths
    if spec.window is not None:
        seen &= positions >= lengths - spec.window
    return _Decodes(
        spec=spec,
        rows=torch.tensor([row.first for row in rows], device=cache.device),
        own=cache.index(tables.ravel(), heads),
        mask=seen[:, None, :].repeat(heads, 1, 1),
    )


def _attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, spec: AttentionSpec
) -> Tensor:
    """``q [B, T, D]`` against ``k [B / n, L, D]``, ``v [B / n, L, Dv]``: ``[B, T, Dv]``.

    ``n`` is 1, or ``group`` where each KV head serves so many query heads that follow one another.
    """
    if spec.softcap is None:
        return F.scaled_dot_product_attention(
            q[None],
            k[None],
            v[None],
            attn_mask=mask,
            is_causal=causal,
            scale=spec.scale,
            enable_gqa=len(q) != len(k),
        )[0]
    if causal:
        mask = causal_mask(q.shape[1], k.shape[1], q.device)
    k, v = (tensor.repeat_interleave(len(q) // len(k), dim=0) for tensor in (k, v))
    scores = cap((q @ k.mT).float() * spec.scale, spec.softcap)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1).to(v.dtype) @ v
