"""Attention written to be obviously right: one request at a time, float32, no kernels.

The oracle that other backends are tested against; slow on purpose.
"""

from typing import ClassVar

import torch
from torch import Tensor

from ...models.base import Attend, AttentionSpec
from ..kv_cache import KVCache
from .base import AttentionPlan, cap, causal_mask


class ReferenceAttention:
    """Gathers each request's K/V slot by slot and does the textbook formula."""

    name: ClassVar[str] = "reference"

    def prepare(self, plan: AttentionPlan, cache: KVCache) -> Attend:
        device, size = cache.device, cache.block_size
        context_slots: list[Tensor] = []
        for row in plan.rows:
            blocks = torch.from_numpy(row.blocks).to(device)
            positions = torch.arange(row.length, device=device)
            context_slots.append(blocks[positions // size] * size + positions % size)
        masks = {
            window: [causal_mask(row.count, row.length, device, window) for row in plan.rows]
            for window in {spec.window for spec in cache.layers}
        }

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            cache.write(layer, plan.slots, k, v)
            keys, values = cache.keys[layer].flatten(1, 2), cache.values[layer].flatten(1, 2)
            spec = cache.layers[layer]
            out = q.new_empty(q.shape[0], spec.num_heads, spec.value_dim)
            for row, slots, mask in zip(plan.rows, context_slots, masks[spec.window], strict=True):
                mine = slice(row.first, row.first + row.count)
                out[mine] = _attention(q[mine], keys[:, slots], values[:, slots], mask, spec)
            return out

        return attend


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, spec: AttentionSpec) -> Tensor:
    """``q [T, H, D]`` against ``k [KV, L, D]``, ``v [KV, L, Dv]`` where ``mask [T, L]``:
    ``[T, H, Dv]``."""
    k = k.float().repeat_interleave(spec.group, dim=0)
    v = v.float().repeat_interleave(spec.group, dim=0)
    scores = cap(torch.einsum("thd,hld->htl", q.float(), k) * spec.scale, spec.softcap)
    weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)
    return torch.einsum("htl,hld->thd", weights, v).to(q.dtype)
