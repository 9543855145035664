"""``minisgl-tui replay`` and ``dump``: a recording on the screens, or as plain text."""

import argparse
from pathlib import Path
from typing import Any

from ..engine.positions import FORMS
from .terminal import check_terminal


def add_parsers(commands: Any) -> None:
    replay = commands.add_parser(
        "replay",
        help="open a recording in the terminal",
        description="Step and play a recording made with --record, on the screens of `run`.",
    )
    replay.add_argument("file", type=Path, metavar="FILE")
    replay.set_defaults(command=_replay)
    dump = commands.add_parser(
        "dump",
        help="print what a recording shows at a position",
        description="The panes of `replay` as plain text, at one position of a recording.",
    )
    dump.add_argument("file", type=Path, metavar="FILE")
    dump.add_argument(
        "--at", default="end", metavar="POSITION", help=f"{FORMS} (default: end)".replace("%", "%%")
    )
    dump.add_argument("--json", action="store_true", help="the whole state, for programs")
    dump.set_defaults(command=_dump)


def _replay(args: argparse.Namespace) -> int:
    check_terminal("replay")
    from .app import DebuggerApp
    from .sources.recorded import RecordedSource

    return DebuggerApp(RecordedSource(args.file)).run_to_exit_code()


def _dump(args: argparse.Namespace) -> int:
    from . import dump

    print(dump.as_json(args.file, args.at) if args.json else dump.as_text(args.file, args.at))
    return 0
