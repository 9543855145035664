"""Rotary embedding frequencies of every kind that the native decoder computes."""

import math

import torch
from torch import Tensor

from .config import RopeConfig


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> Tensor:
    """Rotation per position and pair of dimensions, ``[head_dim / 2]`` float32, on the CPU.

    ``llama3`` is Meta's scaling for long contexts: long wavelengths are divided by ``factor``,
    short ones kept, those between interpolated (formula as in transformers'
    ``modeling_rope_utils``).
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim
    inverse = 1.0 / (rope.theta**exponents)
    if rope.kind == "linear":
        return inverse / rope.factors["factor"]
    if rope.kind != "llama3":
        return inverse
    factor = rope.factors["factor"]
    low, high = rope.factors["low_freq_factor"], rope.factors["high_freq_factor"]
    original = rope.factors["original_max_position_embeddings"]
    wavelength = 2 * math.pi / inverse
    scaled = torch.where(wavelength > original / low, inverse / factor, inverse)
    smooth = (original / wavelength - low) / (high - low)
    between = (1 - smooth) * scaled / factor + smooth * scaled
    is_between = (wavelength >= original / high) & (wavelength <= original / low)
    return torch.where(is_between, between, scaled)
