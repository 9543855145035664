"""``minisgl-tui replay``, ``dump`` and ``export``: what can be done with a recording."""

import argparse
from pathlib import Path
from typing import Any

from ..engine import perfetto
from ..engine.errors import UserError
from ..engine.positions import FORMS
from ..engine.trace import check_path
from ..engine.trace_file import Trace
from .attach_command import add_key_flag
from .start import add_look_flags, check_keys, show
from .terminal import check_terminal


def add_parsers(commands: Any) -> None:
    replay = commands.add_parser(
        "replay",
        help="open a recording in the terminal",
        description="Step and play a recording made with --record, on the screens of `run`.",
    )
    replay.add_argument("file", type=Path, metavar="FILE", nargs="?")
    replay.add_argument(
        "--last",
        action="store_true",
        help="the last session of `run` that a dead terminal, a crash or a kill has cut off",
    )
    add_look_flags(replay)
    replay.set_defaults(command=_replay)
    dump = commands.add_parser(
        "dump",
        help="print what a recording shows at a position, or a server shows now",
        description="The panes of `replay` as plain text, at one position of a recording, or as "
        "they are now on a server that was started with serve --debug.",
    )
    dump.add_argument("file", metavar="FILE_OR_URL")
    add_key_flag(dump)
    dump.add_argument(
        "--at", default="end", metavar="POSITION", help=f"{FORMS} (default: end)".replace("%", "%%")
    )
    dump.add_argument("--json", action="store_true", help="the whole state, for programs")
    dump.set_defaults(command=_dump)
    export = commands.add_parser(
        "export",
        help="turn a recording into a trace for other tools",
        description="Steps, requests and counters of a recording, for https://ui.perfetto.dev.",
    )
    export.add_argument("file", type=Path, metavar="FILE")
    export.add_argument(
        "--perfetto", type=Path, metavar="OUT.json", required=True, help="the file to write"
    )
    export.add_argument("--overwrite", action="store_true", help="replace it if it exists")
    export.set_defaults(command=_export)


def _replay(args: argparse.Namespace) -> int:
    check_terminal("replay")
    check_keys()
    if (args.file is None) != args.last:
        raise UserError("replay needs the FILE of a recording, or --last, and not both")
    from . import session_files
    from .sources.recorded import RecordedSource

    source = RecordedSource(args.file or session_files.last(), resume=args.last)
    return show(source, args, keeps=True)


def _dump(args: argparse.Namespace) -> int:
    from . import dump

    if "://" in args.file:
        if args.at != "end":
            raise UserError(f"--at {args.at} is for recordings: of a server there is the present")
        of_server = dump.server_as_json if args.json else dump.server_as_text
        print(of_server(args.file, args.api_key))
        return 0
    path = Path(args.file)
    print(dump.as_json(path, args.at) if args.json else dump.as_text(path, args.at))
    return 0


def _export(args: argparse.Namespace) -> int:
    out: Path = args.perfetto
    check_path(out, args.overwrite, "--perfetto")
    trace = Trace.open(args.file)
    try:
        with out.open("wb") as file:
            written = perfetto.write(trace.header, trace.history, file)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    cut = f" ({trace.cut})" if trace.cut else ""
    print(f"{out}: {written:,} trace events of {len(trace.history):,} records{cut}")
    return 0
