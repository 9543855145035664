"""Attention backends by name, for ``--attention``."""

import torch

from ...errors import UserError
from .base import AttentionBackend
from .reference import ReferenceAttention
from .sdpa import SdpaAttention

BACKENDS: dict[str, type[AttentionBackend]] = {
    backend.name: backend for backend in (ReferenceAttention, SdpaAttention)
}


def make_backend(name: str, device: torch.device) -> AttentionBackend:
    """The backend called ``name``; ``auto`` takes the fastest that runs on ``device``.

    Raises UserError for a name that is not in the registry.
    """
    if name == "auto":
        return SdpaAttention()  # runs everywhere; a device with a faster one would be asked here
    if name not in BACKENDS:
        raise UserError(f"--attention is {name!r}; choose from auto, {', '.join(BACKENDS)}")
    return BACKENDS[name]()
