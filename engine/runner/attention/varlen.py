"""Attention through PyTorch's ``varlen_attn`` (FlashAttention): CUDA only.

All rows run in one call without padding: their keys and values are gathered one behind the other.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ...errors import UserError
from ...models.base import Attend
from ..kv_cache import KVCache
from .base import AttentionPlan, token_slots

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # before PyTorch 2.10
    varlen_attn = None


class VarlenAttention:
    """Packs the contexts of all rows for one call a layer."""

    name: ClassVar[str] = "varlen"

    def prepare(self, plan: AttentionPlan, cache: KVCache) -> Attend:
        run = varlen_attn
        if run is None:
            raise UserError("--attention varlen needs PyTorch 2.10 or newer; use sdpa")
        if any(spec.softcap is not None for spec in cache.layers):
            raise UserError("--attention varlen has no softcap, which this model needs; use sdpa")
        rows, device = plan.rows, cache.device
        wholes = [row.whole() for row in rows]
        context = torch.from_numpy(token_slots(wholes, cache.block_size)).to(device)
        queries = _offsets([row.count for row in rows], device)
        keys = _offsets([row.length for row in rows], device)
        most_queries = max(row.count for row in rows)
        longest = max(row.length for row in rows)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            cache.write(layer, plan.slots, k, v)
            spec = cache.layers[layer]
            k, v = cache.gather_slots(layer, context)
            out = run(
                q.contiguous(),
                k,
                v,
                queries,
                keys,
                most_queries,
                longest,
                scale=spec.scale,
                window_size=(-1 if spec.window is None else spec.window - 1, 0),
                enable_gqa=spec.group > 1,
            )
            assert isinstance(out, Tensor)  # a pair only where more was asked for
            return out

        return attend


def _offsets(counts: list[int], device: torch.device) -> Tensor:
    """Where each row begins, and where the last ends: ``[rows + 1]`` int32."""
    return torch.from_numpy(np.cumsum([0, *counts], dtype=np.int32)).to(device)
