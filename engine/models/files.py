"""The files of a model directory: reading its JSON, finding its weights. No torch."""

import json
from pathlib import Path
from typing import Any

from ..errors import UserError

INDEX_NAME = "model.safetensors.index.json"


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``; UserError when it is missing or not one."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing; a model directory needs config.json and *.safetensors"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not readable JSON ({error}); fetch the model again") from error
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
            raise UserError(f"{index} has no weight_map; fetch the model again")
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
    raise UserError(f"{directory} holds no *.safetensors weights; fetch the model again")


def check_directory(directory: Path) -> Path:
    """``directory`` if it has a config and complete safetensors weights, else UserError."""
    read_json(directory / "config.json")
    weight_files(directory)
    return directory
