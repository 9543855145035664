"""Reading what the user has written: TOML files in the configuration directory."""

import tomllib
from pathlib import Path
from typing import Any

import platformdirs

from ..engine.errors import UserError


def folder() -> Path:
    return Path(platformdirs.user_config_dir("minisgl-tui"))


def read(file: Path) -> dict[str, Any]:
    """What is in ``file``. Raises `UserError`, and `FileNotFoundError` where there is none."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:  # no TOML, or no UTF-8
        raise UserError(f"{file}: {error}") from error
