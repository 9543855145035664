"""Attention backends by name, for ``--attention``."""

import torch

from ...errors import UserError
from .base import AttentionBackend
from .grouped import GroupedAttention
from .reference import ReferenceAttention
from .sdpa import SdpaAttention

BACKENDS: dict[str, type[AttentionBackend]] = {
    backend.name: backend for backend in (ReferenceAttention, SdpaAttention, GroupedAttention)
}


def make_backend(name: str, device: torch.device) -> AttentionBackend:
    """The backend called ``name``; ``auto`` takes the fastest that runs on ``device``.

    Raises UserError for a name that is not in the registry.
    """
    if name == "auto":
        return GroupedAttention() if device.type == "cpu" else SdpaAttention()
    if name not in BACKENDS:
        raise UserError(f"--attention is {name!r}; choose from auto, {', '.join(BACKENDS)}")
    return BACKENDS[name]()
