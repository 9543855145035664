"""The paged KV cache: tensors that hold keys and values by block, and how many blocks to have.

Owns the memory and its size. Which block belongs to whom is the scheduler's business.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..models.base import AttentionSpec
from ..models.huge_pages import HugePages

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"([0-9]*\.?[0-9]+)\s*(?:([KMGT])(I?)B?|B)?", re.IGNORECASE)

_CPU_SHARE, _CPU_LIMIT = 0.25, 4 << 30  # of the machine's memory; bytes
_CPU_CONTEXTS = 8  # more full-length requests than this rarely run on a CPU
_CUDA_SHARE = 0.8  # of what is free once the weights are there; the rest is for activations
_OTHER_LIMIT = 1 << 30
_UNTHINKABLE = 10**24  # bytes; no machine comes near, and everything below can be computed with


class KVCache:
    """Keys and values of every layer, by block.

    ``keys[layer]`` is ``[kv_heads, num_blocks + 2, block_size, head_dim]`` by that layer's spec in
    ``layers``, ``values[layer]`` the same with ``value_dim``: heads first, so that what is gathered
    for a batch needs no rearranging. Slot ``s`` is position ``s % block_size`` of block
    ``s // block_size``. Two blocks belong to nobody: ``padding_block`` is always zero, and nobody
    reads what is written to ``scratch_block``.

    With ``huge_pages``, on the CPU, blocks are read faster, and the first ones take memory at once
    that others would share: 2 MiB for keys and 2 for values of each head in each layer.
    """

    def __init__(
        self,
        layers: Sequence[AttentionSpec],
        *,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
        huge_pages: bool = False,
    ) -> None:
        self.num_blocks, self.block_size = num_blocks, block_size
        self.dtype, self.device = dtype, device
        self.layers = tuple(layers)
        memory = HugePages()

        def empty(heads: int, size: int) -> Tensor:
            shape = (heads, num_blocks + 2, block_size, size)
            if huge_pages:
                return memory.empty(shape, dtype)
            return torch.empty(shape, dtype=dtype, device=device)

        try:
            # Not zeroed: pages then take no memory until a block is used. Until it is written or
            # cleared, a slot holds anything at all.
            self.keys = [empty(spec.num_kv_heads, spec.head_dim) for spec in layers]
            self.values = [empty(spec.num_kv_heads, spec.value_dim) for spec in layers]
        except (RuntimeError, TypeError) as error:  # TypeError: sizes beyond 64 bits
            need = min(num_blocks * bytes_per_block(layers, block_size, dtype), _UNTHINKABLE)
            raise UserError(
                f"the KV cache needs {need / 1e9:.1f} GB on {device} for {num_blocks} blocks of "
                f"{block_size} tokens, and that could not be allocated; use a smaller --kv-memory"
            ) from error

        # Views of the same memory, made once: a decode step asks for them in every layer.
        stored = list(zip(self.keys, self.values, strict=True))
        self._by_slot = [(k.flatten(1, 2), v.flatten(1, 2)) for k, v in stored]
        self._by_block = [(_rows(k), _rows(v)) for k, v in stored]
        self.padding_block, self.scratch_block = num_blocks, num_blocks + 1
        self.clear([self.padding_block])

    def clear(self, blocks: Sequence[int]) -> None:
        """Zero ``blocks`` in all layers. A runner does so to those that a step begins to fill: the
        slots behind what is written are read and masked, and 0 times a stale NaN would be NaN."""
        if not blocks:
            return
        index = torch.tensor(blocks, device=self.device)
        for tensor in (*self.keys, *self.values):
            tensor.index_fill_(1, index, 0)

    def index(self, blocks: np.ndarray, num_kv_heads: int) -> Tensor:
        """``blocks [n]`` (int64) as ``gather`` wants them, for layers with that many KV heads."""
        return self.index_on_device(torch.from_numpy(blocks).to(self.device), num_kv_heads)

    def index_on_device(self, blocks: Tensor, num_kv_heads: int) -> Tensor:
        """As ``index``, of a tensor."""
        heads = torch.arange(num_kv_heads, device=self.device)[:, None] * (self.num_blocks + 2)
        return (heads + blocks.flatten()).flatten()

    def gather(self, layer: int, index: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """Keys ``[kv_heads * rows, L, head_dim]`` and values ``[kv_heads * rows, L, value_dim]`` of
        ``rows`` lists of blocks, one after the other in ``index`` and equally long."""
        spec = self.layers[layer]
        keys, values = self._by_block[layer]
        batch = spec.num_kv_heads * rows
        return (
            keys.index_select(0, index).view(batch, -1, spec.head_dim),
            values.index_select(0, index).view(batch, -1, spec.value_dim),
        )

    def gather_slots(self, layer: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Keys ``[N, kv_heads, head_dim]`` and values ``[N, kv_heads, value_dim]`` of ``slots
        [N]``."""
        keys, values = self._by_slot[layer]
        return (
            keys.index_select(1, slots).transpose(0, 1),
            values.index_select(1, slots).transpose(0, 1),
        )

    def write(self, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """Store ``k [N, kv_heads, head_dim]`` and ``v [N, kv_heads, value_dim]`` in ``slots [N]``
        int64."""
        keys, values = self._by_slot[layer]
        keys.index_copy_(1, slots, k.transpose(0, 1))
        values.index_copy_(1, slots, v.transpose(0, 1))


def _rows(tensor: Tensor) -> Tensor:
    """``[heads, blocks, size, dim]`` as one row for each head's part of a block."""
    return tensor.flatten(0, 1).flatten(1)


def bytes_per_block(layers: Sequence[AttentionSpec], block_size: int, dtype: torch.dtype) -> int:
    """Bytes of keys and values of one block over all ``layers``."""
    elements = sum(spec.num_kv_heads * (spec.head_dim + spec.value_dim) for spec in layers)
    return elements * block_size * dtype.itemsize


def parse_memory(text: str | int) -> int:
    """Bytes in ``"512MB"``, ``"2GiB"``, ``"1.5G"`` or ``"1000000"``; UserError for others."""
    text = str(text).strip()
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UserError(
            f"--kv-memory is {text!r}; give a size such as 512MB, 2GiB or 1.5GB (B, KB, MB, GB, TB)"
        )
    number, unit, binary = match.groups()
    scale = (_BINARY_UNITS if binary else _UNITS)[(unit or "").upper()]
    size = float(number) * scale
    if size > _UNTHINKABLE:
        raise UserError(
            f"--kv-memory is {text[:24]}…, over {_UNTHINKABLE:.0e} bytes; give a size such as 2GiB"
        )
    return int(size)


def blocks_in(
    memory: int, layers: Sequence[AttentionSpec], block_size: int, dtype: torch.dtype
) -> int:
    """Blocks that ``memory`` bytes hold; UserError where that is none."""
    each = bytes_per_block(layers, block_size, dtype)
    if memory < each:
        raise UserError(
            f"--kv-memory of {memory} bytes holds no block: one of {block_size} tokens takes {each}"
        )
    return memory // each


def default_blocks(
    layers: Sequence[AttentionSpec],
    max_context: int,
    block_size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> int:
    """Blocks to have when nobody said.

    CUDA: 80 % of the memory that is free now, so call it once the weights are loaded. CPU: a
    quarter of the machine's memory, at most 4 GiB, and no more than eight requests of full length.
    """
    if device.type == "cuda":
        return blocks_in(
            int(torch.cuda.mem_get_info(device)[0] * _CUDA_SHARE), layers, block_size, dtype
        )
    limit = _OTHER_LIMIT
    if device.type == "cpu":
        limit = min(_CPU_LIMIT, int(_machine_memory() * _CPU_SHARE))
    wanted = _CPU_CONTEXTS * -(-max_context // block_size)
    return min(wanted, blocks_in(limit, layers, block_size, dtype))


def _machine_memory() -> int:
    """Bytes of memory this process may use: the machine's, or its container's limit."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # no sysconf: assume a small machine
        total = 8 << 30
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        return min(total, int(limit))
    except (OSError, ValueError):  # no cgroup, or "max"
        return total
