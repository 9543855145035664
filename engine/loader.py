"""From a model directory to a decoder with its weights, and the facts screens show about it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from .errors import UserError
from .models.config import ModelConfig, read_config
from .models.decoder import Decoder
from .models.weights import check_layers, load_weights, survey


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What was loaded: sizes in bytes, lengths in tokens, ``parameters`` a count."""

    name: str
    path: Path
    architecture: str
    dtype: str
    device: str
    layers: int
    parameters: int
    weight_bytes: int
    max_context: int
    config: ModelConfig


def load_decoder(
    directory: Path,
    *,
    dtype: torch.dtype,
    device: torch.device,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Decoder:
    """Read config and weights in ``directory``; UserError for whatever cannot be used."""
    config = read_config(directory)
    stored = survey(directory)
    check_layers(stored, config, directory)
    with torch.device("meta"):
        model = Decoder(config)
    try:
        load_weights(model, stored, directory, dtype=dtype, device=device, progress=progress)
    except torch.OutOfMemoryError as error:
        need = sum(p.numel() for p in model.parameters()) * dtype.itemsize
        raise UserError(
            f"{directory}: the weights need {need / 1e9:.1f} GB, more than {device} has free; "
            "use a smaller model or --dtype bfloat16"
        ) from error
    return model.eval()


def describe(name: str, directory: Path, model: Decoder) -> ModelInfo:
    """The facts about ``model``, which was asked for as ``name``."""
    weight = model.embed_tokens
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return ModelInfo(
        name=name,
        path=directory,
        architecture=model.config.architecture,
        dtype=str(weight.dtype).removeprefix("torch."),
        device=str(weight.device),
        layers=model.config.num_layers,
        parameters=parameters,
        weight_bytes=parameters * weight.dtype.itemsize,
        max_context=model.config.max_context,
        config=model.config,
    )
