"""The machine that figures come from: its description, and the two limits that make the roof."""

import os
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import msgspec
import torch

from ..runner.device import resolve_dtype
from .costs import Limits

_SECONDS = 0.4  # for each of the two measurements, after one round to warm up
_CPU_BYTES, _CUDA_BYTES = 512 << 20, 4 << 30  # far more than any cache holds
_CPU_SIZE, _CUDA_SIZE = 2048, 8192  # rows and columns of the product


class Machine(msgspec.Struct, kw_only=True):
    """Where and with what a benchmark ran; ``dtype`` is that of the weights."""

    cpu: str
    cores: int
    threads: int
    device: str
    dtype: str
    os: str
    python: str
    torch: str
    minisgl_tui: str
    date: str
    limits: Limits


def describe_machine(device: torch.device, dtype: torch.dtype, limits: Limits) -> Machine:
    return Machine(
        cpu=_cpu_model(),
        cores=available_cores(),
        threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        dtype=str(dtype).removeprefix("torch."),
        os=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        torch=str(torch.__version__),
        minisgl_tui=version("minisgl-tui"),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        limits=limits,
    )


def available_cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def measure_limits(device: torch.device, dtype: torch.dtype) -> Limits:
    """The best of repeated reads of a large buffer and of repeated matrix products in ``dtype``, or
    in float32 where a CPU is faster in that.

    Takes about a second; with the threads that torch is set to.
    """
    cuda = device.type == "cuda"
    if device.type == "cpu" and dtype != torch.float32:
        dtype = resolve_dtype("auto", device)
    count = (_CUDA_BYTES if cuda else _CPU_BYTES) // 4
    buffer = torch.ones(count, dtype=torch.float32, device=device)
    matrix = buffer.view(-1, 4096)
    vector = torch.ones(4096, device=device)
    # A sum is bound by arithmetic on some machines, a matrix-vector product on others.
    seconds = min(
        _best_time(lambda: buffer.sum(), device), _best_time(lambda: matrix @ vector, device)
    )
    size = _CUDA_SIZE if cuda else _CPU_SIZE
    a, b = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    product = _best_time(lambda: a @ b, device)
    return Limits(read_bandwidth=count * 4 / seconds, peak=2 * size**3 / product)


def _best_time(action: Callable[[], object], device: torch.device) -> float:
    def timed() -> float:
        began = perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return perf_counter() - began

    timed()
    best, until = timed(), perf_counter() + _SECONDS
    while perf_counter() < until:
        best = min(best, timed())
    return best


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
