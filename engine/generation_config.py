"""What ``generation_config.json`` says: where answers end, and how a model wants to be sampled.

Read as plain JSON, so an engine without a tokenizer knows it too.
"""

from pathlib import Path
from typing import Any

from .errors import RequestRefused, UserError
from .models.files import read_json
from .sampling import SamplingParams

FILE_NAME = "generation_config.json"
_NAMES = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "max_new_tokens": "max_tokens",
}


def eos_token_ids(directory: Path) -> tuple[int, ...]:
    """Every end-of-sequence id that generation_config.json or config.json names, in order."""
    found: dict[int, None] = {}
    for name in (FILE_NAME, "config.json"):
        value = _read(directory / name).get("eos_token_id")
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, int) and not isinstance(item, bool):
                found[item] = None
    return tuple(found)


def default_params(directory: Path) -> SamplingParams:
    """How the model's makers sample from it; what they leave open is as in ``SamplingParams()``.

    As in vLLM, ``do_sample`` is not asked. Raises UserError for a value that cannot be used.
    """
    path = directory / FILE_NAME
    given = _read(path)
    said = {ours: given[name] for name, ours in _NAMES.items() if given.get(name) is not None}
    if said.get("top_k") == -1:
        said["top_k"] = 0  # two ways to write "all of them"
    try:
        return SamplingParams(**said)
    except RequestRefused as error:
        raise UserError(f"{path}: {error}; correct it or remove the line") from error


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}
