"""The native decoder: one parametric transformer for all of ``families``.

Owns the mathematics of a layer. It knows nothing of blocks or requests: tokens arrive packed, and a
callable does the attention. Arithmetic follows transformers' order of operations, so that float32
results agree to the last digits.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Attend, Kernels, Scoring
from .config import ModelConfig
from .linear import GatedLinear, Layout, Linear, adapt_linears, layout_of_shared
from .module import Module
from .moe import Experts
from .rope import inverse_frequencies

_SIGNS = torch.tensor([[1.0], [-1.0]], dtype=torch.bfloat16, device="cpu")


class RMSNorm(Module):
    """``x / rms(x) * weight`` over the last dimension, computed in float32."""

    kernels: Kernels | None = None

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size), requires_grad=False)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        if self.kernels is not None:
            return self.kernels.rms_norm(x, weight, self.eps)
        if x.shape[0] == 1 and x.dtype == torch.bfloat16 and x.device.type == "cpu":
            # Eight small kernels there, but layer norm is one, and the same where the mean is 0.
            pair = x.unsqueeze(-2) * _SIGNS
            return F.layer_norm(pair, pair.shape[-2:], eps=self.eps).select(-2, 0) * weight
        return F.rms_norm(x, weight.shape, weight, self.eps)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding in the half-split layout: ``x [N, heads, D]``, ``cos``/``sin [N, 1, D]``.

    ``sin`` comes negated in its first half.
    """
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


class Attention(Module):
    """Projections, optional q/k norm and rotary embedding around the attention callable."""

    kernels: Kernels | None = None

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.rotary = layer, config.rotary[layer]
        self.heads, self.kv_heads = config.num_heads, config.num_kv_heads
        self.head_dim = config.head_dim
        outputs = (self.heads + 2 * self.kv_heads) * self.head_dim
        self.qkv_proj = Linear(config.hidden_size, outputs, config.qkv_bias)
        self.o_proj = Linear(self.heads * self.head_dim, config.hidden_size, config.output_bias)
        self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps) if config.qk_norm else None

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        attend: Attend,
        residual: Tensor,
        rows: Tensor | None,
    ) -> Tensor:
        """``residual`` plus what attention adds; of ``rows`` alone if given."""
        qkv = self.qkv_proj(x).view(x.shape[0], -1, self.head_dim)
        qk, v = qkv.split_with_sizes((self.heads + self.kv_heads, self.kv_heads), dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = qk.split((self.heads, self.kv_heads), dim=1)
            qk = torch.cat((self.q_norm(q), self.k_norm(k)), dim=1)
        if self.rotary:
            qk = self.kernels.rotate(qk, cos, sin) if self.kernels else rotate(qk, cos, sin)
        q, k = qk.split_with_sizes((self.heads, self.kv_heads), dim=1)
        out = attend(self.layer, q, k, v).flatten(1)
        if rows is not None:
            out, residual = out[rows], residual[rows]
        return self.o_proj(out, residual)


class MLP(Module):
    """``down(silu(gate(x)) * up(x))`` with gate and up in one matrix."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        size, inner = config.hidden_size, config.intermediate_size
        self.gate_up_proj = GatedLinear(size, inner, config.mlp_bias)
        self.down_proj = Linear(inner, size, config.mlp_bias)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.down_proj(self.gate_up_proj(x), residual)


class Layer(Module):
    """Pre-norm residual block."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, layer)
        experts = config.experts
        if experts is None or not experts.sparse[layer]:
            self.mlp = MLP(config)
        else:
            self.mlp = Experts(experts, config.hidden_size)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend, rows: Tensor | None
    ) -> Tensor:
        """Of ``rows`` alone if given."""
        x = self.self_attn(self.input_layernorm(x), cos, sin, attend, x, rows)
        return self.mlp(self.post_attention_layernorm(x), x)


class Decoder(Module):
    """Token ids in, logits out.

    ``slots`` says which of a checkpoint's tensors fills what.
    """

    inverse_frequencies: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Parameter(
            torch.empty(config.vocab_size, config.hidden_size), requires_grad=False
        )
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = (
            None if config.tied_embeddings else Linear(config.hidden_size, config.vocab_size, False)
        )
        self.tied_head: Layout | None = None
        # Not a buffer: it stays float32 whatever the weights are, and no checkpoint holds it.
        self.inverse_frequencies = inverse_frequencies(config.rope, config.head_dim)

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        attend: Attend,
        sample_rows: Tensor,
        scoring: Scoring | None = None,
    ) -> Tensor:
        """Logits ``[S, vocab]`` float32 of the tokens at ``sample_rows [S]``.

        ``input_ids`` and ``positions`` are ``[N]`` int64: all tokens of the step, packed.
        """
        x = F.embedding(input_ids, self.embed_tokens)
        cos, sin = self.rotations(positions, x.dtype)
        scored = sample_rows[:0] if scoring is None else scoring.rows
        wanted = torch.cat((scored, sample_rows))
        for layer in self.layers[:-1]:
            x = layer(x, cos, sin, attend, None)
        # What the last layer makes of the other rows is of use to nobody.
        x = self.layers[-1](x, cos, sin, attend, wanted)
        if scoring is not None:
            scoring.feed(x[: len(scored)], lambda part: self._head(self.norm(part)))
        return self._head(self.norm(x[len(scored) :]))

    def pack(self, kernels: Kernels | None = None) -> None:
        """Let the weights be rearranged for the processor, where that pays, or for ``kernels``.
        They cannot be read then."""
        adapt_linears(self, kernels)
        if self.lm_head is None:
            self.tied_head = layout_of_shared(self.embed_tokens, kernels)
        for module in self.modules():
            if isinstance(module, RMSNorm | Attention):
                module.kernels = kernels

    def _head(self, x: Tensor) -> Tensor:
        layout = self.tied_head if self.lm_head is None else self.lm_head.layout
        if layout is not None:
            return layout.logits(x)
        weight = self.embed_tokens if self.lm_head is None else self.lm_head.weight
        return F.linear(x, weight).float()

    def rotations(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """What ``rotate`` needs for every token's position, each ``[N, 1, head_dim]``."""
        if self.inverse_frequencies.device != positions.device:
            self.inverse_frequencies = self.inverse_frequencies.to(positions.device)
        angles = positions[:, None].float() * self.inverse_frequencies
        factor = self.config.rope.attention_factor
        cos, sin = angles.cos() * factor, angles.sin() * factor
        cos, sin = torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
        return cos[:, None, :].to(dtype), sin[:, None, :].to(dtype)
