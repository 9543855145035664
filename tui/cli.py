"""The command line: one program, one parser, and a short function a subcommand.

Imports nothing slow: torch, transformers and textual come in only when a command needs them, so
that ``--help`` answers at once. Errors a person can act on end as one line on stderr, exit code 2.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import demos
from ..engine import model_store
from ..engine.errors import UserError
from ..engine.sampling import SamplingParams
from ..engine.workload import Workload, WorkloadRequest, load_workload
from . import bench_command, check_command, recording_commands, serve_command
from .engine_flags import (
    DEFAULT_MODEL,
    add_engine_flags,
    add_record_flags,
    check_settings,
    engine_settings,
    record_to,
)
from .progress import print_progress
from .start import add_look_flags, check_keys, show
from .terminal import check_terminal

USAGE_ERROR = 2
DEFAULT_LOGPROBS = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser, commands = _parser()
    if not words or (words[0] not in commands and words[0] not in ("-h", "--help", "--version")):
        words.insert(0, "run")  # `minisgl-tui` alone opens the debugger
    args = parser.parse_args(words)
    try:
        args.words = words
        return args.command(args)
    except UserError as error:
        print(f"minisgl-tui: {error}", file=sys.stderr)
        return USAGE_ERROR
    except BrokenPipeError:  # whoever read the output has had enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("minisgl-tui: interrupted", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    """Reports a bad flag in one line, like every other error."""

    def error(self, message: str) -> Any:
        self.exit(USAGE_ERROR, f"minisgl-tui: {message}; see `{self.prog} --help`\n")


def _parser() -> tuple[argparse.ArgumentParser, dict[str, Any]]:
    parser = _Parser(
        prog="minisgl-tui",
        description="An LLM inference engine you can stop, step and question in a terminal. "
        "Without a command: run.",
    )
    parser.add_argument("--version", action="version", version=version("minisgl-tui"))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    run = commands.add_parser("run", help="step a model in the terminal")
    _add_run_flags(run)
    add_engine_flags(run)
    add_look_flags(run)
    add_record_flags(run)
    run.set_defaults(command=_run)
    models = commands.add_parser("models", help="list models on this machine, or fetch one")
    models.set_defaults(command=_list_models)
    actions = models.add_subparsers(title="actions", metavar="ACTION")
    listing = actions.add_parser("list", help="what is here, and where")
    listing.set_defaults(command=_list_models)
    pull = actions.add_parser("pull", help="fetch a model, so that it starts without a network")
    pull.add_argument("name", help="alias, Hub id, local directory or .gguf file")
    pull.set_defaults(command=_pull_model)
    keys = commands.add_parser("keys", help="the keys, and the file for your own")
    keys.set_defaults(command=_print_keys)
    serve_command.add_parser(commands)
    recording_commands.add_parsers(commands)
    bench_command.add_parser(commands)
    check_command.add_parser(commands)
    return parser, commands.choices


def _add_run_flags(parser: argparse.ArgumentParser) -> None:
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


def _workload(args: argparse.Namespace) -> Workload:
    """What to run, with ``--system`` in place of the workload's own."""
    workload = _chosen_workload(args)
    if args.system is not None:
        workload.system = args.system
    return workload


def _chosen_workload(args: argparse.Namespace) -> Workload:
    if args.workload:
        return load_workload(args.workload)
    if args.prompt:
        requests = [
            WorkloadRequest(user=text, max_tokens=args.max_tokens, temperature=args.temperature)
            for text in args.prompt
        ]
        return Workload(requests=requests)
    return demos.load(args.demo or demos.DEFAULT)


def _run(args: argparse.Namespace) -> int:
    params = SamplingParams(
        temperature=args.temperature,
        max_tokens=args.max_tokens,
        logprobs=args.logprobs or None,
    )
    workload = _workload(args)
    settings = engine_settings(args, workload)
    check_settings(settings)
    recording = record_to(args)
    model_store.check(args.model)
    check_terminal("run")
    check_keys()

    from .session import model_session
    from .sources.local import LocalSource

    session = model_session(args.model, workload, settings, params.logprobs)
    source = LocalSource(session, params, recording)
    return show(source, args, recording is not None)


def _print_keys(args: argparse.Namespace) -> int:
    from . import keymap

    check_keys()
    print("\n".join(keymap.lines()))
    return 0


def _list_models(args: argparse.Namespace) -> int:
    models = model_store.list_models()
    for model in models:
        print(f"{model.name:24} {model.size / 1e6:8.0f} MB  {model.path}")
    if not models:
        print(f"no models here yet; fetch the default one: minisgl-tui models pull {DEFAULT_MODEL}")
    return 0


def _pull_model(args: argparse.Namespace) -> int:
    path = model_store.pull(args.name, print_progress())
    print(f"\r\x1b[K{args.name}: {path}" if sys.stderr.isatty() else f"{args.name}: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
