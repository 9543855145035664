"""Matrix products with weights, in the layout that the processor likes best.

oneDNN, which PyTorch has on CPUs, rearranges a weight before it multiplies unless that has been
done once before. Rearranged ("packed") weights make products in float32 1.3 to 2 times as fast, for
any number of rows. In bfloat16 it is up to 1.7 times for a few rows; but for one, the step of a
single stream, PyTorch's own kernel reads the weight as it is, in 4/5 of the time.

The operators that pack are not public API: they are called in this file only, and where they are
missing or wrong the plain product is used. Compiled kernels have a layout of their own.
"""

import os
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from itertools import chain
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Kernels
from .module import Module

# A kernel is made for each number of rows and kept: 1,024 by oneDNN, as many again by PyTorch's
# layer above it, half a gigabyte in a server that has met them all. The second cache saves no time,
# and a step needs far fewer than 256. Both settings are read when the first product is computed.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")
os.environ.setdefault("LRU_CACHE_CAPACITY", "1")

PATIENCE = 16  # products; rearranging costs what about 40 gain from it
MANY_ROWS = 64  # from here on either layout will do
_AT_ONCE = 4  # weights that are rearranged in one step
_PACKED_DTYPES = (torch.float32, torch.bfloat16)


class Layout(Protocol):
    """A weight that is kept in a layout of its own."""

    def multiply(
        self, input: Tensor, bias: Tensor | None = None, residual: Tensor | None = None
    ) -> Tensor:
        """``input [..., inputs] @ weight.T + bias + residual``: ``[..., outputs]``."""
        ...

    def logits(self, input: Tensor) -> Tensor:
        """``input [..., inputs] @ weight.T``: ``[..., outputs]`` float32."""
        ...


class Linear(Module):
    """``x @ weight.T + bias``; the parameters are filled by the weight loader."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(outputs), requires_grad=False) if bias else None
        self.layout: Layout | None = None

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """``residual`` is added to the product."""
        if self.layout is not None:
            return self.layout.multiply(x, self.bias, residual)
        return _added(residual, F.linear(x, self.weight, self.bias))


class GatedLinear(Linear):
    """``silu(gate) * up`` of ``outputs`` each, products with one matrix that holds both."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__(inputs, 2 * outputs, bias)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        product = super().forward(x)
        if isinstance(self.layout, Panels):  # has done the rest, too
            return _added(residual, product)
        gate, up = product.chunk(2, dim=-1)
        return _added(residual, F.silu(gate).mul_(up))


class Layouts:
    """A weight that is kept in the layout its products gain from.

    Both would take twice the memory, so it is rearranged once ``patience`` products in a row would
    have gained from the other. Only a weight that somebody else reads is kept in both.
    """

    def __init__(self, weight: Tensor, *, patience: int = PATIENCE, shared: bool = False) -> None:
        self.plain: Tensor | None = weight.detach()
        self.packed = pack(weight) if shared else None
        self.patience, self.shared = patience, shared
        self._misfits = 0

    def multiply(
        self, input: Tensor, bias: Tensor | None = None, residual: Tensor | None = None
    ) -> Tensor:
        return _added(residual, self._multiply(input, bias))

    def logits(self, input: Tensor) -> Tensor:
        return self._multiply(input, None).float()

    def _multiply(self, input: Tensor, bias: Tensor | None) -> Tensor:
        rows = input.shape[:-1].numel()
        if not self.shared:
            self._adapt(rows)
        if self.packed is not None and (rows != 1 or self.plain is None):
            return multiply_packed(input, self.packed, bias)
        assert self.plain is not None
        multiply = multiply_row if rows == 1 else F.linear
        return multiply(input, self.plain, bias)

    def _adapt(self, rows: int) -> None:
        """Take note of a product, and rearrange the weight when it is time."""
        if rows >= MANY_ROWS:
            return
        fits = (rows == 1) == (self.packed is None)
        self._misfits = 0 if fits else self._misfits + 1
        if self._misfits < self.patience:
            return
        self._misfits = 0
        if self.packed is None:
            assert self.plain is not None
            self.plain, self.packed = None, pack(self.plain)
        else:
            self.plain, self.packed = self.packed.to_dense(), None


class Packed:
    """A weight in oneDNN's layout for good."""

    def __init__(self, weight: Tensor) -> None:
        self._packed = pack(weight)

    def multiply(
        self, input: Tensor, bias: Tensor | None = None, residual: Tensor | None = None
    ) -> Tensor:
        return _added(residual, multiply_packed(input, self._packed, bias))

    def logits(self, input: Tensor) -> Tensor:
        return multiply_packed(input, self._packed).float()


class Panels:
    """A weight in the layout of compiled kernels; if it is ``gated``, they apply the gate, too."""

    def __init__(self, weight: Tensor, kernels: Kernels, *, gated: bool = False) -> None:
        self._kernels, self._gated = kernels, gated
        self._outputs = len(weight) // 2 if gated else len(weight)
        self._packed = kernels.pack(weight, gated=gated)

    def multiply(
        self, input: Tensor, bias: Tensor | None = None, residual: Tensor | None = None
    ) -> Tensor:
        if self._gated:
            product = self._kernels.gated_linear(input, self._packed, self._outputs, bias)
            return _added(residual, product)
        return self._kernels.linear(input, self._packed, self._outputs, bias, residual)

    def logits(self, input: Tensor) -> Tensor:
        # Not rounded on the way: two near 25 that are the same in bfloat16 may be an eighth apart.
        return self._kernels.logits(input, self._packed, self._outputs)


