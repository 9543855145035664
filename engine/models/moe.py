"""Mixture of experts: a router picks a few of many MLPs for each token.

Owns routing and the experts' arithmetic. Tokens are sorted by expert, so that each expert in use
costs one matrix product for all its tokens, whoever they belong to; nothing is done per token in
Python.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ExpertsConfig
from .module import Module


class Experts(Module):
    """``sum_e p_e * down_e(silu(gate_e(x)) * up_e(x))`` over the likeliest experts of each token.

    ``gate [E, hidden]`` is the router. ``gate_up_proj [E, 2 * inner, hidden]`` and
    ``down_proj [E, hidden, inner]`` hold all experts.
    """

    def __init__(self, config: ExpertsConfig, hidden_size: int) -> None:
        super().__init__()
        self.top_k, self.normalize = config.top_k, config.normalize
        count, inner = config.num_experts, config.intermediate_size

        def empty(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape), requires_grad=False)

        self.gate = empty(count, hidden_size)
        self.gate_up_proj = empty(count, 2 * inner, hidden_size)
        self.down_proj = empty(count, hidden_size, inner)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        weights, chosen = self.route(x)
        chosen = chosen.flatten()
        order = chosen.argsort(stable=True)
        counts = _histogram(chosen, len(self.gate))
        gate, up = _by_expert(x[order // self.top_k], self.gate_up_proj, counts).chunk(2, dim=-1)
        sorted_out = _by_expert(F.silu(gate) * up, self.down_proj, counts)
        out = torch.empty_like(sorted_out)
        out[order] = sorted_out
        # Summed in each token's own order, so that its company in the batch changes nothing.
        parts = out.view(len(x), self.top_k, out.shape[-1])
        return residual + torch.einsum("nkh,nk->nh", parts, weights.to(x.dtype))

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights float32 and indices int64, each ``[N, top_k]``, of the experts of each token."""
        odds = F.linear(x, self.gate).float().softmax(dim=-1)
        weights, chosen = odds.topk(self.top_k, dim=-1)
        if self.normalize:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return weights, chosen


def _histogram(values: Tensor, size: int) -> Tensor:
    """How often each of ``0 .. size - 1`` occurs, ``[size]`` int64, without waiting for a GPU."""
    counts = torch.zeros(size, dtype=torch.int64, device=values.device)
    return counts.index_add_(0, values, torch.ones_like(values))


def _by_expert(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """``x @ weight[e].T`` for rows sorted by expert, ``counts[e]`` of them for expert ``e``."""
    if _has_kernel(x, weight):
        ends = counts.cumsum(0).to(torch.int32)
        return F.grouped_mm(x, weight.transpose(1, 2), offs=ends)
    parts = enumerate(x.split(counts.tolist()))
    return torch.cat([F.linear(part, weight[expert]) for expert, part in parts if len(part)])


def _has_kernel(x: Tensor, weight: Tensor) -> bool:
    """PyTorch from 2.10 on has one, for rows of 16 bytes each; on CUDA bfloat16 on Ampere on."""
    if not hasattr(F, "grouped_mm"):
        return False
    if any(size * x.element_size() % 16 for size in weight.shape[1:]):
        return False
    if x.device.type == "cuda":
        return x.dtype == torch.bfloat16 and torch.cuda.get_device_capability(x.device) >= (8, 0)
    return x.device.type == "cpu"
