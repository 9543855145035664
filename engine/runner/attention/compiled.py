"""Attention by a compiled kernel that reads keys and values where they lie, block by block."""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ...kernels.compiled import CompiledKernels
from ...models.base import Attend
from ..kv_cache import KVCache
from .base import AttentionPlan


class CompiledAttention:
    """The backend of ``--compile``."""

    name: ClassVar[str] = "compiled"

    def __init__(self, kernels: CompiledKernels) -> None:
        self._kernels = kernels

    def prepare(self, plan: AttentionPlan, cache: KVCache) -> Attend:
        rows = torch.tensor([(row.first, row.count, row.length) for row in plan.rows])
        longest = max(len(row.blocks) for row in plan.rows)
        tables = np.zeros((len(plan.rows), longest), dtype=np.int64)
        for table, row in zip(tables, plan.rows, strict=True):
            table[: len(row.blocks)] = row.blocks
        blocks = torch.from_numpy(tables)
        kernels = self._kernels

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            spec, keys, values = cache.layers[layer], cache.keys[layer], cache.values[layer]
            return kernels.attend(spec, q, k, v, keys, values, plan.slots, rows, blocks)

        return attend
