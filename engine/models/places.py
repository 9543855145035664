"""Where models are kept, and what to do about one that turns out damaged. No torch."""

import os
from pathlib import Path

from ..errors import UserError


def cache_dir() -> Path:
    """Our cache: ``MINISGL_TUI_CACHE``, else the user cache directory."""
    chosen = os.environ.get("MINISGL_TUI_CACHE")
    if chosen:
        return expand(chosen)
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("minisgl-tui"))


def models_dir() -> Path:
    """Holds one finished directory per model that we made."""
    return cache_dir() / "models"


def expand(text: str) -> Path:
    """``text`` as a path, with ``~`` and ``~user`` replaced; UserError for an unknown user."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"{text}: no home directory is known for that user") from error


def remedy(path: Path) -> str:
    """What to do about the damaged ``path``: ours is made anew once it is gone."""
    ours = models_dir()
    if ours not in path.parents:
        return "fetch the model again"
    return f"delete {ours / path.relative_to(ours).parts[0]} and start again to have it made anew"
