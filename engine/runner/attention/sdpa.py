"""Attention with PyTorch's own kernels, on any device.

Rows of one token (decodes) run together, padded to the longest of their bucket: the query heads
that share a KV head become the rows of one small matrix product, so each key is read once. Longer
rows (prefill chunks) run one by one through ``scaled_dot_product_attention`` without padding.
"""

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.decoder import Attend
from ..kv_cache import KVCache
from .base import AttentionPlan, RowSpan, causal_mask

_Part = Callable[[int, Tensor, Tensor], None]
"""``part(layer, q, out)`` fills the rows of ``out`` that it is responsible for."""


class SdpaAttention:
    """Buckets the decodes of a step by length and gathers K/V by block."""

    name: ClassVar[str] = "sdpa"

    def prepare(self, plan: AttentionPlan, cache: KVCache) -> Attend:
        buckets: dict[int, list[RowSpan]] = {}
        parts: list[_Part] = []
        for row in plan.rows:
            if row.count == 1:
                # Powers of two: at most half of what a bucket gathers is padding.
                buckets.setdefault(len(row.blocks).bit_length(), []).append(row)
            else:
                parts.append(_prefill(row, cache))
        parts.extend(_decode(rows, cache) for rows in buckets.values())

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            cache.write(layer, plan.slots, k, v)
            out = torch.empty_like(q)
            for part in parts:
                part(layer, q, out)
            return out

        return attend


def _prefill(row: RowSpan, cache: KVCache) -> _Part:
    blocks = torch.from_numpy(row.blocks).to(cache.device)
    from_start = row.count == row.length
    mask = None if from_start else causal_mask(row.count, row.length, cache.device)
    grouped = cache.num_heads != cache.num_kv_heads
    mine = slice(row.first, row.first + row.count)

    def part(layer: int, q: Tensor, out: Tensor) -> None:
        k = cache.keys[layer].index_select(0, blocks).flatten(0, 1)[: row.length]
        v = cache.values[layer].index_select(0, blocks).flatten(0, 1)[: row.length]
        result = F.scaled_dot_product_attention(
            q[mine].transpose(0, 1)[None],
            k.transpose(0, 1)[None],
            v.transpose(0, 1)[None],
            attn_mask=mask,
            is_causal=from_start,
            enable_gqa=grouped,
        )
        out[mine] = result[0].transpose(0, 1)

    return part


def _decode(rows: list[RowSpan], cache: KVCache) -> _Part:
    batch, longest = len(rows), max(len(row.blocks) for row in rows)
    kv_heads, head_dim = cache.num_kv_heads, cache.head_dim
    group = cache.num_heads // kv_heads
    padded = longest * cache.block_size
    tables = np.zeros((batch, longest), dtype=np.int64)
    for index, row in enumerate(rows):
        tables[index, : len(row.blocks)] = row.blocks
    blocks = torch.from_numpy(tables.ravel()).to(cache.device)
    lengths = torch.tensor([row.length for row in rows], device=cache.device)
    first = torch.tensor([row.first for row in rows], device=cache.device)
    unused = torch.arange(padded, device=cache.device)[None, :] >= lengths[:, None]
    # Slots past a request's end hold other requests' values, or anything at all: 0 x NaN is NaN,
    # so values are cleared there as well as scores masked.
    unused_scores, unused_values = unused[:, None, None, :], unused[:, :, None, None]
    pads = bool(unused.any())

    def part(layer: int, q: Tensor, out: Tensor) -> None:
        shape = (batch, padded, kv_heads, head_dim)
        k = cache.keys[layer].index_select(0, blocks).view(shape)
        v = cache.values[layer].index_select(0, blocks).view(shape)
        queries = q.index_select(0, first).view(batch, kv_heads, group, head_dim)
        scores = (queries @ k.permute(0, 2, 3, 1)).float() * head_dim**-0.5
        if pads:
            scores.masked_fill_(unused_scores, float("-inf"))
            v.masked_fill_(unused_values, 0)
        weights = scores.softmax(dim=-1).to(v.dtype)
        result = weights @ v.permute(0, 2, 1, 3)
        out.index_copy_(0, first, result.reshape(batch, kv_heads * group, head_dim))

    return part
