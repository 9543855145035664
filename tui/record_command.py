"""``minisgl-tui record``: a run without a terminal, into a file that `replay` opens."""

import argparse
from pathlib import Path
from typing import Any

from .engine_flags import add_engine_flags
from .progress import progress_bar
from .workload_flags import add_workload_flags, source_of


def add_parser(commands: Any) -> None:
    record = commands.add_parser(
        "record",
        help="run a workload without a terminal, into a recording",
        description="Run a workload to its end at full speed, record it, and print its figures. "
        "`minisgl-tui replay FILE` opens the recording.",
    )
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
    add_workload_flags(record)
    add_engine_flags(record)
    record.set_defaults(command=_record)


def _record(args: argparse.Namespace) -> int:
    source = source_of(args)

    from .unattended import Unattended

    with progress_bar() as progress:
        run = Unattended(source, progress)
        run.run()
    print(f"{args.record}:", *run.figures(), sep="\n  ")
    return 0
