"""The files of a model directory: reading its JSON, finding its weights. No torch.

Weights are looked at by their headers alone; ``weights`` reads them.
"""

import json
from dataclasses import dataclass
from os.path import isfile
from pathlib import Path
from typing import Any

from ..errors import UserError
from .places import remedy

INDEX_NAME = "model.safetensors.index.json"
WHOLE_NAME = "model.safetensors"
READABLE: tuple[str, ...] = ("F32", "BF16", "F16", "F64")
"""The types of weights that are no codes for something else."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a weight file; ``dtype`` as safetensors spells it: F32, BF16, I8, ...

    ``offset`` in bytes counts from the end of the file's header.
    """

    file: Path
    offset: int
    shape: tuple[int, ...]
    dtype: str
    nbytes: int


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``; UserError when it is missing or not one."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing; a model directory needs config.json and *.safetensors"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable JSON ({error}); {remedy(path)}") from error
    if not isinstance(data, dict):
        raise UserError(f"{path} holds a {type(data).__name__}, not a JSON object")
    return data


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a model directory, in name order: those that the shard index names,
    or model.safetensors, or all there are.

    Raises UserError where there are none, saying so when only pickle weights are there, and where
    the shard index names a file that is missing.
    """
    indexed = _weight_map(directory)
    if indexed is not None:
        names = sorted(set(indexed.values()))
        for name in names:
            # A plain name only: an index must not reach outside its own directory.
            if Path(name).name != name or not isfile(directory / name):
                raise UserError(f"{directory / name} is missing, though {INDEX_NAME} names it")
        return [directory / name for name in names]
    whole = directory / WHOLE_NAME
    files = [whole] if whole.exists() else sorted(directory.glob("*.safetensors"))
    if files:
        return files
    pickled = sorted([*directory.glob("*.bin"), *directory.glob("*.pt"), *directory.glob("*.pth")])
    if pickled:
        raise UserError(
            f"{directory} holds only pickle weights ({pickled[0].name}), which can run code when "
            "read and are refused; convert them to .safetensors"
        )
    raise UserError(f"{directory} holds no *.safetensors weights; {remedy(directory / 'any')}")


def weight_header(file: Path) -> dict[str, Any]:
    """The JSON header, after safetensors itself has checked it against the file's length."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np"):
            pass
        with file.open("rb") as stream:
            return json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    except (SafetensorError, OSError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{file} is damaged or cut short ({reason}); {remedy(file)}") from error


def survey(directory: Path) -> dict[str, Stored]:
    """Every tensor of every weight file in ``directory`` by name, from the headers only.

    Raises UserError for a damaged file, for a tensor that two files hold, and for one that the
    shard index places in a file that lacks it.
    """
    found: dict[str, Stored] = {}
    for file in weight_files(directory):
        for name, entry in weight_header(file).items():
            if name == "__metadata__":
                continue
            if name in found:
                raise UserError(
                    f"tensor {name} is both in {found[name].file} and in {file.name}; "
                    f"{remedy(file)}"
                )
            begin, end = entry["data_offsets"]
            found[name] = Stored(file, begin, tuple(entry["shape"]), entry["dtype"], end - begin)
    for name, file_name in (_weight_map(directory) or {}).items():
        if name not in found or found[name].file.name != file_name:
            raise UserError(
                f"{directory / file_name}: tensor {name} is missing, though {INDEX_NAME} says it "
                f"is there; {remedy(directory / file_name)}"
            )
    return found


def coded(name: str, tensor: Stored) -> UserError:
    """The error for a weight that is stored as codes, with scales elsewhere or nowhere."""
    return UserError(
        f"{tensor.file}: tensor {name} has dtype {tensor.dtype}, as in a quantized checkpoint; "
        f"weights must be one of {', '.join(READABLE)}: use the unquantized safetensors or a "
        ".gguf file"
    )


def _weight_map(directory: Path) -> dict[str, str] | None:
    """Tensor name → shard file name by the shard index; None without one."""
    index = directory / INDEX_NAME
    if not index.exists():
        return None
    mapped = read_json(index).get("weight_map")
    if not isinstance(mapped, dict) or not mapped:
        raise UserError(f"{index} has no weight_map; {remedy(index)}")
    return {name: str(file_name) for name, file_name in mapped.items()}


def check_directory(directory: Path) -> Path:
    """``directory`` if it has a config and complete safetensors weights, else UserError."""
    read_json(directory / "config.json")
    weight_files(directory)
    return directory


def check_complete(directory: Path) -> Path:
    """As ``check_directory``, and every weight file is as long as its own header says."""
    survey(check_directory(directory))
    return directory
