"""Rotary embedding: what a config says about it, and the frequencies of each kind.

Owns reading and refusing rope settings, and the formulas, which are those of transformers'
``modeling_rope_utils``. Kinds whose frequencies depend on the length of the sequence are refused:
keys in the KV cache are rotated once, and would have to turn again as their sequence grows.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import UserError
from .fields import MOST_TOKENS, Fields, Unsupported, shown

_CHANGING = ("dynamic", "longrope")


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Base ``theta`` and, for scaled kinds, their ``factors`` by Hugging Face's names.

    ``attention_factor`` multiplies cosine and sine, and so each attention score twice.
    """

    theta: float
    kind: str = "default"
    factors: dict[str, float] = field(default_factory=dict)
    attention_factor: float = 1.0

    @property
    def stretched(self) -> int:
        """Tokens that YaRN stretches the context to, 0 for other kinds."""
        if self.kind != "yarn":
            return 0
        return int(self.factors["original_max_position_embeddings"] * self.factors["factor"])


def read_rope(fields: Fields, default_theta: float) -> RopeConfig:
    """Both spellings: ``rope_parameters`` (transformers 5), ``rope_theta`` + ``rope_scaling``."""
    raw, source = fields.values, fields.source
    settings = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(settings, dict):
        raise UserError(f"{source}: the rope settings are {shown(settings)}, not an object")
    if any(isinstance(value, dict) for value in settings.values()):
        raise Unsupported(f"{source}: rope settings that differ between layers are not supported")
    kind = settings.get("rope_type") or settings.get("type") or "default"
    if not isinstance(kind, str) or kind not in _KINDS:
        changing = " (its rotation changes as a sequence grows, and cached keys stay as they are)"
        raise Unsupported(
            f"{source}: rope type {shown(kind)} is not supported"
            f"{changing if kind in _CHANGING else ''}; supported are {', '.join(_KINDS)}"
        )
    partial = settings.get("partial_rotary_factor", raw.get("partial_rotary_factor"))
    if partial not in (None, 1, 1.0):
        raise Unsupported(
            f"{source}: partial_rotary_factor {shown(partial)} is not supported (1 is)"
        )
    said = {"rope_theta": raw.get("rope_theta"), **settings}
    given = Fields({name: value for name, value in said.items() if value is not None}, source)
    theta = given.number("rope_theta", 1, 1e15, default_theta)
    return _KINDS[kind].read(given, fields, theta)


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> Tensor:
    """Rotation per position and pair of dimensions, ``[head_dim / 2]`` float32, on the CPU."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim
    return _KINDS[rope.kind].scale(1.0 / (rope.theta**exponents), rope, head_dim)


def _read_default(given: Fields, config: Fields, theta: float) -> RopeConfig:
    return RopeConfig(theta)


def _read_linear(given: Fields, config: Fields, theta: float) -> RopeConfig:
    return RopeConfig(theta, "linear", {"factor": given.number("factor", 1e-3, 1e6)})


def _read_llama3(given: Fields, config: Fields, theta: float) -> RopeConfig:
    names = ("factor", "low_freq_factor", "high_freq_factor")
    factors = {name: given.number(name, 1e-3, 1e6) for name in names}
    if factors["low_freq_factor"] >= factors["high_freq_factor"]:
        raise UserError(f"{given.source}: low_freq_factor must be smaller than high_freq_factor")
    return RopeConfig(theta, "llama3", factors | _original_length(given, config))


def _read_yarn(given: Fields, config: Fields, theta: float) -> RopeConfig:
    original = _original_length(given, config)
    (length,) = original.values()
    longer = config.size("max_position_embeddings", 2048, high=MOST_TOKENS) / length
    factor = given.number("factor", 1e-3, MOST_TOKENS / length, longer)
    ramp = {
        "beta_fast": given.number("beta_fast", 1e-3, 1e6, 32),
        "beta_slow": given.number("beta_slow", 1e-3, 1e6, 1),
        "truncate": float(given.flag("truncate", True)),
    }
    if theta <= 1:
        raise UserError(f"{given.source}: rope_theta is {theta:g}; yarn needs one above 1")
    return RopeConfig(
        theta, "yarn", {"factor": factor, **ramp, **original}, _yarn_attention(given, factor)
    )


def _yarn_attention(given: Fields, factor: float) -> float:
    """What YaRN multiplies cosine and sine by: given, or from ``mscale`` and ``factor``."""
    if "attention_factor" in given.values:
        return given.number("attention_factor", 0, 1e6)

    def scaled(mscale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0

    mscale, over = (given.number(name, 0, 1e6, 0) for name in ("mscale", "mscale_all_dim"))
    return scaled(mscale) / scaled(over) if mscale and over else scaled(1.0)


def _original_length(given: Fields, config: Fields) -> dict[str, float]:
    """The length a model was first trained on; beside the rope settings, it takes precedence."""
    key = "original_max_position_embeddings"
    fallback = config.size("max_position_embeddings", 2048, high=MOST_TOKENS)
    inner = given.size(key, fallback, high=MOST_TOKENS)
    return {key: float(config.size(key, inner, high=MOST_TOKENS))}


def _scale_default(inverse: Tensor, rope: RopeConfig, head_dim: int) -> Tensor:
    return inverse


def _scale_linear(inverse: Tensor, rope: RopeConfig, head_dim: int) -> Tensor:
    return inverse / rope.factors["factor"]


def _scale_llama3(inverse: Tensor, rope: RopeConfig, head_dim: int) -> Tensor:
    """Meta's scaling for long contexts: long wavelengths are divided by ``factor``, short ones
    kept, those between interpolated."""
    factor = rope.factors["factor"]
    low, high = rope.factors["low_freq_factor"], rope.factors["high_freq_factor"]
    original = rope.factors["original_max_position_embeddings"]
    wavelength = 2 * math.pi / inverse
    scaled = torch.where(wavelength > original / low, inverse / factor, inverse)
    smooth = (original / wavelength - low) / (high - low)
    between = (1 - smooth) * scaled / factor + smooth * scaled
    is_between = (wavelength >= original / high) & (wavelength <= original / low)
    return torch.where(is_between, between, scaled)


def _scale_yarn(inverse: Tensor, rope: RopeConfig, head_dim: int) -> Tensor:
    """YaRN (arXiv 2309.00071): dimensions that turn more than ``beta_fast`` times within the
    original context are kept, less than ``beta_slow`` times divided by ``factor``, a ramp
    between."""
    original = rope.factors["original_max_position_embeddings"]

    def dimension(turns: float) -> float:
        return head_dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = dimension(rope.factors["beta_fast"]), dimension(rope.factors["beta_slow"])
    if rope.factors["truncate"]:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    high += 0.001 if low == high else 0
    steps = torch.arange(head_dim // 2, dtype=torch.float32, device="cpu")
    ramp = ((steps - low) / (high - low)).clamp(0, 1)
    return inverse / rope.factors["factor"] * ramp + inverse * (1 - ramp)


@dataclass(frozen=True, slots=True)
class _Kind:
    """How the settings of one rope type are read, and what it does to the plain frequencies."""

    read: Callable[[Fields, Fields, float], RopeConfig]
    scale: Callable[[Tensor, RopeConfig, int], Tensor]


_KINDS = {
    "default": _Kind(_read_default, _scale_default),
    "linear": _Kind(_read_linear, _scale_linear),
    "llama3": _Kind(_read_llama3, _scale_llama3),
    "yarn": _Kind(_read_yarn, _scale_yarn),
}
