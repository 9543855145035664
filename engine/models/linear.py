"""Matrix products with weights, in the layout that the processor likes best.

oneDNN, which PyTorch uses on CPUs, rearranges a weight before it multiplies unless that has been
done once before. Rearranged ("packed") weights make a product of few rows up to 1.7 times as fast.
The operators that do it are not public API: they are called in this file only, and where they are
missing or wrong the plain product is used.
"""

import os
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# A kernel is made for each number of rows and kept: 1,024 by oneDNN, as many again by PyTorch's
# layer above it, half a gigabyte in a server that has met them all. The second cache saves no time,
# and a step needs far fewer than 256. Both settings are read when the first product is computed.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")
os.environ.setdefault("LRU_CACHE_CAPACITY", "1")


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


def pack_linears(model: nn.Module, run: Callable[[], object]) -> None:
    """Pack the weights of the ``nn.Linear`` layers in somebody else's ``model``, where that pays.

    That is right only where nobody but the layer reads its weight. Weights that modules share are
    left alone, and ``run``, which uses the model, has to come through while no other can be read;
    if it raises, nothing is changed.
    """
    everywhere = chain.from_iterable(module._parameters.values() for module in model.modules())
    holders = Counter(id(parameter) for parameter in everywhere)
    layers = [
        module
        for module in model.modules()
        if type(module) is nn.Linear and holders[id(module.weight)] == 1 and packs(module.weight)
    ]
    weights = [layer.weight for layer in layers]
    for layer, weight in zip(layers, weights, strict=True):
        layer.weight = nn.Parameter(weight.to("meta"), requires_grad=False)  # still has its shape
        layer.forward = partial(F.linear, weight=weight, bias=layer.bias)
    try:
        run()
    except Exception:  # whatever a model's own code raises
        for layer, weight in zip(layers, weights, strict=True):
            layer.weight = weight
            del layer.forward
        return
    for layer in reversed(layers):
        packed = pack(weights.pop())
        layer.forward = partial(multiply_packed, packed=packed, bias=layer.bias)


def packs(weight: Tensor) -> bool:
    """Whether products with ``weight`` gain from packing it, and can be trusted here."""
    is_candidate = weight.device.type == "cpu" and weight.dtype == torch.bfloat16
    return is_candidate and _packing_works()


def pack(weight: Tensor) -> Tensor:
    """``weight [outputs, inputs]`` in the processor's own layout; only for ``multiply_packed``."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach())


def multiply_packed(input: Tensor, packed: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input [..., inputs] @ weight.T + bias`` for a packed weight: ``[..., outputs]``."""
    if not input.numel():
        return input.new_empty(*input.shape[:-1], packed.shape[0])
    return torch.ops.mkldnn._linear_pointwise(input, packed, bias, "none", [], "")


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
