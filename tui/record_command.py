"""``minisgl-tui record``: a run without a terminal, into a file that `replay` opens."""

import argparse
from pathlib import Path
from typing import Any

from ..engine.errors import UserError
from .attach_command import URL_HELP, add_key_flag
from .engine_flags import ENGINE_FLAGS, add_engine_flags, record_to
from .progress import progress_bar
from .workload_flags import WORKLOAD_FLAGS, add_workload_flags, source_of


def add_parser(commands: Any) -> None:
    record = commands.add_parser(
        "record",
        help="write a recording without a terminal, of a workload or of a running server",
        description="Without URL: run a workload to its end at full speed, record it, print its "
        "figures; with it, record what a running server does, until interrupted. "
        "`minisgl-tui replay FILE` opens the recording.",
    )
    record.add_argument("url", nargs="?", metavar="URL", help=URL_HELP)
    record.add_argument(
        "-o",
        "--output",
        dest="record",
        type=Path,
        metavar="FILE",
        required=True,
        help="the recording (.mtrace, or .mtrace.gz: compressed), prompts and answers included",
    )
    record.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    watching = record.add_argument_group("a running server")
    watching.add_argument(
        "--duration", type=float, metavar="S", help="seconds to record (default: until interrupted)"
    )
    add_key_flag(watching)
    add_workload_flags(record)
    add_engine_flags(record)
    record.set_defaults(command=_record, defaults=record.get_default, record_flag="--output")


def _record(args: argparse.Namespace) -> int:
    if args.url is not None:
        return _record_server(args)
    if args.duration is not None:
        raise UserError("--duration is for recording a server: give its URL too")
    source = source_of(args)

    from .unattended import Unattended

    with progress_bar() as progress:
        run = Unattended(source, progress)
        run.run()
    print(f"{args.record}:", *run.figures(), sep="\n  ")
    return 0


def _record_server(args: argparse.Namespace) -> int:
    _only_watched(args)
    if args.duration is not None and not args.duration > 0:
        raise UserError(f"--duration is {args.duration:g}; give more than 0 seconds")
    wanted = record_to(args)
    from .sources.http import HttpSource
    from .watching import Watching

    watching = Watching(HttpSource(args.url, args.api_key, wanted))
    watching.run(args.duration)
    print(*watching.figures(), sep="\n  ")
    return 0


def _only_watched(args: argparse.Namespace) -> None:
    """Raises `UserError` for a flag that says what to run."""
    for name in (*WORKLOAD_FLAGS, *ENGINE_FLAGS):
        if getattr(args, name) != args.defaults(name):
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag} is for a run of one's own, and {args.url} is a running server")
