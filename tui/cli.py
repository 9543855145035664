"""The command line: one program, one parser, and a short function a subcommand.

Imports nothing slow: torch, transformers and textual come in only when a command needs them, so
that ``--help`` answers at once. Errors a person can act on end as one line on stderr, exit code 2.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from ..engine import model_store
from ..engine.errors import UserError
from ..engine.interrupts import ends_in_order
from . import (
    attach_command,
    bench_command,
    check_command,
    fork_command,
    record_command,
    recording_commands,
    serve_command,
)
from .engine_flags import DEFAULT_MODEL, add_engine_flags, add_record_flags
from .progress import print_progress
from .start import add_look_flags, check_keys, show
from .terminal import check_terminal
from .workload_flags import add_workload_flags, source_of

USAGE_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser, commands = _parser()
    if not words or (words[0] not in commands and words[0] not in ("-h", "--help", "--version")):
        words.insert(0, "run")  # `minisgl-tui` alone opens the debugger
    args = parser.parse_args(words)
    try:
        args.words = words
        with ends_in_order():
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
    add_workload_flags(run)
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
    colours = commands.add_parser("themes", help="the colours there are, and files for your own")
    colours.set_defaults(command=_print_themes)
    serve_command.add_parser(commands)
    attach_command.add_parser(commands)
    record_command.add_parser(commands)
    recording_commands.add_parsers(commands)
    fork_command.add_parser(commands)
    bench_command.add_parser(commands)
    check_command.add_parser(commands)
    return parser, commands.choices


def _run(args: argparse.Namespace) -> int:
    source = source_of(args)
    check_terminal("run")
    check_keys()
    from .session_files import SessionFile

    keeps = args.record is not None
    return show(source, args, keeps, None if keeps else SessionFile())


def _print_keys(args: argparse.Namespace) -> int:
    from . import keymap

    check_keys()
    print("\n".join(keymap.lines()))
    return 0


def _print_themes(args: argparse.Namespace) -> int:
    from . import themes

    print("\n".join(themes.lines()))
    return 0


def _list_models(args: argparse.Namespace) -> int:
    models = model_store.list_models()
    for model in models:
        print(f"{model.name:24} {model.size / 1e6:8.0f} MB  {model.path}")
    if not models:
        print(f"no models here yet; fetch the default one: minisgl-tui models pull {DEFAULT_MODEL}")
    return 0


def _pull_model(args: argparse.Namespace) -> int:
    progress = print_progress()
    path = model_store.pull(args.name, progress)
    progress("", None)
    print(f"{args.name}: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
