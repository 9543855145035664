"""Attention by a compiled kernel that reads keys and values where they lie, block by block.

Decodes whose contexts begin with the same blocks read those together.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ...kernels.compiled import CompiledKernels
from ...models.base import Attend
from ..kv_cache import KVCache
from .base import AttentionPlan, RowSpan
from .sharing import Group, share

TOGETHER = 8  # rows of a group; more would leave too few groups for the processor's cores


class CompiledAttention:
    """The backend of ``--compile``."""

    name: ClassVar[str] = "compiled"

    def __init__(self, kernels: CompiledKernels) -> None:
        self._kernels = kernels

    def prepare(self, plan: AttentionPlan, cache: KVCache) -> Attend:
        windowed = any(spec.window is not None for spec in cache.layers)
        groups = list(_groups(plan.rows, cache.block_size, windowed))
        rows = [row for group in groups for row in group.rows]
        firsts = np.cumsum([0, *(len(group.rows) for group in groups)]).tolist()
        longest = max(len(row.blocks) for row in rows)
        tables = np.zeros((len(rows), longest), dtype=np.int64)
        for table, row in zip(tables, rows, strict=True):
            table[: len(row.blocks)] = row.blocks
        spans = torch.tensor([(row.first, row.count, row.length) for row in rows])
        shared = torch.tensor(
            [
                (first, len(group.rows), group.blocks * cache.block_size)
                for first, group in zip(firsts, groups, strict=False)
            ]
        )
        blocks, kernels = torch.from_numpy(tables), self._kernels

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            spec, keys, values = cache.layers[layer], cache.keys[layer], cache.values[layer]
            return kernels.attend(spec, q, k, v, keys, values, plan.slots, spans, shared, blocks)

        return attend


def _groups(rows: Sequence[RowSpan], block_size: int, windowed: bool) -> Iterator[Group]:
    """``rows``, those together that the kernel can run together."""
    decodes = [row for row in rows if row.count == 1]
    yield from (Group(0, [row]) for row in rows if row.count > 1)
    # A window would cut the shared keys off at a different place for each row.
    for group in [Group(0, decodes)] if windowed else share(decodes, block_size):
        size = TOGETHER if group.blocks else 1
        for i in range(0, len(group.rows), size):
            yield Group(group.blocks, group.rows[i : i + size])
