"""Opening the screens over a source: how they look, the user's keys, and how it all ends."""

import argparse
import os
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .sources.base import Source

if TYPE_CHECKING:
    from .session_files import SessionFile

THEMES = ("dark", "light", "high-contrast", "ansi")


def add_look_flags(parser: argparse.ArgumentParser) -> None:
    look = parser.add_argument_group("how it looks")
    look.add_argument(
        "--theme",
        metavar="NAME",
        default=THEMES[0],
        help=f"colours: {', '.join(THEMES)}, or your own (`minisgl-tui themes`); ansi leaves them "
        "to the terminal (default: %(default)s)",
    )
    look.add_argument(
        "--ascii",
        action="store_true",
        help="draw with ASCII alone; so it does where the locale is not UTF-8",
    )


def check_keys() -> None:
    """Take the user's keys. Raises `UserError` if their file is wrong."""
    from . import actions, keymap

    actions.use(keymap.load(keymap.path()))


def show(
    source: Source,
    args: argparse.Namespace,
    keeps: bool,
    session_file: "SessionFile | None" = None,
) -> int:
    """Show ``source`` until the user leaves; gives the exit code. For ``keeps`` and
    ``session_file`` see `DebuggerApp`."""
    from .app import DebuggerApp

    ascii = args.ascii or not speaks_utf8(os.environ)
    command_line = shlex.join(["minisgl-tui", *args.words])
    app = DebuggerApp(source, args.theme, ascii, command_line, keeps, session_file)
    return app.run_to_exit_code()


def speaks_utf8(environ: Mapping[str, str]) -> bool:
    """Whether the locale is for UTF-8; one that nobody has set is taken to be."""
    named = (environ.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    return "utf" in next((name for name in named if name), "utf-8").lower()
