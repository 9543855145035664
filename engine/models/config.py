"""What a checkpoint's ``config.json`` says about the decoder, checked once.

Owns reading and refusing: every architecture or option that the decoder does not compute exactly is
refused by name. What differs between architectures is in ``families``, rotary embedding in
``rope``. Leaves building the network to ``decoder`` and the weights to ``weights``.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from .base import AttentionSpec
from .families import FAMILIES, ExpertsConfig, Windows
from .fields import MOST_HEADS, MOST_LAYERS, MOST_TOKENS, Fields, Unsupported, shown
from .files import read_json
from .rope import RopeConfig, read_rope


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
    windows: Windows
    rotary: tuple[bool, ...]  # whether each layer rotates queries and keys
    experts: ExpertsConfig | None

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
    given = raw.get("quantization_config")
    if given is not None:
        method = given.get("quant_method", "unknown") if isinstance(given, dict) else given
        raise UserError(
            f"{source}: quantized checkpoints ({shown(method)}) are not supported; "
            "use the unquantized safetensors or a .gguf file"
        )
    activation = raw.get("hidden_act", "silu")
    if activation != "silu":
        raise Unsupported(f"{source}: hidden_act {shown(activation)} is not supported (silu is)")

    fields = Fields(raw, source)
    size = fields.size
    attention_bias, mlp_bias = fields.flag("attention_bias"), fields.flag("mlp_bias")
    hidden, heads = size("hidden_size"), size("num_attention_heads", high=MOST_HEADS)
    kv_heads = size("num_key_value_heads", heads, high=MOST_HEADS)
    if heads % kv_heads:
        raise UserError(f"{source}: {heads} attention heads do not divide into {kv_heads} KV heads")
    head_dim = size("head_dim", family.head_dim or hidden // heads, high=MOST_HEADS)
    if head_dim % 2:
        raise UserError(f"{source}: head_dim is {head_dim}; rotary embedding needs an even one")
    layers = size("num_hidden_layers", high=MOST_LAYERS)
    rope = read_rope(fields, family.theta)
    return ModelConfig(
        architecture=architecture,
        vocab_size=size("vocab_size"),
        hidden_size=hidden,
        intermediate_size=size("intermediate_size"),
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        rms_norm_eps=fields.number("rms_norm_eps", 1e-20, 1, family.norm_eps),
        rope=rope,
        qkv_bias=attention_bias if family.qkv_bias is None else family.qkv_bias,
        output_bias=attention_bias if family.output_bias is None else family.output_bias,
        mlp_bias=mlp_bias if family.mlp_bias is None else family.mlp_bias,
        qk_norm=family.qk_norm,
        tied_embeddings=fields.flag("tie_word_embeddings", family.tied),
        max_position=max(size("max_position_embeddings", 2048, high=MOST_TOKENS), rope.stretched),
        windows=family.windows(fields, layers),
        rotary=family.rotary(fields, layers),
        experts=family.experts(fields, layers),
    )


def _architecture(raw: dict[str, Any], source: Path) -> str:
    named = raw.get("architectures")
    if named is None and raw.get("model_type") is None:
        raise UserError(f"{source} names no architecture; a causal LM's config has architectures")
    if named is None:
        by_type = {family.model_type: name for name, family in FAMILIES.items()}
        named = [by_type.get(str(raw.get("model_type")), str(raw.get("model_type")))]
    name = named[0] if isinstance(named, list) and named else named
    if not isinstance(name, str) or name not in FAMILIES:
        raise Unsupported(
            f"{source}: architecture {shown(name)} is not supported; supported are "
            f"{', '.join(FAMILIES)}"
        )
    return name
