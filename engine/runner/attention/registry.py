"""Attention backends by name, for ``--attention``."""

import torch

from ...errors import UserError
from .base import AttentionBackend
from .fastest import FastestAttention
from .grouped import GroupedAttention
from .reference import ReferenceAttention
from .sdpa import SdpaAttention
from .varlen import VarlenAttention

BACKENDS: dict[str, type[AttentionBackend]] = {
    backend.name: backend
    for backend in (ReferenceAttention, SdpaAttention, GroupedAttention, VarlenAttention)
}


def make_backend(name: str, device: torch.device) -> AttentionBackend:
    """The backend called ``name``; ``auto`` takes what is fastest on ``device``: known for CPUs,
    elsewhere found out by trying.

    Raises UserError for a name that is not in the registry, or that does not run on ``device``.
    """
    if name == "auto":
        if device.type == "cpu":
            return GroupedAttention()
        return FastestAttention([SdpaAttention(), GroupedAttention(), VarlenAttention()])
    if name not in BACKENDS:
        raise UserError(f"--attention is {name!r}; choose from auto, {', '.join(BACKENDS)}")
    if name == VarlenAttention.name and device.type != "cuda":
        raise UserError(f"--attention varlen needs CUDA, and this is {device}; use auto")
    return BACKENDS[name]()
