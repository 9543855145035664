"""What every attention backend is given and must do.

One ``AttentionPlan`` describes the step; a backend turns it into the callable that each layer
calls. The contract that makes prefix sharing work: inside a layer, K/V of *all* tokens of the step
are written before any are read, because one request may read blocks that another fills right now.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from ...models.base import Attend, AttentionSpec
from ...plan import Foreseen, Row
from ..kv_cache import KVCache


@dataclass(frozen=True, slots=True)
class RowSpan:
    """One row of the step: ``count`` query tokens from packed index ``first``.

    Its request's context is ``length`` tokens long once they are written, and lives in ``blocks``
    (int64, one block id per ``block_size`` tokens, the last perhaps part full). Query ``i`` of the
    row is at position ``length - count + i`` and attends to the positions up to its own.
    """

    first: int
    count: int
    length: int
    blocks: np.ndarray

    @property
    def start(self) -> int:
        """Position of the first query: tokens of context that were there before."""
        return self.length - self.count

    def whole(self) -> "RowSpan":
        """The row's whole context, as if all of it were computed in this step."""
        return RowSpan(0, self.length, self.length, self.blocks)


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """A step as attention sees it, built once and used by every layer.

    ``slots [N]`` (int64, on the device) says where each packed token's K/V go.
    """

    rows: list[RowSpan]
    slots: Tensor


class AttentionBackend(Protocol):
    """Makes the attention callable of a step."""

    name: ClassVar[str]

    def prepare(self, plan: AttentionPlan, cache: KVCache) -> Attend:
        """Do the work that all layers share, and return what each layer calls."""
        ...


class Part(Protocol):
    """Rows of a step that run together: ``rows`` are the packed indices of their queries."""

    @property
    def rows(self) -> slice | Tensor: ...

    def attend(self, cache: KVCache, layer: int, q: Tensor) -> Tensor:
        """What these rows of ``q [N, heads, D]`` attend to: ``[their queries, heads, Dv]``."""
        ...


Arrange = Callable[[Sequence["RowSpan"], AttentionSpec, KVCache], Iterable[Part]]
"""Parts that together cover every row once, for layers of one kind."""


def attend_by_parts(plan: AttentionPlan, cache: KVCache, arrange: Arrange) -> Attend:
    """The callable of a backend that arranges a step once for each kind of layer."""
    kinds = {spec: list(arrange(plan.rows, spec, cache)) for spec in set(cache.layers)}

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        cache.write(layer, plan.slots, k, v)
        spec = cache.layers[layer]
        parts = kinds[spec]
        if len(parts) == 1 and isinstance(parts[0].rows, slice):  # the whole step, in order
            return parts[0].attend(cache, layer, q)
        out = q.new_empty(q.shape[0], spec.num_heads, spec.value_dim)
        for part in parts:
            out[part.rows] = part.attend(cache, layer, q)
        return out

    return attend


def row_spans(rows: Sequence[Row | Foreseen], block_size: int) -> list[RowSpan]:
    """``rows`` of a plan, packed in this order."""
    spans: list[RowSpan] = []
    first = 0
    for row in rows:
        used = -(-row.end // block_size)
        blocks = np.asarray(row.table[:used], dtype=np.int64)
        spans.append(RowSpan(first, row.count, row.end, blocks))
        first += row.count
    return spans


def token_slots(spans: Sequence[RowSpan], block_size: int) -> np.ndarray:
    """Slot of every packed token, int64 ``[N]``."""
    parts: list[np.ndarray] = []
    for span in spans:
        positions = np.arange(span.start, span.length)
        parts.append(span.blocks[positions // block_size] * block_size + positions % block_size)
    return np.concatenate(parts)


def begun_blocks(spans: list[RowSpan], block_size: int) -> list[int]:
    """Blocks that get their first tokens in this step, but not all: the rest must read as zero."""
    return [
        int(span.blocks[-1])
        for span in spans
        if span.length % block_size and span.start <= span.length // block_size * block_size
    ]


def causal_mask(count: int, length: int, device: torch.device, window: int | None = None) -> Tensor:
    """Bool ``[count, length]``, true where query ``i`` sees key ``j``.

    Aligned bottom-right: the last query sees the last key. ``is_causal`` of PyTorch's attention is
    aligned top-left, so it is right only where ``count == length``.
    """
    keys = torch.arange(length, device=device)
    queries = torch.arange(length - count, length, device=device)[:, None]
    seen = keys <= queries
    return seen if window is None else seen & (keys > queries - window)


def cap(scores: Tensor, softcap: float | None) -> Tensor:
    """Scores squeezed smoothly into ``(-softcap, softcap)``."""
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)
