"""Whether transformers' code for a config can be run by us, and what it computes then.

Owns reading a config the way transformers does, and refusing. Needs no weights.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from .base import AttentionSpec
from .fields import MOST_LAYERS, MOST_TOKENS, Fields, Unsupported, shown
from .places import remedy
from .probe import Refusal, on_one_line, probe

# Settings with which a config could ask for other code, other files or other arithmetic.
_DROPPED = (
    "auto_map",
    "attn_implementation",
    "_attn_implementation",
    "experts_implementation",
    "_experts_implementation",
    "transformers_weights",
    "fusion_config",
    "return_dict",
    "use_return_dict",
)


@dataclass(frozen=True, slots=True)
class Examined:
    """What a model that can be run computes; ``modules`` names the attention of each layer, and
    ``parameters`` counts numbers."""

    max_context: int
    vocab_size: int
    parameters: int
    attention: list[AttentionSpec]
    modules: list[str]


def read_model(raw: dict[str, Any], source: Path) -> tuple[Any, Any]:
    """The model's class and its config object, of transformers' own code only.

    Raises Unsupported for an architecture that it does not have, UserError for a broken config;
    ``source`` only names the file.
    """
    import transformers

    _refuse_quantized(raw, source)
    architecture, kind = _architecture(raw, source), raw.get("model_type")
    if not isinstance(kind, str) or kind not in transformers.CONFIG_MAPPING:
        raise Unsupported(
            f"{source}: transformers {transformers.__version__} knows no model_type "
            f"{shown(kind)} ({shown(architecture)}), and code from checkpoints is never run"
        )
    kept = {key: value for key, value in raw.items() if key not in _DROPPED}
    try:
        config = transformers.CONFIG_MAPPING[kind].from_dict(kept)
    except Exception as error:  # each config class checks in its own way
        raise UserError(
            f"{source} is no {kind} config ({on_one_line(error)}); {remedy(source)}"
        ) from error
    causal: Any = transformers.MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if causal is None or causal.__name__ != architecture:
        known = "none" if causal is None else causal.__name__
        raise Unsupported(
            f"{source}: {shown(architecture)} is no causal language model of transformers "
            f"(for model_type {kind} that is {known})"
        )
    return causal, config


def examine(model_class: Any, config: Any, source: Path, *, tensors: int) -> Examined:
    """What a ``model_class`` of ``config`` computes, found by ``probe``.

    Raises Unsupported with the reason where it cannot be run exactly, and UserError for impossible
    sizes. ``tensors`` is how many weights there are.
    """
    text = config.get_text_config(decoder=True)
    names = ("num_hidden_layers", "max_position_embeddings")
    fields = Fields({name: getattr(text, name, None) for name in names}, source)
    layers = fields.size("num_hidden_layers", high=MOST_LAYERS)
    check_depth(layers, tensors, source)
    context = fields.size("max_position_embeddings", 2048, high=MOST_TOKENS)
    context = min([context, *_exact_lengths(text)])

    def build(attention: str) -> Any:
        # What needs values to run is exchanged; the shapes are the same.
        return model_class._from_config(
            _with_static_rope(config),
            attn_implementation=attention,
            experts_implementation="batched_mm",
            dtype=torch.bfloat16,
        )

    try:
        if config.is_encoder_decoder:
            raise Refusal("it is an encoder with a decoder")
        found = probe(build, layers, context)
    except Refusal as error:
        raise refused(source, model_class.__name__, error) from error
    except Exception as error:  # transformers on a config of impossible sizes
        raise UserError(
            f"{source}: no {model_class.__name__} can be made of it ({on_one_line(error)}); "
            f"{remedy(source)}"
        ) from error
    return Examined(context, found.vocab_size, found.parameters, found.attention, found.modules)


def check_depth(layers: int, tensors: int, source: Path) -> None:
    """Raise UserError for layers that ``tensors`` weights cannot be: to build many takes minutes,
    even on ``meta``."""
    if layers > tensors:
        raise UserError(
            f"{source}: num_hidden_layers is {layers}, but the weights are only {tensors} "
            f"tensors; {remedy(source)}"
        )


def refused(source: Path, architecture: str, reason: object) -> Unsupported:
    """The error that says why."""
    return Unsupported(f"{source}: {architecture} cannot be run: {reason}; use another model")


def _architecture(raw: dict[str, Any], source: Path) -> str:
    named = raw.get("architectures")
    name = named[0] if isinstance(named, list) and named else None
    if not isinstance(name, str):
        raise UserError(f"{source} names no architecture; a causal LM's config has architectures")
    return name


def _refuse_quantized(raw: dict[str, Any], source: Path) -> None:
    given = raw.get("quantization_config")
    if given is not None:
        method = given.get("quant_method", "unknown") if isinstance(given, dict) else given
        raise UserError(
            f"{source}: quantized checkpoints ({shown(method)}) are not supported; "
            "use the unquantized safetensors or a .gguf file"
        )


def _rope_settings(config: Any) -> Iterator[dict[str, Any]]:
    """The rotary embedding of the model, or of each kind of its layers."""
    settings = getattr(config, "rope_parameters", None) or {}
    return (each for each in (settings, *settings.values()) if isinstance(each, dict))


def _with_static_rope(config: Any) -> Any:
    """A copy of ``config`` in which no rotary embedding looks at the values of positions."""
    config = copy.deepcopy(config)
    for settings in _rope_settings(config.get_text_config(decoder=True)):
        if settings.get("rope_type") == "dynamic":
            settings["rope_type"] = "default"
    return config


def _exact_lengths(config: Any) -> Iterator[int]:
    """Lengths up to which rotary embedding does not depend on how long a text is.

    ``longrope`` has two sets of frequencies and takes the other one for texts beyond its original
    length, which with a cache even transformers does not do exactly.
    """
    for settings in _rope_settings(config):
        if settings.get("rope_type") == "longrope":
            original = settings.get("original_max_position_embeddings")
            original = original or getattr(config, "original_max_position_embeddings", None)
            if isinstance(original, int):
                yield original
