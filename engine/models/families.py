"""The architectures that the native decoder computes, and how each differs from plain Llama.

A family is data: flags, defaults for what its config may leave out, and three rules that say, layer
by layer, how far attention sees, where rotary embedding is used and where experts are.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import UserError
from .fields import MOST_EXPERTS, MOST_LAYERS, MOST_TOKENS, Fields, shown

Windows = tuple[int | None, ...]
"""The attention window of each layer in tokens; None where it sees everything."""


@dataclass(frozen=True, slots=True)
class ExpertsConfig:
    """The experts of a mixture-of-experts model.

    Each token goes to its ``top_k`` likeliest of ``num_experts``; ``normalize`` makes their weights
    sum to one. ``sparse`` says for each layer whether it has experts or one MLP.
    """

    num_experts: int
    top_k: int
    intermediate_size: int
    normalize: bool
    sparse: tuple[bool, ...]


def _sees_all(fields: Fields, layers: int) -> Windows:
    return (None,) * layers


def _window(fields: Fields, default: int | None) -> int | None:
    if fields.values.get("sliding_window", default) is None:
        return None
    return fields.size("sliding_window", default, high=MOST_TOKENS)


def _mistral_windows(fields: Fields, layers: int) -> Windows:
    return (_window(fields, 4096),) * layers


def _mixtral_windows(fields: Fields, layers: int) -> Windows:
    return (_window(fields, None),) * layers


def _switched_windows(fields: Fields, layers: int) -> Windows:
    """Every layer slides, if ``use_sliding_window`` is set."""
    return (_window(fields, 4096) if fields.flag("use_sliding_window") else None,) * layers


def _qwen_windows(fields: Fields, layers: int) -> Windows:
    """The layers from ``max_window_layers`` on slide, or those that ``layer_types`` says."""
    if not fields.flag("use_sliding_window"):
        return (None,) * layers
    if fields.values.get("layer_types") is None:
        first = fields.size("max_window_layers", 28, low=0, high=MOST_LAYERS)
        return _where([index >= first for index in range(layers)], fields)
    return _where(_listed_as_sliding(fields, layers), fields)


def _smollm3_windows(fields: Fields, layers: int) -> Windows:
    """The layers without rotary embedding slide, or those that ``layer_types`` says."""
    if not fields.flag("use_sliding_window") or fields.values.get("sliding_window") is None:
        return (None,) * layers
    if fields.values.get("layer_types") is None:
        return _where([not rotary for rotary in _smollm3_rotary(fields, layers)], fields)
    return _where(_listed_as_sliding(fields, layers), fields)


def _listed_as_sliding(fields: Fields, layers: int) -> list[bool]:
    kinds = fields.values["layer_types"]
    if not isinstance(kinds, list) or len(kinds) != layers:
        raise UserError(
            f"{fields.source}: layer_types is {shown(kinds)}, not a list of {layers} kinds"
        )
    return [kind == "sliding_attention" for kind in kinds]


def _where(slides: list[bool], fields: Fields) -> Windows:
    window = _window(fields, 4096) if any(slides) else None
    return tuple(window if slide else None for slide in slides)


def _rotates_all(fields: Fields, layers: int) -> tuple[bool, ...]:
    return (True,) * layers


def _smollm3_rotary(fields: Fields, layers: int) -> tuple[bool, ...]:
    """``no_rope_layers`` has 0 for a layer without (its name notwithstanding), 1 for one with."""
    listed = fields.values.get("no_rope_layers")
    if listed is None:
        interval = fields.size("no_rope_layer_interval", 4, high=MOST_LAYERS)
        return tuple((index + 1) % interval != 0 for index in range(layers))
    is_list = isinstance(listed, list) and len(listed) >= layers
    if not is_list or any(flag not in (0, 1) for flag in listed):
        raise UserError(
            f"{fields.source}: no_rope_layers is {shown(listed)}, not a list of {layers} times 0 "
            "or 1"
        )
    return tuple(map(bool, listed[:layers]))


def _no_experts(fields: Fields, layers: int) -> ExpertsConfig | None:
    return None


def _mixtral_experts(fields: Fields, layers: int) -> ExpertsConfig:
    count = _expert_count(fields, 8)
    return ExpertsConfig(
        num_experts=count,
        top_k=fields.size("num_experts_per_tok", 2, high=count),
        intermediate_size=fields.size("intermediate_size"),
        normalize=True,
        sparse=(True,) * layers,
    )


def _qwen3_experts(fields: Fields, layers: int) -> ExpertsConfig | None:
    """Every ``decoder_sparse_step``-th layer has experts, but those in ``mlp_only_layers``."""
    count = _expert_count(fields, 128, low=0)
    step = fields.size("decoder_sparse_step", 1, high=MOST_LAYERS)
    dense = fields.values.get("mlp_only_layers") or []
    if not isinstance(dense, list) or not all(isinstance(index, int) for index in dense):
        raise UserError(f"{fields.source}: mlp_only_layers is {shown(dense)}, not a list of layers")
    sparse = tuple((index + 1) % step == 0 and index not in dense for index in range(layers))
    if count == 0 or not any(sparse):
        return None
    return ExpertsConfig(
        num_experts=count,
        top_k=fields.size("num_experts_per_tok", 8, high=count),
        intermediate_size=fields.size("moe_intermediate_size", 768),
        normalize=fields.flag("norm_topk_prob"),
        sparse=sparse,
    )


def _expert_count(fields: Fields, default: int, low: int = 1) -> int:
    """Under its name in transformers 5, or else the older one."""
    new, old = "num_local_experts", "num_experts"
    name = old if fields.values.get(new) is None and old in fields.values else new
    return fields.size(name, default, low=low, high=MOST_EXPERTS)


@dataclass(frozen=True, slots=True)
class Family:
    """How one architecture differs from plain Llama.

    ``qkv_bias`` / ``output_bias`` / ``mlp_bias`` are None where the checkpoint's ``attention_bias``
    and ``mlp_bias`` decide. ``head_dim`` (None: hidden size / heads), ``theta``, ``norm_eps`` and
    ``tied`` stand in for what a config leaves out.
    """

    model_type: str
    qkv_bias: bool | None = None
    output_bias: bool | None = None
    mlp_bias: bool | None = None
    qk_norm: bool = False
    head_dim: int | None = None
    theta: float = 10000.0
    norm_eps: float = 1e-6
    tied: bool = False
    windows: Callable[[Fields, int], Windows] = _sees_all
    rotary: Callable[[Fields, int], tuple[bool, ...]] = _rotates_all
    experts: Callable[[Fields, int], ExpertsConfig | None] = _no_experts


FAMILIES: dict[str, Family] = {
    "LlamaForCausalLM": Family("llama"),
    "MistralForCausalLM": Family(
        "mistral", qkv_bias=False, output_bias=False, mlp_bias=False, windows=_mistral_windows
    ),
    "MixtralForCausalLM": Family(
        "mixtral",
        qkv_bias=False,
        output_bias=False,
        mlp_bias=False,
        theta=1e6,
        norm_eps=1e-5,
        windows=_mixtral_windows,
        experts=_mixtral_experts,
    ),
    "Qwen2ForCausalLM": Family(
        "qwen2", qkv_bias=True, output_bias=False, mlp_bias=False, windows=_qwen_windows
    ),
    "Qwen3ForCausalLM": Family(
        "qwen3", mlp_bias=False, qk_norm=True, head_dim=128, windows=_qwen_windows
    ),
    "Qwen3MoeForCausalLM": Family(
        "qwen3_moe",
        mlp_bias=False,
        qk_norm=True,
        windows=_switched_windows,
        experts=_qwen3_experts,
    ),
    "SmolLM3ForCausalLM": Family(
        "smollm3", theta=2e6, tied=True, windows=_smollm3_windows, rotary=_smollm3_rotary
    ),
}
