"""What a checkpoint's ``config.json`` says about the decoder, checked once.

Owns reading and refusing: every architecture, rope type or option that the decoder does not compute
exactly is refused here by name. Leaves building the network to ``decoder`` and the weights to
``weights``.
"""

import reprlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from .base import AttentionSpec
from .files import read_json


@dataclass(frozen=True, slots=True)
class Family:
    """How one architecture differs from plain Llama.

    ``qkv_bias`` / ``output_bias`` are None where the checkpoint's ``attention_bias`` decides.
    """

    model_type: str
    qkv_bias: bool | None = None
    output_bias: bool | None = None
    mlp_bias: bool | None = None
    qk_norm: bool = False
    head_dim: int | None = None  # None: hidden_size / heads
    always_slides: bool = False  # a `sliding_window` counts without `use_sliding_window`
    default_window: int | None = None


FAMILIES: dict[str, Family] = {
    "LlamaForCausalLM": Family("llama"),
    "MistralForCausalLM": Family(
        "mistral",
        qkv_bias=False,
        output_bias=False,
        mlp_bias=False,
        always_slides=True,
        default_window=4096,
    ),
    "Qwen2ForCausalLM": Family("qwen2", qkv_bias=True, output_bias=False, mlp_bias=False),
    "Qwen3ForCausalLM": Family("qwen3", mlp_bias=False, qk_norm=True, head_dim=128),
}

ROPE_TYPES = ("default", "linear", "llama3")
_ROPE_KEYS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
}


# Far above any model, and so low that no product of two or three sizes overflows 64 bits.
_MOST, _MOST_HEADS, _MOST_LAYERS, _MOST_TOKENS = 10**7, 10**5, 10**5, 10**9


