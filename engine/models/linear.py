"""Matrix products with weights, in the layout that the processor likes best.

oneDNN, which PyTorch uses on CPUs, rearranges a weight before it multiplies unless that has been
done once before. Rearranged ("packed") weights make a product of few rows up to 1.7 times as fast.
The operators that do it are not public API: they are called in this file only, and where they are
missing or wrong the plain product is used.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Module):
    """``x @ weight.T + bias``; the parameters are filled by the weight loader."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(outputs), requires_grad=False) if bias else None
        self.packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.packed is None:
            return F.linear(x, self.weight, self.bias)
        return multiply_packed(x, self.packed, self.bias)

    def pack(self) -> None:
        """Replace the weight by its packed form, where that pays; it can then not be read."""
        if packs(self.weight):
            self.packed = pack(self.weight)
            self.register_parameter("weight", None)


def packs(weight: Tensor) -> bool:
    """Whether products with ``weight`` gain from packing it, and can be trusted here."""
    is_candidate = weight.device.type == "cpu" and weight.dtype == torch.bfloat16
    return is_candidate and _packing_works()


def pack(weight: Tensor) -> Tensor:
    """``weight [outputs, inputs]`` in the processor's own layout; only for ``multiply_packed``."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach())


def multiply_packed(x: Tensor, packed: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x [N, inputs] @ weight.T + bias`` for a packed weight: ``[N, outputs]``."""
    if not len(x):
        return x.new_empty(0, packed.shape[0])
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


@cache
def _packing_works() -> bool:
    """Whether this build of PyTorch packs, and gets the right product, with and without bias."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 64), (96, 64), (96,))
    x, weight, bias = (torch.randn(shape, generator=generator).bfloat16() for shape in shapes)
    try:
        packed = pack(weight)
        ours = [multiply_packed(x, packed, b).float() for b in (None, bias)]
    except (AttributeError, RuntimeError, TypeError):
        return False
    theirs = [F.linear(x, weight, b).float() for b in (None, bias)]
    return all(
        torch.allclose(*pair, atol=0.1, rtol=0.02) for pair in zip(ours, theirs, strict=True)
    )
