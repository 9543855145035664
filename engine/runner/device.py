"""Which device and dtype to compute in, from what was asked and what is there."""

import torch

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

    On a CPU that means AVX512-BF16 or AMX: emulated bfloat16 is many times slower than float32.
    """
    if name == "auto":
        if device.type == "mps":
            return torch.float16
        if device.type == "cuda":
            return torch.bfloat16
        return torch.bfloat16 if _cpu_has_bfloat16() else torch.float32
    if name not in DTYPES:
        raise UserError(f"--dtype is {name!r}; choose from auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def _cpu_has_bfloat16() -> bool:
    # Not public API, so absence counts as no.
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)
