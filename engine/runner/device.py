"""Which device and dtype to compute in, from what was asked and what is there."""

from functools import cache
from time import perf_counter

import torch
import torch.nn.functional as F

from ..errors import UserError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """``auto`` is CUDA, else MPS, else the CPU. UserError where ``name`` is not available here."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise UserError(f"--device is {name!r}; choose from auto, cpu, cuda, cuda:N, mps") from None
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= found:
            raise UserError(
                f"--device is {name!r}, but torch {torch.__version__} finds {found} CUDA devices; "
                "use --device auto or cpu"
            )
        return torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"--device is {name!r}, but MPS is not available; use --device auto or cpu")
    if device.type not in ("cpu", "mps"):
        raise UserError(f"--device is {name!r}; choose from auto, cpu, cuda, cuda:N, mps")
    return torch.device(device.type)


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """``auto`` is bfloat16 where the hardware multiplies it, else float32 (float16 on MPS).

    On a CPU it is measured: emulated bfloat16 can be many times slower than float32.
    """
    if name == "auto":
        if device.type == "mps":
            return torch.float16
        if device.type == "cuda":
            return torch.bfloat16
        return torch.bfloat16 if cpu_multiplies_bfloat16() else torch.float32
    if name not in DTYPES:
        raise UserError(f"--dtype is {name!r}; choose from auto, {', '.join(DTYPES)}")
    return DTYPES[name]


@cache
def cpu_multiplies_bfloat16() -> bool:
    """Whether a product of 64 rows is faster in bfloat16 than in float32 (about 50 ms to find out).

    On one thread: with several, whatever else runs on the machine would decide.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _product_seconds(torch.bfloat16) < _product_seconds(torch.float32)
    finally:
        torch.set_num_threads(threads)


def _product_seconds(dtype: torch.dtype) -> float:
    """The best of some tries at ``[64, 1024] @ [1024, 1024]``."""
    x, weight = torch.ones(64, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
    seconds = []
    for _ in range(8):
        began = perf_counter()
        F.linear(x, weight)
        seconds.append(perf_counter() - began)
    return min(seconds)
