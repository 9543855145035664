"""The flags that say what to run, the same for `run` and `record`, and the source they come to.

Imports nothing slow.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .. import demos
from ..engine import model_store
from ..engine.sampling import SamplingParams
from ..engine.workload import Workload, WorkloadRequest, load_workload
from .engine_flags import DEFAULT_MODEL, check_settings, engine_settings, record_to

if TYPE_CHECKING:
    from .sources.local import LocalSource

DEFAULT_LOGPROBS = 5
WORKLOAD_FLAGS = (
    "model",
    "prompt",
    "workload",
    "demo",
    "system",
    "max_tokens",
    "temperature",
    "logprobs",
)


def add_workload_flags(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what to run")
    what.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help="alias, local directory, .gguf file or Hub id (default: %(default)s)",
    )
    load = what.add_mutually_exclusive_group()
    load.add_argument(
        "--prompt", action="append", metavar="TEXT", help="a chat message; may be given again"
    )
    load.add_argument(
        "--workload", type=Path, metavar="FILE", help="requests from a TOML or JSON file"
    )
    load.add_argument(
        "--demo",
        metavar="NAME",
        help=f"a built-in workload: {', '.join(demos.names())} (default: {demos.DEFAULT})",
    )
    what.add_argument("--system", metavar="TEXT", help="system prompt, in place of the workload's")
    what.add_argument(
        "--max-tokens",
        type=int,
        default=64,
        metavar="N",
        help="longest answer to --prompt and typed prompts (default: %(default)s)",
    )
    what.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="for --prompt and typed prompts; 0 is greedy (default: %(default)s)",
    )
    what.add_argument(
        "--logprobs",
        type=int,
        default=DEFAULT_LOGPROBS,
        metavar="K",
        help="record every token's probability and the K likeliest, for the token inspector; "
        "0 records none (default: %(default)s)",
    )


def workload_of(args: argparse.Namespace) -> Workload:
    """What to run, with ``--system`` in place of the workload's own."""
    workload = _chosen(args)
    if args.system is not None:
        workload.system = args.system
    return workload


def _chosen(args: argparse.Namespace) -> Workload:
    if args.workload:
        return load_workload(args.workload)
    if args.prompt:
        requests = [
            WorkloadRequest(user=text, max_tokens=args.max_tokens, temperature=args.temperature)
            for text in args.prompt
        ]
        return Workload(requests=requests)
    return demos.load(args.demo or demos.DEFAULT)


def source_of(args: argparse.Namespace) -> "LocalSource":
    """An engine that runs it, recorded if that was asked for; nothing is loaded yet.

    Raises `UserError` for all that can be known to be wrong by now.
    """
    params = SamplingParams(
        temperature=args.temperature,
        max_tokens=args.max_tokens,
        logprobs=args.logprobs or None,
    )
    workload = workload_of(args)
    settings = engine_settings(args, workload)
    check_settings(settings)
    recording = record_to(args)
    model_store.check(args.model)

    from .session import model_session
    from .sources.local import LocalSource

    session = model_session(args.model, workload, settings, params.logprobs)
    return LocalSource(session, params, recording)
