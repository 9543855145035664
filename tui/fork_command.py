"""``minisgl-tui fork``: a recorded run, run again from a position under other settings.

The run itself is `engine.fork`, what is printed of it `fork_report.py`.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..engine import positions
from ..engine.errors import UserError
from ..engine.fork import Changes, Fork, Spelling, read, run
from ..engine.fork.changes import SETTINGS
from ..engine.trace import Piece, check_path
from ..engine.trace_file import Trace, save
from .engine_flags import add_policy_flags, add_record_flags
from .progress import ShowProgress, progress_bar
from .sources.recorded import tokenizer_of


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "fork",
        help="run a recording again from a position, under other settings",
        description="Runs the rest of a recording again with another pool, budget or policy, or "
        "with other texts in its prompts, and compares. No model is needed: the answers are the "
        "recorded ones, scheduler and cache decide anew, and times are learnt from the recorded "
        "steps.",
    )
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument(
        "--at",
        default="start",
        metavar="POSITION",
        help=f"{positions.FORMS} (default: start)".replace("%", "%%"),
    )
    changes = parser.add_argument_group("changes", "a policy may be your own: module:Class")
    changes.add_argument("--num-blocks", type=int, metavar="N", help="KV blocks in the pool")
    changes.add_argument("--max-batch-tokens", type=int, metavar="N", help="token budget of a step")
    changes.add_argument(
        "--max-running-requests", type=int, metavar="N", help="most requests at a time"
    )
    add_policy_flags(changes)
    changes.add_argument(
        "--replace",
        nargs=2,
        action="append",
        default=[],
        metavar=("PATTERN", "TEXT"),
        help="put TEXT where this regular expression matches in prompts; may be given again",
    )
    changes.add_argument(
        "--sweep",
        metavar="NAME=A,B,…",
        help=f"one fork for each value of a setting: {', '.join(SETTINGS)}",
    )
    add_record_flags(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=_fork)


def _fork(args: argparse.Namespace) -> int:
    settings = {name: getattr(args, name) for name in SETTINGS}
    changes = Changes(**settings, replace=tuple((a, b) for a, b in args.replace))
    every = _sweep(args.sweep, changes) if args.sweep else [changes]
    if args.record:
        if args.sweep:
            raise UserError("--record takes one fork, and --sweep makes several; give one of them")
        check_path(args.record, args.overwrite)
    trace = Trace.open(args.file)
    for one in every:
        one.apply(trace.header.config)
    at = positions.parse(args.at, trace.history)
    texts = _Texts(trace) if changes.replace else None
    with progress_bar() as progress:
        recorded = read(trace.history, at, progress)
        forks = [
            run(recorded, one, _counted(progress, i, len(every)), texts and texts.spelling)
            for i, one in enumerate(every)
        ]
    if args.record:
        pieces = texts.pieces(forks[0]) if texts else trace.vocabulary()
        header = forks[0].header(trace.header)
        save(args.record, header, pieces, forks[0].history, overwrite=args.overwrite)
    from . import fork_report as report

    if args.json:
        told = [report.as_plain(fork) for fork in forks]
        print(json.dumps(told if args.sweep else told[0]))
    elif args.sweep:
        print("\n".join(report.sweep(args.file.name, forks)))
    else:
        print("\n".join(report.comparison(args.file.name, forks[0])))
    return 0


def _sweep(text: str, changes: Changes) -> list[Changes]:
    """One for each value of the setting in ``text``."""
    name, _, values = text.partition("=")
    given = [value.strip() for value in values.split(",")]
    if not all(given):
        raise UserError(f"--sweep is {text!r}; give NAME=A,B,… such as num_blocks=64,128,256")
    every = [Changes.parse([f"{name}={value}"]) for value in given]
    (swept,) = every[0].settings
    if getattr(changes, swept) is not None:
        raise UserError(f"--sweep goes through {swept} already; leave --{swept.replace('_', '-')}")
    return [changes.and_also(one) for one in every]


def _counted(progress: ShowProgress, number: int, of: int) -> ShowProgress:
    if of == 1:
        return progress
    return lambda stage, fraction: progress(f"{stage} {number + 1} of {of}", fraction)


class _Texts:
    """The texts of tokens: by the recording, and by its model's tokenizer if that is here."""

    def __init__(self, trace: Trace) -> None:
        self._vocabulary = trace.vocabulary()
        self._tokenizer = tokenizer_of(trace.header)
        encode = self._tokenizer.encode_within if self._tokenizer else None
        self.spelling = Spelling(self._vocabulary, encode)

    def pieces(self, fork: Fork) -> Mapping[int, Piece]:
        """Of every token in ``fork``, those of edited prompts too."""
        if not self._tokenizer:
            return self._vocabulary
        end = fork.history.state_at(fork.history.end)
        new = {token for request in end.requests.values() for token in request.tokens}
        new -= self._vocabulary.keys()
        return self._vocabulary | {token: self._tokenizer.piece(token) for token in new}
