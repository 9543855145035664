"""The files of a model directory: reading its JSON, finding its weights. No torch."""

import json
from pathlib import Path
from typing import Any

from ..errors import UserError
from .places import remedy

INDEX_NAME = "model.safetensors.index.json"


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
    """The safetensors files of a model directory, in name order.

    Raises UserError where there are none, saying so when only pickle weights are there, and where
    the shard index names a file that is missing.
    """
    index = directory / INDEX_NAME
    if index.exists():
        mapped = read_json(index).get("weight_map")
        if not isinstance(mapped, dict):
            raise UserError(f"{index} has no weight_map; {remedy(index)}")
        names = sorted({str(name) for name in mapped.values()})
        for name in names:
            # A plain name only: an index must not reach outside its own directory.
            if Path(name).name != name or not (directory / name).exists():
                raise UserError(f"{directory / name} is missing, though {INDEX_NAME} names it")
        return [directory / name for name in names]
    files = sorted(directory.glob("*.safetensors"))
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


def check_directory(directory: Path) -> Path:
    """``directory`` if it has a config and complete safetensors weights, else UserError."""
    read_json(directory / "config.json")
    weight_files(directory)
    return directory


def check_complete(directory: Path) -> Path:
    """As ``check_directory``, and every weight file is as long as its own header says."""
    for file in weight_files(check_directory(directory)):
        weight_header(file)
    return directory