def _added(residual: Tensor | None, product: Tensor) -> Tensor:
    return product if residual is None else residual + product


def adapt_linears(model: nn.Module, kernels: Kernels | None = None) -> None:
    """Let the ``Linear`` layers of ``model`` rearrange their weights, where that pays; these cannot
    be read then."""
    layers = [m for m in model.modules() if isinstance(m, Linear) and packs(m.weight, kernels)]
    for index, layer in enumerate(layers):
        layer.layout = _layout(
            layer.weight, kernels, index=index, gated=isinstance(layer, GatedLinear)
        )
        layer.register_parameter("weight", None)


def layout_of_shared(weight: Tensor, kernels: Kernels | None = None) -> Layout | None:
    """Of a weight that somebody else reads as it is, too; None where rearranging does not pay."""
    if not packs(weight, kernels):
        return None
    return _layout(weight, kernels, shared=True)


def adapt_foreign_linears(
    model: nn.Module, run: Callable[[], object], kernels: Kernels | None = None
) -> None:
    """The same for the ``nn.Linear`` layers of somebody else's ``model``.

    That is right only where nobody but the layer reads its weight. Weights that modules share are
    left alone, and ``run``, which uses the model, has to come through while no other can be read;
    if it raises, nothing is changed.
    """
    everywhere = chain.from_iterable(module._parameters.values() for module in model.modules())
    holders = Counter(id(parameter) for parameter in everywhere)
    layers = [
        module
        for module in model.modules()
        if type(module) is nn.Linear
        and holders[id(module.weight)] == 1
        and packs(module.weight, kernels)
    ]
    weights = [layer.weight for layer in layers]
    for index, (layer, weight) in enumerate(zip(layers, weights, strict=True)):
        layer.weight = nn.Parameter(weight.to("meta"), requires_grad=False)  # still has its shape
        layer.forward = partial(_layout(weight, kernels, index=index).multiply, bias=layer.bias)
    try:
        run()
    except Exception:  # whatever a model's own code raises
        for layer, weight in zip(layers, weights, strict=True):
            layer.weight = weight
            del layer.forward


def _layout(
    weight: Tensor,
    kernels: Kernels | None,
    *,
    index: int = 0,
    gated: bool = False,
    shared: bool = False,
) -> Layout:
    """Of the weight ``index`` of a model: they are not all rearranged in the same step."""
    if kernels is not None:
        return Panels(weight, kernels, gated=gated)
    if weight.dtype == torch.float32:
        return Packed(weight)
    return Layouts(weight, patience=PATIENCE + index // _AT_ONCE, shared=shared)


def packs(weight: Tensor, kernels: Kernels | None = None) -> bool:
    """Whether products with ``weight`` gain from packing it, and can be trusted here."""
    if kernels is not None:
        return kernels.packs(weight)
    is_candidate = weight.device.type == "cpu" and weight.dtype in _PACKED_DTYPES
    return is_candidate and _packing_works(weight.dtype)


def pack(weight: Tensor) -> Tensor:
    """``weight [outputs, inputs]`` in the processor's own layout; only for ``multiply_packed``."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach())


def multiply_packed(input: Tensor, packed: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input [..., inputs] @ weight.T + bias`` for a packed weight: ``[..., outputs]``."""
    if not input.numel():
        return input.new_empty(*input.shape[:-1], packed.shape[0])
    return torch.ops.mkldnn._linear_pointwise(input, packed, bias, "none", [], "")


def multiply_row(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The same for one row and a weight as it is, by PyTorch's own kernel instead of oneDNN's.

    The switch is a flag of the whole process; another thread's product would only be slower.
    """
    if not torch._C._get_mkldnn_enabled():  # another thread has switched it, and will again
        return F.linear(input, weight, bias)
    torch._C._set_mkldnn_enabled(False)
    try:
        return F.linear(input, weight, bias)
    finally:
        torch._C._set_mkldnn_enabled(True)


@cache
def _packing_works(dtype: torch.dtype) -> bool:
    """Whether this build of PyTorch packs and unpacks, and gets the right products, with and
    without bias."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 64), (96, 64), (96,))
    x, weight, bias = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    try:
        packed = pack(weight)
        ours = [multiply_packed(x, packed, b).float() for b in (None, bias)]
        ours += [multiply_row(x[:1], packed.to_dense(), b).float() for b in (None, bias)]
    except (AttributeError, RuntimeError, TypeError):
        return False
    theirs = [F.linear(x, weight, b).float() for b in (None, bias)]
    theirs += [product[:1] for product in theirs]
    atol, rtol = (0.1, 0.02) if dtype == torch.bfloat16 else (1e-4, 1e-4)
    return all(
        torch.allclose(*pair, atol=atol, rtol=rtol) for pair in zip(ours, theirs, strict=True)
    )
