"""Built-in workloads: one TOML file each, in the format of ``engine/workload.py``."""

from importlib.resources import files
from pathlib import Path

from ..engine.errors import UserError
from ..engine.workload import Workload, load_workload

DEFAULT = "three-chats"


def names() -> list[str]:
    """What ``--demo`` accepts."""
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in files(__name__).iterdir()
        if entry.name.endswith(".toml")
    )


def load(name: str) -> Workload:
    """The demo called ``name``. Raises `UserError` that lists what there is."""
    if name not in names():
        raise UserError(f"--demo {name!r} is not known; choose one of: {', '.join(names())}")
    return load_workload(Path(str(files(__name__) / f"{name}.toml")))
