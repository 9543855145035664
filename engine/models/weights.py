"""Safetensors into a decoder, one tensor at a time, with no second copy of the model in memory.

Owns checking names and shapes, and streaming. The module is built on the
``meta`` device, its parameters are allocated once in their final dtype and place, and every
checkpoint tensor is copied into its slice. Pickle weights are never read.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch.nn import Parameter

from ..errors import UserError
from .config import ModelConfig
from .decoder import Decoder
from .files import Stored
from .places import remedy
from .slots import WeightSlot, ignorable, weight_slots

# Pages of a memory-mapped file count as resident until it is unmapped, so a file is opened anew
# after this many bytes: the copy in progress is all that exists twice.
_REMAP_BYTES = 64 << 20
_READABLE = ("F32", "BF16", "F16", "F64")
_LAYER = re.compile(r"model\.layers\.([0-9]{1,9})\.")


def load_weights(
    model: Decoder,
    stored: dict[str, Stored],
    directory: Path,
    *,
    dtype: torch.dtype,
    device: torch.device,
    progress: Callable[[float], None] = lambda fraction: None,
) -> None:
    """Allocate the parameters of ``model`` (built on ``meta``) and fill them.

    ``stored`` is what ``survey`` of ``directory`` found.

    ``progress`` gets the fraction of bytes read. Raises UserError naming file and tensor for
    quantized, missing, unexpected or misshapen tensors and for damaged files; ``model`` is then
    unusable.
    """
    slots = weight_slots(model, stored)
    _check_dtypes(model, stored)
    _check_names(model, stored, slots, directory)
    model.to(dtype=dtype).to_empty(device=device)
    parameters = dict(model.named_parameters())
    total = sum(stored[name].nbytes for name in slots) or 1
    done = 0
    for group in _groups(stored, slots):
        for name in _filled(stored[group[0]].file, group, slots, parameters):
            done += stored[name].nbytes
            progress(done / total)  # out here, where what it raises is not taken for a bad file


def check_layers(stored: dict[str, Stored], config: ModelConfig, directory: Path) -> None:
    """Raise UserError unless ``stored`` has as many layers as ``config`` says.

    Before anything is built: a million layers take minutes even on ``meta``.
    """
    indices = [int(match[1]) for match in map(_LAYER.match, stored) if match]
    found = max(indices, default=-1) + 1
    if found != config.num_layers:
        raise UserError(
            f"{directory}: the weights have {found} layers, but config.json says "
            f"num_hidden_layers {config.num_layers}; {remedy(directory / 'config.json')}"
        )


def _filled(
    file: Path, names: list[str], slots: dict[str, WeightSlot], parameters: dict[str, Parameter]
) -> Iterator[str]:
    """Copy tensors ``names`` of ``file`` into their slots, giving each name once it is done."""
    try:
        with safe_open(file, framework="pt") as reader:
            for name in names:
                slot = slots[name]
                slot.of(parameters[slot.parameter]).copy_(reader.get_tensor(name))
                yield name
    except (SafetensorError, OSError, RuntimeError) as error:
        raise UserError(
            f"{file}: cannot read tensor {names[0]} or one after it ({_first_line(error)}); "
            f"{remedy(file)}"
        ) from error


def _check_dtypes(model: Decoder, stored: dict[str, Stored]) -> None:
    for name, tensor in stored.items():
        if tensor.dtype not in _READABLE and not ignorable(name, model):
            raise UserError(
                f"{tensor.file}: tensor {name} has dtype {tensor.dtype}, as in a quantized "
                f"checkpoint; weights must be one of {', '.join(_READABLE)}: use the unquantized "
                "safetensors or a .gguf file"
            )


def _check_names(
    model: Decoder, stored: dict[str, Stored], slots: dict[str, WeightSlot], directory: Path
) -> None:
    missing = [name for name in slots if name not in stored]
    if missing:
        raise UserError(
            f"{directory}: tensor {missing[0]} is missing{_and_more(missing)}; config.json says "
            f"{model.config.architecture} with {model.config.num_layers} layers"
        )
    unexpected = [name for name in stored if name not in slots and not ignorable(name, model)]
    if unexpected:
        raise UserError(
            f"{stored[unexpected[0]].file}: tensor {unexpected[0]} is unexpected"
            f"{_and_more(unexpected)} for {model.config.architecture} as config.json describes it"
        )
    parameters = dict(model.named_parameters())
    for name, slot in slots.items():
        expected = tuple(slot.of(parameters[slot.parameter]).shape)
        if stored[name].shape != expected:
            raise UserError(
                f"{stored[name].file}: tensor {name} has shape {list(stored[name].shape)}, "
                f"but config.json asks for {list(expected)}"
            )


def _groups(stored: dict[str, Stored], slots: dict[str, WeightSlot]) -> list[list[str]]:
    """Tensor names in file order, cut where the file changes or enough bytes have been mapped."""
    groups: list[list[str]] = []
    size = 0
    for name in sorted((name for name in slots), key=lambda name: (stored[name].file, name)):
        fits = groups and stored[groups[-1][0]].file == stored[name].file
        if not fits or size + stored[name].nbytes > _REMAP_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += stored[name].nbytes
    return groups


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
