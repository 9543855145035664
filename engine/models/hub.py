"""Models from the Hugging Face Hub, into the Hub's own cache, which other tools share.

Only JSON, safetensors and tokenizer files are ever fetched; pickle weights and code are not. A
small record in our cache says which snapshot was fetched completely, so that a later start needs
no network, and a download cut short is never taken for a model.
"""

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..errors import UserError
from .build_dir import Progress
from .files import check_complete

WANTED = ("*.json", "*.safetensors", "*.txt", "*.jinja", "tokenizer.model", "spiece.model")
UNWANTED = ("*/*", "adapter_*", "consolidated*.safetensors")
_REACH_SECONDS = 5.0
_POLL_SECONDS = 0.3
_DISK_ERRORS = (errno.ENOSPC, errno.EACCES, errno.EROFS)

T = TypeVar("T")


class HubUnreachable(Exception):
    """The Hub did not answer, or may not be asked (``HF_HUB_OFFLINE``)."""


def recorded_snapshot(record: Path) -> Path | None:
    """The complete snapshot that ``record`` names, if it is still there."""
    try:
        path = Path(json.loads(record.read_text(encoding="utf-8"))["path"])
        return check_complete(path)
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None


def fetch(name: str, record: Path, progress: Progress) -> Path:
    """A local directory with Hub model ``name``; writes ``record`` once it is complete.

    Raises HubUnreachable when neither Hub nor the Hub's cache has it, and UserError when the Hub
    says no: unknown, private or gated.
    """
    import huggingface_hub
    from huggingface_hub import errors, utils

    utils.disable_progress_bars()
    utils.logging.set_verbosity_error()
    progress(f"asking the Hub for {name}", None)
    try:
        _within(_REACH_SECONDS, lambda: huggingface_hub.model_info(name, timeout=_REACH_SECONDS))
        path = _whole_snapshot(name, progress)
    except errors.GatedRepoError as error:
        raise UserError(
            f"{name} is gated: accept its terms on huggingface.co, then set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"the Hub has no model {name}, or it is private; check the spelling or set HF_TOKEN"
        ) from error
    except errors.HFValidationError as error:
        raise UserError(f"{name!r} is not a Hub id; write org/name") from error
    except UserError:
        raise
    except Exception as error:  # offline mode, DNS, TLS, proxies, HTTP 5xx: many types, one meaning
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            raise
        path = _cached(name)
        if path is None:
            raise HubUnreachable(_one_line(error)) from error
        return path
    record.parent.mkdir(parents=True, exist_ok=True)
    draft = record.with_name(f".{record.name}.{os.getpid()}")
    draft.write_text(json.dumps({"name": name, "path": str(path)}), encoding="utf-8")
    draft.replace(record)
    return path


def _whole_snapshot(name: str, progress: Progress) -> Path:
    """The snapshot of ``name``; files that are there but damaged are downloaded again."""
    path = Path(_snapshot(name, progress))
    try:
        return check_complete(path)
    except UserError:
        return check_complete(Path(_snapshot(name, progress, force=True)))


def _snapshot(name: str, progress: Progress, *, force: bool = False) -> str:
    """Download what is missing (or, by ``force``, all), reporting bytes as the cache grows."""
    import huggingface_hub
    from huggingface_hub import constants

    wanted: dict[str, Any] = {"allow_patterns": list(WANTED), "ignore_patterns": list(UNWANTED)}
    wanted["force_download"] = force
    plan = huggingface_hub.snapshot_download(name, dry_run=True, **wanted)
    total = sum(file.file_size or 0 for file in plan if file.will_download)
    blobs = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "blobs"
    before, finished = _size(blobs), threading.Event()

    def watch() -> None:
        while not finished.wait(_POLL_SECONDS):
            grown = _size(blobs) - before
            progress(f"downloading {name}", min(1.0, grown / total) if total else None)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        return huggingface_hub.snapshot_download(name, **wanted)
    finally:
        finished.set()
        watcher.join()


def _cached(name: str) -> Path | None:
    """A complete snapshot in the Hub's cache, fetched by whichever program."""
    import huggingface_hub

    try:
        found = huggingface_hub.snapshot_download(name, local_files_only=True)
        return check_complete(Path(found))
    except (OSError, ValueError, UserError):
        return None


def _within(seconds: float, call: Callable[[], T]) -> T:
    """``call()``, given up after ``seconds``: name resolution ignores every other time limit."""
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["value"] = call()
        except Exception as error:
            outcome["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if "error" in outcome:
        raise outcome["error"]
    if "value" not in outcome:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    return outcome["value"]


def _size(directory: Path) -> int:
    try:
        return sum(path.stat().st_size for path in directory.iterdir())
    except OSError:
        return 0


def _one_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
