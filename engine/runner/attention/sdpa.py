"""Attention through PyTorch's ``scaled_dot_product_attention``: the backend for GPUs.

Rows of one token (decodes) run together, padded to the longest of their bucket, with the query
heads that share a KV head as the rows of one query. Longer rows (prefill chunks) run one by one,
without padding.
"""

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.base import Attend, AttentionSpec
from ..kv_cache import KVCache
from .base import AttentionPlan, RowSpan, cap, causal_mask

_Part = Callable[[int, Tensor, Tensor], None]
"""``part(layer, q, out)`` fills the rows of ``out`` that it is responsible for."""


class SdpaAttention:
    """Buckets the decodes of a step by length and gathers K/V by block."""

    name: ClassVar[str] = "sdpa"

    def prepare(self, plan: AttentionPlan, cache: KVCache) -> Attend:
        kinds = {spec: list(_arrange(plan.rows, spec, cache)) for spec in set(cache.layers)}

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            cache.write(layer, plan.slots, k, v)
            spec = cache.layers[layer]
            out = q.new_empty(q.shape[0], spec.num_heads, spec.value_dim)
            for part in kinds[spec]:
                part(layer, q, out)
            return out

        return attend


def _arrange(rows: list[RowSpan], spec: AttentionSpec, cache: KVCache) -> list[_Part]:
    buckets: dict[int, list[RowSpan]] = {}
    parts: list[_Part] = []
    for row in rows:
        if row.count == 1:
            # Powers of two: at most half of what a bucket gathers is padding.
            buckets.setdefault(len(row.blocks).bit_length(), []).append(row)
        else:
            parts.append(_prefill(row, spec, cache))
    parts.extend(_decode(bucket, spec, cache) for bucket in buckets.values())
    return parts


def _prefill(row: RowSpan, spec: AttentionSpec, cache: KVCache) -> _Part:
    index = cache.index(row.blocks, spec.num_kv_heads)
    windowed = spec.window is not None and spec.window < row.length
    causal = row.start == 0 and not windowed
    mask = None if causal else causal_mask(row.count, row.length, cache.device, spec.window)
    mine = slice(row.first, row.first + row.count)

    def part(layer: int, q: Tensor, out: Tensor) -> None:
        k, v = (tensor[:, : row.length] for tensor in cache.gather(layer, index, 1))
        out[mine] = _attention(q[mine].transpose(0, 1), k, v, mask, causal, spec).transpose(0, 1)

    return part


def _decode(rows: list[RowSpan], spec: AttentionSpec, cache: KVCache) -> _Part:
    longest, heads = max(len(row.blocks) for row in rows), spec.num_kv_heads
    tables = np.full((len(rows), longest), cache.padding_block, dtype=np.int64)
    for index, row in enumerate(rows):
        tables[index, : len(row.blocks)] = row.blocks
    own = cache.index(tables.ravel(), heads)
    first = torch.tensor([row.first for row in rows], device=cache.device)
    lengths = torch.tensor([row.length for row in rows], device=cache.device)[:, None]
    positions = torch.arange(longest * cache.block_size, device=cache.device)
    seen = positions < lengths
    if spec.window is not None:
        seen &= positions >= lengths - spec.window
    mask = seen[:, None, :].repeat(heads, 1, 1)

    def part(layer: int, q: Tensor, out: Tensor) -> None:
        k, v = cache.gather(layer, own, len(rows))
        queries = q.index_select(0, first).view(len(rows), heads, spec.group, -1)
        result = _attention(queries.transpose(0, 1).flatten(0, 1), k, v, mask, False, spec)
        result = result.view(heads, len(rows), spec.group, -1).transpose(0, 1)
        out.index_copy_(0, first, result.reshape(len(rows), spec.num_heads, -1))

    return part


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