@dataclass(frozen=True, slots=True)
class _Fields:
    """The values of a config object, read with their type and range checked."""

    values: dict[str, Any]
    source: Path

    def size(
        self, name: str, default: int | None = None, *, low: int = 1, high: int = _MOST
    ) -> int:
        """Integer ``name``; null counts as not given, as checkpoints write it so."""
        value = self.values.get(name)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            kind = "positive integer" if low == 1 else f"integer of {low} or more"
            raise UserError(
                f"{self.source}: {name} is {shown(value)}; it must be a {kind} (at most {high})"
            )
        return value

    def number(self, name: str, low: float, high: float, default: float | None = None) -> float:
        """Number ``name``, from ``low`` to ``high``; so NaN and infinity are refused."""
        value = self.values.get(name, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:
            raise UserError(
                f"{self.source}: {name} is {shown(value)}; it must be a number from {low:g} "
                f"to {high:g}"
            )
        return float(value)


def shown(value: object) -> str:
    """``value`` for an error: short and on one line, whatever it is."""
    return " ".join(_SHORT.repr(value).split())


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Rotary embedding: base ``theta`` and, for scaled kinds, their ``factors`` by HF name."""

    theta: float
    kind: str = "default"
    factors: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Shapes and switches of one decoder; sizes in elements, lengths in tokens."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    rope: RopeConfig
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    qk_norm: bool
    tied_embeddings: bool
    max_position: int
    windows: tuple[int | None, ...]  # of each layer

    @property
    def attention(self) -> list[AttentionSpec]:
        """What each layer's attention computes."""
        spec = AttentionSpec(
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            value_dim=self.head_dim,
            scale=self.head_dim**-0.5,
        )
        return [replace(spec, window=window) for window in self.windows]


def read_config(directory: Path) -> ModelConfig:
    """Read and check ``directory/config.json``.

    Raises UserError for a missing or broken file, and by name for whatever is not supported.
    """
    return parse_config(read_json(directory / "config.json"), directory / "config.json")


def parse_config(raw: dict[str, Any], source: Path) -> ModelConfig:
    """``raw`` as a ModelConfig; ``source`` only names the file in errors."""
    architecture = _architecture(raw, source)
    family = FAMILIES[architecture]
    if "quantization_config" in raw:
        given = raw["quantization_config"]
        method = given.get("quant_method", "unknown") if isinstance(given, dict) else given
        raise UserError(
            f"{source}: quantized checkpoints ({shown(method)}) are not supported; "
            "use the unquantized safetensors or a .gguf file"
        )
    activation = raw.get("hidden_act", "silu")
    if activation != "silu":
        raise UserError(f"{source}: hidden_act {shown(activation)} is not supported (silu is)")

    fields = _Fields(raw, source)
    size = fields.size
    attention_bias = bool(raw.get("attention_bias", False))
    hidden, heads = size("hidden_size"), size("num_attention_heads", high=_MOST_HEADS)
    kv_heads = size("num_key_value_heads", heads, high=_MOST_HEADS)
    if heads % kv_heads:
        raise UserError(f"{source}: {heads} attention heads do not divide into {kv_heads} KV heads")
    head_dim = size("head_dim", family.head_dim or hidden // heads, high=_MOST_HEADS)
    if head_dim % 2:
        raise UserError(f"{source}: head_dim is {head_dim}; rotary embedding needs an even one")
    return ModelConfig(
        architecture=architecture,
        vocab_size=size("vocab_size"),
        hidden_size=hidden,
        intermediate_size=size("intermediate_size"),
        num_layers=size("num_hidden_layers", high=_MOST_LAYERS),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        rms_norm_eps=fields.number("rms_norm_eps", 1e-20, 1, 1e-6),
        rope=_rope(fields),
        qkv_bias=attention_bias if family.qkv_bias is None else family.qkv_bias,
        output_bias=attention_bias if family.output_bias is None else family.output_bias,
        mlp_bias=bool(raw.get("mlp_bias", False)) if family.mlp_bias is None else family.mlp_bias,
        qk_norm=family.qk_norm,
        tied_embeddings=bool(raw.get("tie_word_embeddings", False)),
        max_position=size("max_position_embeddings", 2048, high=_MOST_TOKENS),
        windows=_windows(fields, family),
    )


def _architecture(raw: dict[str, Any], source: Path) -> str:
    named = raw.get("architectures")
    if named is None:
        by_type = {family.model_type: name for name, family in FAMILIES.items()}
        named = [by_type.get(str(raw.get("model_type")), str(raw.get("model_type")))]
    name = named[0] if isinstance(named, list) and named else named
    if not isinstance(name, str) or name not in FAMILIES:
        raise UserError(
            f"{source}: architecture {shown(name)} is not supported; supported are "
            f"{', '.join(FAMILIES)}"
        )
    return name


def _rope(fields: _Fields) -> RopeConfig:
    """Both spellings: ``rope_parameters`` (transformers 5), ``rope_theta`` + ``rope_scaling``."""
    raw, source = fields.values, fields.source
    settings = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(settings, dict):
        raise UserError(f"{source}: the rope settings are {shown(settings)}, not an object")
    if any(isinstance(value, dict) for value in settings.values()):
        raise UserError(f"{source}: rope settings that differ between layers are not supported")
    kind = settings.get("rope_type") or settings.get("type") or "default"
    if kind not in ROPE_TYPES:
        raise UserError(
            f"{source}: rope type {shown(kind)} is not supported; supported are "
            f"{', '.join(ROPE_TYPES)}"
        )
    partial = settings.get("partial_rotary_factor", raw.get("partial_rotary_factor"))
    if partial not in (None, 1, 1.0):
        raise UserError(f"{source}: partial_rotary_factor {shown(partial)} is not supported (1 is)")
    missing = [key for key in _ROPE_KEYS[kind] if key not in settings]
    if missing:
        raise UserError(f"{source}: rope type {kind!r} lacks {', '.join(missing)}")
    given = _Fields({"rope_theta": raw.get("rope_theta"), **settings}, source)
    factors = {key: given.number(key, 1e-3, 1e6) for key in _ROPE_KEYS[kind]}
    if kind == "llama3":
        if factors["low_freq_factor"] >= factors["high_freq_factor"]:
            raise UserError(f"{source}: low_freq_factor must be smaller than high_freq_factor")
        key = "original_max_position_embeddings"
        fallback = fields.size("max_position_embeddings", 2048, high=_MOST_TOKENS)
        factors[key] = float(given.size(key, fallback, high=_MOST_TOKENS))
    unset = given.values["rope_theta"] is None
    theta = 10000.0 if unset else given.number("rope_theta", 1, 1e15)
    return RopeConfig(theta=theta, kind=kind, factors=factors)


def _windows(fields: _Fields, family: Family) -> tuple[int | None, ...]:
    """The attention window of each layer in tokens; None where it sees everything."""
    raw, layers = fields.values, fields.values["num_hidden_layers"]
    if family.always_slides:
        if raw.get("sliding_window", family.default_window) is None:
            return (None,) * layers
        return (fields.size("sliding_window", family.default_window, high=_MOST_TOKENS),) * layers
    kinds = raw.get("layer_types")
    if kinds is None:
        first = fields.size("max_window_layers", 28, low=0, high=_MOST_LAYERS)
        slides = [bool(raw.get("use_sliding_window", False)) and i >= first for i in range(layers)]
    elif isinstance(kinds, list) and len(kinds) == layers:
        slides = [kind == "sliding_attention" for kind in kinds]
    else:
        raise UserError(
            f"{fields.source}: layer_types is {shown(kinds)}, not a list of {layers} kinds"
        )
    if not any(slides):
        return (None,) * layers
    window = fields.size("sliding_window", 4096, high=_MOST_TOKENS)
    return tuple(window if slide else None for slide in slides)
