"""The operators of `cpu.cpp` as Python sees them.

In bfloat16 alone. Each row of a result is computed from its own inputs in an order that no other
row changes: a token has the same logits, to the last bit, in whatever company it is computed.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ..models.base import AttentionSpec
from ..models.huge_pages import HugePages
from .build import load


class CompiledKernels:
    """A `Kernels` for CPUs; UserError where it cannot be had."""

    def __init__(self, progress: Callable[[str, float | None], None]) -> None:
        load(progress)
        self._memory = HugePages()
        ops = torch.ops.minisgl_tui
        # Overloads, found once: a step calls some hundreds.
        self.linear: Callable[..., Tensor] = ops.linear.default
        self.gated_linear: Callable[..., Tensor] = ops.gated_linear.default
        self.logits: Callable[..., Tensor] = ops.logits.default
        self.rms_norm: Callable[..., Tensor] = ops.rms_norm.default
        self.rotate: Callable[..., Tensor] = ops.rotate.default
        self._attend: Callable[..., Tensor] = ops.attend.default
        self._packed_shape: Callable[..., list[int]] = ops.packed_shape.default
        self._pack: Callable[..., None] = ops.pack.default

    @staticmethod
    def packs(weight: Tensor) -> bool:
        """The processor multiplies pairs."""
        return weight.dtype == torch.bfloat16 and weight.dim() == 2 and weight.shape[1] % 2 == 0

    def pack(self, weight: Tensor, *, gated: bool = False) -> Tensor:
        parts = weight.detach().chunk(2 if gated else 1)
        panels, *rest = self._packed_shape(*parts[0].shape)
        packed = self._memory.empty((len(parts) * panels, *rest), weight.dtype)
        for part, place in zip(parts, packed.split(panels), strict=True):
            self._pack(part, place)
        return packed

    @staticmethod
    def attends(layers: Iterable[AttentionSpec]) -> bool:
        """Whether heads are of a size that fills registers, in all of ``layers``."""
        return all(not (spec.head_dim % 32 or spec.value_dim % 32) for spec in layers)

    def attend(
        self,
        spec: AttentionSpec,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        keys: Tensor,
        values: Tensor,
        slots: Tensor,
        rows: Tensor,
        groups: Tensor,
        tables: Tensor,
    ) -> Tensor:
        """Store ``k [N, kv_heads, D]`` and ``v [N, kv_heads, Dv]`` in ``slots [N]`` of a layer's
        ``keys`` and ``values``, then attend: ``[N, heads, Dv]``.

        ``rows [R, 3]`` int64: the packed index of a row's first query, how many it has, and the
        length of its context, which lies in the blocks ``tables [R, longest]`` int64. ``groups
        [G, 3]`` int64 cover every row once: a first row, and how many from there on, of one query
        each, have how many positions in common; or one row alone.
        """
        window, softcap = spec.window or 0, spec.softcap or 0.0
        return self._attend(
            q, k, v, keys, values, slots, rows, groups, tables, spec.scale, window, softcap
        )
