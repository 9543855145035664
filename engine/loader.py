"""From a model directory to something that can be run, and the facts screens show about it."""

from dataclasses import dataclass
from pathlib import Path

from .errors import UserError
from .models.base import CausalLM, Checkpoint
from .models.bridge import TransformersCheckpoint
from .models.fields import Unsupported
from .models.native import NativeCheckpoint

MODEL_IMPLS = ("auto", "native", "transformers")


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


def open_checkpoint(directory: Path, impl: str = "auto") -> Checkpoint:
    """Read what ``directory`` holds, for the implementation ``impl``: ``native`` is our decoder,
    ``transformers`` the model's own code there, ``auto`` native where it can.

    Raises UserError for whatever cannot be run.
    """
    if impl not in MODEL_IMPLS:
        raise UserError(f"--model-impl is {impl!r}; choose from {', '.join(MODEL_IMPLS)}")
    if impl == "transformers":
        return TransformersCheckpoint(directory)
    try:
        return NativeCheckpoint(directory)
    except Unsupported as native:
        if impl == "native":
            raise
        try:
            return TransformersCheckpoint(directory)
        except Unsupported as bridged:
            raise Unsupported(f"{bridged} (nor natively: {native})") from bridged


def describe(name: str, directory: Path, checkpoint: Checkpoint, model: CausalLM) -> ModelInfo:
    """The facts about ``model``, which was asked for as ``name``."""
    parameters = list(model.parameters())
    return ModelInfo(
        name=name,
        path=directory,
        architecture=checkpoint.architecture,
        dtype=str(parameters[0].dtype).removeprefix("torch."),
        device=str(parameters[0].device),
        layers=len(checkpoint.attention),
        parameters=sum(parameter.numel() for parameter in parameters),
        weight_bytes=sum(parameter.nbytes for parameter in parameters),
        max_context=checkpoint.max_context,
    )
