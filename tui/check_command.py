"""``minisgl-tui check``: does a model give the same tokens however it is run?

Running and comparing is done in `engine.check`, which comes in only when the command starts.
"""

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..engine import model_store
from .engine_flags import DEFAULT_MODEL, add_engine_flags, check_settings, given_flags
from .progress import progress_bar

if TYPE_CHECKING:
    from ..engine.check import Comparison, Divergence, Report

DIVERGED = 1


def add_parser(commands: Any) -> None:
    check = commands.add_parser(
        "check",
        help="does a model give the same tokens however it is run?",
        description="Greedy answers to built-in prompts: alone and batched, cold and warm, whole "
        "and in chunks, by each attention backend, and by transformers. In float32 all must agree "
        "(exit code 1 if not); in other types it shows how close the choice was.",
    )
    check.set_defaults(command=run)
    check.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="M", help="as in `run` (default: %(default)s)"
    )
    check.add_argument(
        "--prompts", type=int, default=8, metavar="N", help="how many (default: %(default)s)"
    )
    check.add_argument(
        "--max-tokens", type=int, default=16, metavar="N", help="of each (default: %(default)s)"
    )
    check.add_argument("--json", action="store_true", help="print JSON")
    add_engine_flags(check)


def run(args: argparse.Namespace) -> int:
    settings = given_flags(args)
    check_settings(settings)
    model_store.check(args.model)
    from ..engine.check import check

    with progress_bar() as progress:
        report = check(
            args.model,
            prompts=args.prompts,
            max_tokens=args.max_tokens,
            progress=progress,
            **settings,
        )
    if args.json:
        print(json.dumps(asdict(report) | {"agrees": report.agrees}))
    else:
        print("\n".join(show(report)))
    if not report.ok:
        print("minisgl-tui: the runs differ, which float32 must not", file=sys.stderr)
    return 0 if report.ok else DIVERGED


def show(report: "Report") -> list[str]:
    """The report as lines of text."""
    lengths = report.prompt_tokens
    lines = [
        f"{report.model}, {report.dtype} on {report.device}: {len(lengths)} prompts of "
        f"{min(lengths)} to {max(lengths)} tokens, {report.max_tokens} new tokens each, greedy",
        "",
    ]
    for one in report.comparisons:
        lines.append(f"{one.first:>12} = {one.second:14} {one.agreeing} of {one.prompts} agree")
        if one.divergence is not None:
            lines.append(f"{'':15}{_parting(one, one.divergence)}")
    lines += [f"{'skipped':>12} : {name}: {why}" for name, why in report.skipped.items()]
    lines += ["", f"the warm run found {report.cached_tokens} of {sum(lengths)} tokens cached"]
    return lines


def _parting(one: "Comparison", at: "Divergence") -> str:
    (first, second), (left, right) = at.tokens, at.texts
    return (
        f"prompt {at.prompt} ({at.prompt_tokens} tokens) parts at token {at.position}: "
        f"{one.first} {first} {left!r}, {one.second} {second} {right!r}; "
        f"margins {at.margins[0]:.3g} and {at.margins[1]:.3g}"
    )
