"""What a checkpoint's ``config.json`` says about the decoder, checked once.

Owns reading and refusing: every architecture, rope type or option that the decoder does not compute
exactly is refused here by name. Leaves building the network to ``decoder`` and the weights to
``weights``. No torch.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError
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
    sliding_window: int | None = None

    @property
    def max_context(self) -> int:
        """Longest sequence this decoder computes exactly: full attention within any window."""
        if self.sliding_window is None:
            return self.max_position
        return min(self.max_position, self.sliding_window)

    def check_length(self, max_model_len: int) -> None:
        """Raise UserError where ``max_model_len`` tokens are more than the model can do here."""
        if self.sliding_window is not None and max_model_len > self.sliding_window:
            raise UserError(
                f"sliding_window={self.sliding_window} is smaller than --max-model-len "
                f"{max_model_len}, and sliding-window attention is not supported; "
                f"use --max-model-len {self.max_context} or less"
            )
        if max_model_len > self.max_position:
            raise UserError(
                f"--max-model-len is {max_model_len}, but the model was made for "
                f"{self.max_position} tokens; use {self.max_position} or less"
            )


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
        method = (raw["quantization_config"] or {}).get("quant_method", "unknown")
        raise UserError(
            f"{source}: quantized checkpoints ({method}) are not supported; "
            "use the unquantized safetensors or a .gguf file"
        )
    activation = raw.get("hidden_act", "silu")
    if activation != "silu":
        raise UserError(f"{source}: hidden_act {activation!r} is not supported (silu is)")

    def size(name: str, default: int | None = None) -> int:
        value = raw.get(name)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{source}: {name} is {value!r}; it must be a positive integer")
        return value

    attention_bias = bool(raw.get("attention_bias", False))
    hidden, heads = size("hidden_size"), size("num_attention_heads")
    kv_heads = size("num_key_value_heads", heads)
    if heads % kv_heads:
        raise UserError(f"{source}: {heads} attention heads do not divide into {kv_heads} KV heads")
    return ModelConfig(
        architecture=architecture,
        vocab_size=size("vocab_size"),
        hidden_size=hidden,
        intermediate_size=size("intermediate_size"),
        num_layers=size("num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=size("head_dim", family.head_dim or hidden // heads),
        rms_norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
        rope=_rope(raw, source),
        qkv_bias=attention_bias if family.qkv_bias is None else family.qkv_bias,
        output_bias=attention_bias if family.output_bias is None else family.output_bias,
        mlp_bias=bool(raw.get("mlp_bias", False)) if family.mlp_bias is None else family.mlp_bias,
        qk_norm=family.qk_norm,
        tied_embeddings=bool(raw.get("tie_word_embeddings", False)),
        max_position=size("max_position_embeddings", 2048),
        sliding_window=_sliding_window(raw, family),
    )


def _architecture(raw: dict[str, Any], source: Path) -> str:
    named = raw.get("architectures")
    if named is None:
        by_type = {family.model_type: name for name, family in FAMILIES.items()}
        named = [by_type.get(str(raw.get("model_type")), str(raw.get("model_type")))]
    name = named[0] if isinstance(named, list) and named else named
    if name not in FAMILIES:
        raise UserError(
            f"{source}: architecture {name} is not supported; supported are {', '.join(FAMILIES)}"
        )
    return name


def _rope(raw: dict[str, Any], source: Path) -> RopeConfig:
    """Both spellings: ``rope_parameters`` (transformers 5), ``rope_theta`` + ``rope_scaling``."""
    settings = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(settings, dict):
        raise UserError(f"{source}: the rope settings are {settings!r}, not an object")
    kind = settings.get("rope_type") or settings.get("type") or "default"
    if kind not in ROPE_TYPES:
        raise UserError(
            f"{source}: rope type {kind!r} is not supported; supported are {', '.join(ROPE_TYPES)}"
        )
    partial = settings.get("partial_rotary_factor", raw.get("partial_rotary_factor"))
    if partial not in (None, 1, 1.0):
        raise UserError(f"{source}: partial_rotary_factor {partial} is not supported (1.0 is)")
    missing = [key for key in _ROPE_KEYS[kind] if key not in settings]
    if missing:
        raise UserError(f"{source}: rope type {kind!r} lacks {', '.join(missing)}")
    factors = {key: float(settings[key]) for key in _ROPE_KEYS[kind]}
    if kind == "llama3":
        original = settings.get("original_max_position_embeddings")
        fallback = raw.get("max_position_embeddings", 2048)
        factors["original_max_position_embeddings"] = float(original or fallback)
    theta = settings.get("rope_theta", raw.get("rope_theta"))
    return RopeConfig(theta=10000.0 if theta is None else float(theta), kind=kind, factors=factors)


def _sliding_window(raw: dict[str, Any], family: Family) -> int | None:
    """The window in tokens where some layer slides, else None."""
    window = raw.get("sliding_window", family.default_window)
    if family.always_slides:
        return window
    kinds = raw.get("layer_types")
    if kinds is None:
        slides = raw.get("use_sliding_window", False)
        first = raw.get("max_window_layers", 28)
        slides = slides and first < raw.get("num_hidden_layers", 0)
    else:
        slides = "sliding_attention" in kinds
    return (window or 4096) if slides else None
