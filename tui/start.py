"""Opening the screens over a source: how they look, the user's keys, and how it all ends."""

import argparse
import locale
import shlex
import sys

from .sources.base import Source

THEMES = ("dark", "light", "high-contrast", "ansi")


def add_look_flags(parser: argparse.ArgumentParser) -> None:
    look = parser.add_argument_group("how it looks")
    look.add_argument(
        "--theme",
        choices=THEMES,
        default=THEMES[0],
        help="colours; ansi leaves them to the terminal (default: %(default)s)",
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


def show(source: Source, args: argparse.Namespace, keeps: bool) -> int:
    """Show ``source`` until the user leaves; gives the exit code. ``keeps``: see `DebuggerApp`."""
    from .app import DebuggerApp

    ascii = args.ascii or not _speaks_utf8()
    command_line = shlex.join(["minisgl-tui", *args.words])
    return DebuggerApp(source, args.theme, ascii, command_line, keeps).run_to_exit_code()


def _speaks_utf8() -> bool:
    return "utf" in (sys.stdout.encoding or locale.getpreferredencoding()).lower()
