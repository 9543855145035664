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

from ...models.base import Attend
from ..kv_cache import KVCache
from .base import AttentionPlan, RowSpan, cap, causal_mask

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
            spec = cache.layers[layer]
            out = q.new_empty(q.shape[0], spec.num_heads, spec.value_dim)
            for part in parts:
                part(layer, q, out)
            return out

        return attend


def _prefill(row: RowSpan, cache: KVCache) -> _Part:
    blocks = torch.from_numpy(row.blocks).to(cache.device)
    from_start = row.count == row.length
    masks: dict[int | None, Tensor] = {}
    mine = slice(row.first, row.first + row.count)

    def mask_of(window: int | None) -> Tensor:
        if window not in masks:
            masks[window] = causal_mask(row.count, row.length, cache.device, window)
        return masks[window]

    def part(layer: int, q: Tensor, out: Tensor) -> None:
        spec = cache.layers[layer]
        k = cache.keys[layer].index_select(0, blocks).flatten(0, 1)[: row.length].transpose(0, 1)
        v = cache.values[layer].index_select(0, blocks).flatten(0, 1)[: row.length].transpose(0, 1)
        queries = q[mine].transpose(0, 1)
        window = None if spec.window is None or spec.window >= row.length else spec.window
        if spec.softcap is not None:
            queries = queries.reshape(spec.num_kv_heads, -1, spec.head_dim)
            scores = cap((queries @ k.mT).float() * spec.scale, spec.softcap)
            scores = scores.view(spec.num_kv_heads, spec.group, row.count, row.length)
            weights = (
                scores.masked_fill(~mask_of(window), float("-inf")).softmax(dim=-1).to(v.dtype)
            )
            result = (weights.flatten(1, 2) @ v).view(spec.num_heads, row.count, spec.value_dim)
        else:
            causal = from_start and window is None
            result = F.scaled_dot_product_attention(
                queries[None],
                k[None],
                v[None],
                attn_mask=None if causal else mask_of(window),
                is_causal=causal,
                scale=spec.scale,
                enable_gqa=spec.group > 1,
            )[0]
        out[mine] = result.transpose(0, 1)

    return part


def _decode(rows: list[RowSpan], cache: KVCache) -> _Part:
    batch, longest = len(rows), max(len(row.blocks) for row in rows)
    padded = longest * cache.block_size
    tables = np.zeros((batch, longest), dtype=np.int64)
    for index, row in enumerate(rows):
        tables[index, : len(row.blocks)] = row.blocks
    blocks = torch.from_numpy(tables.ravel()).to(cache.device)
    lengths = torch.tensor([row.length for row in rows], device=cache.device)[:, None]
    first = torch.tensor([row.first for row in rows], device=cache.device)
    positions = torch.arange(padded, device=cache.device)
    beyond = positions >= lengths
    # Slots past a request's end hold other requests' values, or anything at all: 0 x NaN is NaN,
    # so values are cleared there as well as scores masked.
    unused_values = beyond[:, :, None, None]
    pads = bool(beyond.any())
    unseen: dict[int | None, Tensor | None] = {None: beyond[:, None, None, :] if pads else None}

    def unseen_by(window: int | None) -> Tensor | None:
        if window not in unseen:
            hidden = beyond | (positions < lengths - (window or 0))
            unseen[window] = hidden[:, None, None, :] if bool(hidden.any()) else None
        return unseen[window]

    def part(layer: int, q: Tensor, out: Tensor) -> None:
        spec = cache.layers[layer]
        k = cache.keys[layer].index_select(0, blocks).view(batch, padded, -1, spec.head_dim)
        v = cache.values[layer].index_select(0, blocks).view(batch, padded, -1, spec.value_dim)
        queries = q.index_select(0, first).view(batch, -1, spec.group, spec.head_dim)
        scores = cap((queries @ k.permute(0, 2, 3, 1)).float() * spec.scale, spec.softcap)
        hidden = unseen_by(spec.window)
        if hidden is not None:
            scores.masked_fill_(hidden, float("-inf"))
        if pads:
            v.masked_fill_(unused_values, 0)
        weights = scores.softmax(dim=-1).to(v.dtype)
        result = weights @ v.permute(0, 2, 1, 3)
        out.index_copy_(0, first, result.reshape(batch, spec.num_heads, spec.value_dim))

    return part
