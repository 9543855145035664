"""Chooses among backends by trying them: what is right and fast here, this very build included.

Kernels differ in how they align a causal mask, in what they support and in speed, by version and by
GPU. So each candidate runs a small step; those that fail or disagree with the reference are out.
"""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ...models.base import Attend
from ..kv_cache import KVCache
from .base import AttentionBackend, AttentionPlan, RowSpan, begun_blocks, token_slots
from .reference import ReferenceAttention

_ROWS = ((1, 400), (1, 130), (1, 64), (200, 260), (64, 64))  # (queries, length): a typical mixture
_TRIES = 5


class FastestAttention:
    """The fastest of ``candidates`` that is right, decided at the first step."""

    name: ClassVar[str] = "fastest"

    def __init__(self, candidates: Sequence[AttentionBackend]) -> None:
        self.candidates = candidates
        self.chosen: AttentionBackend | None = None

    def prepare(self, plan: AttentionPlan, cache: KVCache) -> Attend:
        if self.chosen is None:
            self.chosen = fastest(self.candidates, cache)
        return self.chosen.prepare(plan, cache)


def fastest(candidates: Sequence[AttentionBackend], like: KVCache) -> AttentionBackend:
    """The quickest of ``candidates`` that agrees with the reference, on a cache ``like`` this one;
    the reference itself where none does."""
    trial = _Trial(like)
    expected = trial.outputs(ReferenceAttention())
    seconds = {}
    for backend in candidates:
        try:
            right = all(map(_agree, trial.outputs(backend), expected))
            if right:
                seconds[backend] = min(_seconds(trial, backend) for _ in range(_TRIES))
        except Exception:  # whatever a kernel raises where it does not run
            continue
    return min(seconds, key=lambda backend: seconds[backend], default=ReferenceAttention())


class _Trial:
    """A step over random keys and values, with one layer of each kind."""

    def __init__(self, like: KVCache) -> None:
        size, device = like.block_size, like.device
        tables = [-(-length // size) for _, length in _ROWS]
        ids = iter(np.random.default_rng(0).permutation(sum(tables)).tolist())
        blocks = [np.array([next(ids) for _ in range(count)]) for count in tables]
        counts = [count for count, _ in _ROWS]
        firsts = np.cumsum([0, *counts])[:-1].tolist()
        self.rows = [
            RowSpan(first, count, length, table)
            for first, (count, length), table in zip(firsts, _ROWS, blocks, strict=True)
        ]
        self.cache = KVCache(
            sorted(set(like.layers), key=repr),
            num_blocks=sum(tables),
            block_size=size,
            dtype=like.dtype,
            device=device,
        )
        generator = torch.Generator().manual_seed(0)

        def random(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(device, like.dtype)

        for tensor in (*self.cache.keys, *self.cache.values):
            tensor[:, : self.cache.num_blocks] = random(*tensor[:, : sum(tables)].shape)
        self.cache.clear(begun_blocks(self.rows, size))
        self.inputs = [
            (
                random(sum(counts), spec.num_heads, spec.head_dim),
                random(sum(counts), spec.num_kv_heads, spec.head_dim),
                random(sum(counts), spec.num_kv_heads, spec.value_dim),
            )
            for spec in self.cache.layers
        ]
        slots = torch.from_numpy(token_slots(self.rows, size)).to(device)
        self.plan = AttentionPlan(self.rows, slots)

    def outputs(self, backend: AttentionBackend) -> list[Tensor]:
        attend: Callable[..., Tensor] = backend.prepare(self.plan, self.cache)
        return [attend(layer, *inputs) for layer, inputs in enumerate(self.inputs)]


def _agree(ours: Tensor, expected: Tensor) -> bool:
    """As near as two right ways to compute it are in this dtype."""
    near = 1e-4 if ours.dtype == torch.float32 else 0.03
    return ours.shape == expected.shape and torch.allclose(
        ours.float(), expected.float(), rtol=near, atol=near
    )


def _seconds(trial: _Trial, backend: AttentionBackend) -> float:
    device = trial.cache.device
    began = perf_counter()
    trial.outputs(backend)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter() - began
