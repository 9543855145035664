"""What the engine needs of a model, whoever computes it.

Owns the contract between a model and the attention backends: the model computes everything but
attention, on packed tokens, and calls ``attend`` once per layer.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""``attend(layer, q [N, heads, D], k [N, kv_heads, D], v [N, kv_heads, Dv]) -> [N, heads, Dv]``:
stores k and v of all N tokens, then attends causally, each token within its own request."""


_SLICE = 64  # tokens whose logits are handed over at once


@dataclass(frozen=True, slots=True)
class Scoring:
    """Further tokens of a step whose logits are wanted: ``take`` gets those of ``rows [R]`` int64
    in order, a few rows ``[≤ R, vocab]`` float32 at a time."""

    rows: Tensor
    take: Callable[[Tensor], None]

    def feed(self, inputs: Tensor, logits: Callable[[Tensor], Tensor]) -> None:
        """Hand over ``logits`` of ``inputs [R, …]``, which belong to ``rows``, slice by slice."""
        for part in inputs.split(_SLICE):
            self.take(logits(part).float())


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """What one layer's attention computes.

    ``softmax(cap(scale * q @ k))`` where ``cap(x) = softcap * tanh(x / softcap)``, over the token
    itself and those before it: all of them, or with a ``window`` so that the token and the
    ``window - 1`` before it count. ``head_dim`` is that of queries and keys, ``value_dim`` that of
    values.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    value_dim: int
    scale: float
    window: int | None = None
    softcap: float | None = None

    @property
    def group(self) -> int:
        """Query heads that share a KV head."""
        return self.num_heads // self.num_kv_heads


class Kernels(Protocol):
    """Arithmetic of a decoder in place of PyTorch's own operators."""

    def packs(self, weight: Tensor) -> bool:
        """Whether ``linear`` can be had for ``weight``."""
        ...

    def pack(self, weight: Tensor, *, gated: bool = False) -> Tensor:
        """``weight [outputs, inputs]`` in a layout that only ``linear`` knows, or
        ``gated_linear``."""
        ...

    def linear(
        self,
        x: Tensor,
        packed: Tensor,
        outputs: int,
        bias: Tensor | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        """``x [..., inputs] @ weight.T + bias + residual``: ``[..., outputs]``."""
        ...

    def gated_linear(
        self, x: Tensor, packed: Tensor, outputs: int, bias: Tensor | None = None
    ) -> Tensor:
        """``silu(gate) * up``, where ``gate`` and ``up`` are the halves of
        ``x [..., inputs] @ weight.T + bias``: ``[..., outputs]``."""
        ...

    def logits(self, x: Tensor, packed: Tensor, outputs: int) -> Tensor:
        """``x [..., inputs] @ weight.T``: ``[..., outputs]`` float32, never rounded to less."""
        ...

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """``x / rms(x) * weight`` over the last dimension."""
        ...

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """As ``decoder.rotate``."""
        ...


class CausalLM(Protocol):
    """A model with its weights."""

    def __call__(
        self,
        input_ids: Tensor,
        positions: Tensor,
        attend: Attend,
        sample_rows: Tensor,
        scoring: Scoring | None = None,
    ) -> Tensor:
        """Logits ``[S, vocab]`` float32 of the tokens at ``sample_rows [S]``, and what ``scoring``
        asks for.

        ``input_ids`` and ``positions`` are ``[N]`` int64: all tokens of the step, packed.
        """
        ...

    def parameters(self) -> Iterator[torch.nn.Parameter]: ...

    def pack(self, kernels: Kernels | None = None) -> None:
        """Let the weights be rearranged for the processor, where that pays, or for ``kernels``.
        They cannot be read then."""
        ...


class Checkpoint(Protocol):
    """A model directory whose config has been read and can be run; weights come with ``load``.

    ``attention`` has one entry per layer. ``max_context`` is the longest sequence, in tokens.
    ``compiles`` says whether ``Kernels`` compute all that is multiplied with weights.
    """

    architecture: str
    vocab_size: int
    max_context: int
    attention: list[AttentionSpec]
    compiles: bool

    def load(
        self,
        *,
        dtype: torch.dtype,
        device: torch.device,
        progress: Callable[[float], None] = lambda fraction: None,
    ) -> CausalLM:
        """Read the weights; UserError names the file and the tensor where that fails.

        ``progress`` gets the fraction of bytes read.
        """
        ...
