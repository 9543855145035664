"""Safetensors into a decoder, one tensor at a time, with no second copy of the model in memory.

Owns checking names, types and shapes, and reading. The module is built on the ``meta`` device, its
parameters are allocated once in their final dtype and place, and every checkpoint tensor is read
into its slice. Pickle weights are never read.
"""

import re
from collections.abc import Callable, Iterator
from io import BufferedReader
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Parameter

from ..errors import UserError
from .config import ModelConfig
from .decoder import Decoder
from .files import READABLE, Stored, coded
from .huge_pages import PAGE, HugePages
from .places import remedy
from .slots import WeightSlot, ignorable, weight_slots

_PIECE_BYTES = 16 << 20  # all that exists twice where weights are converted or go to a GPU
_CHUNK = 8 * PAGE  # what stays in memory until the last of its weights has been rearranged
_DTYPES = dict(
    zip(READABLE, (torch.float32, torch.bfloat16, torch.float16, torch.float64), strict=True)
)
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
    _allocate(model, dtype, device)
    parameters = dict(model.named_parameters())
    total = sum(stored[name].nbytes for name in slots) or 1
    done = 0
    for count in _read_all(stored, slots, parameters):
        done += count
        progress(done / total)  # out here, where what it raises is not taken for a bad file


def check_layers(stored: dict[str, Stored], config: ModelConfig, directory: Path) -> None:
    """Raise UserError unless ``stored`` has as many layers as ``config`` says.

    Before anything is built: a million layers take minutes even on ``meta``.
    """
    found = len({int(match[1]) for match in map(_LAYER.match, stored) if match})
    if found != config.num_layers:
        raise UserError(
            f"{directory}: the weights have {found} layers, but config.json says "
            f"num_hidden_layers {config.num_layers}; {remedy(directory / 'config.json')}"
        )


def _allocate(model: Decoder, dtype: torch.dtype, device: torch.device) -> None:
    """As ``Module.to_empty``, without the 0.3 s of imports that it causes."""
    huge_pages = HugePages(_CHUNK)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if device.type == "cpu" and parameter.dim() > 1:
                fresh = huge_pages.empty(parameter.shape, dtype)
            else:
                fresh = torch.empty(parameter.shape, dtype=dtype, device=device)
            setattr(module, name, Parameter(fresh, requires_grad=False))


def _read_all(
    stored: dict[str, Stored], slots: dict[str, WeightSlot], parameters: dict[str, Parameter]
) -> Iterator[int]:
    """Fill every slot, file by file in the order of its bytes; yields the bytes of each read."""
    in_order = sorted(slots, key=lambda name: (stored[name].file, stored[name].offset))
    for file, names in groupby(in_order, key=lambda name: stored[name].file):
        name = ""
        try:
            with file.open("rb") as stream:
                data_start = 8 + int.from_bytes(stream.read(8), "little")
                for name in names:
                    target = slots[name].of(parameters[slots[name].parameter])
                    yield from _fill(target, stored[name], stream, data_start)
        except (EOFError, OSError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(
                f"{file}: cannot read tensor {name} ({reason}); {remedy(file)}"
            ) from error


def _fill(target: Tensor, tensor: Stored, stream: BufferedReader, data_start: int) -> Iterator[int]:
    """Read ``tensor`` into ``target``, of the same shape; yields the bytes read, piece by piece."""
    dtype = _DTYPES[tensor.dtype]
    stream.seek(data_start + tensor.offset)
    # Straight into place where nothing is to be converted: fresh memory costs more than reading.
    in_place = target.dtype == dtype and target.device.type == "cpu"
    for piece in target.view(-1).split(_PIECE_BYTES // dtype.itemsize):
        landing = piece if in_place else torch.empty(len(piece), dtype=dtype)
        if stream.readinto(landing.view(torch.uint8).numpy().data) != landing.nbytes:
            raise EOFError("the file ends before its tensors do")
        if not in_place:
            piece.copy_(landing)
        yield landing.nbytes


def _check_dtypes(model: Decoder, stored: dict[str, Stored]) -> None:
    for name, tensor in stored.items():
        if tensor.dtype not in READABLE and not ignorable(name, model):
            raise coded(name, tensor)


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


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
