"""Memory for tensors in huge pages, where Linux has them.

The processor remembers where some thousands of pages lie. In pages of 4 KiB that is less than the
weights of the smallest model, and each reading of them or of scattered blocks of a KV cache has to
look up again where they are: a tenth to a fifth of its time. Pages of 2 MiB are few enough.
"""

import math
import mmap
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor

PAGE = 2 << 20
_ADVICE: int = getattr(mmap, "MADV_HUGEPAGE", 0)
_LINE = 64  # bytes of the processor's cache


class HugePages:
    """Tensors side by side in chunks of at least ``chunk`` bytes. A chunk's memory is taken page by
    page, when it is first written, and given back when none of its tensors is left."""

    def __init__(self, chunk: int = 32 * PAGE) -> None:
        self._chunk = chunk
        self._bytes = torch.empty(0, dtype=torch.uint8)  # what is left of the latest chunk

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """As ``torch.empty`` on the CPU; ``torch.OutOfMemoryError`` where that is too much."""
        size = math.prod(shape) * dtype.itemsize
        if not _ADVICE or size == 0:
            return torch.empty(shape, dtype=dtype, device="cpu")
        if size > len(self._bytes):
            self._bytes = _map(max(size, self._chunk))
        piece, self._bytes = self._bytes[:size], self._bytes[-(-size // _LINE) * _LINE :]
        return piece.view(dtype).view(shape)


def _map(size: int) -> Tensor:
    """At least ``size`` bytes from the beginning of a page on."""
    length = -(-size // PAGE) * PAGE
    try:
        memory = mmap.mmap(-1, length + PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise torch.OutOfMemoryError(f"{length} bytes cannot be had: {error}") from error
    with suppress(OSError):  # a system without huge pages: these are as good as others then
        memory.madvise(_ADVICE)
    everything = torch.frombuffer(memory, dtype=torch.uint8)
    start = -everything.data_ptr() % PAGE
    return everything[start : start + length]
