"""``minisgl-tui serve``: its flags, checked; serving itself is `api`'s, an extra of the install."""

import argparse
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..engine import model_store
from ..engine.asking import bearer
from ..engine.errors import UserError
from .engine_flags import (
    API_KEY_VARIABLE,
    DEFAULT_MODEL,
    add_engine_flags,
    add_record_flags,
    check_settings,
    given_flags,
    record_to,
)
from .progress import print_progress
from .start import THEMES, add_look_flags

EXTRA = {"fastapi", "httptools", "prometheus_client", "starlette", "uvicorn", "uvloop"}


def add_parser(commands: Any) -> None:
    serve = commands.add_parser(
        "serve",
        help="answer the OpenAI API over HTTP",
        description="Serve a model to any client of the OpenAI API: chat, completions, streams.",
    )
    serve.set_defaults(command=run)
    serve.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="M", help="as in `run` (default: %(default)s)"
    )
    serve.add_argument(
        "--served-model-name",
        metavar="NAME",
        help="what clients call it (default: as --model, of a path the last part)",
    )
    serve.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    serve.add_argument(
        "--port", type=int, default=30000, metavar="N", help="0 takes any (default: %(default)s)"
    )
    serve.add_argument(
        "--api-key",
        default=os.environ.get(API_KEY_VARIABLE) or None,
        metavar="KEY",
        help=f"clients must send it; better kept in {API_KEY_VARIABLE}",
    )
    serve.add_argument(
        "--cors",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let web pages of this origin ask, such as https://chat.example.org; may be given "
        "again; * is any (default: none)",
    )
    serve.add_argument(
        "--max-queued-requests",
        type=int,
        default=1024,
        metavar="N",
        help="most that wait while others run; more are answered 429 (default: %(default)s)",
    )
    serve.add_argument(
        "--max-request-mb",
        type=int,
        default=16,
        metavar="N",
        help="largest body of a request (default: %(default)s)",
    )
    serve.add_argument(
        "--drain",
        type=float,
        default=10.0,
        metavar="S",
        help="seconds that requests under way are given at the end (default: %(default)s)",
    )
    serve.add_argument(
        "--tool-parser",
        default="auto",
        metavar="FORMAT",
        help="how the model writes tool calls: hermes, llama3 or none; "
        "auto reads one that the chat template has written (default: %(default)s)",
    )
    watching = serve.add_argument_group("watching the engine")
    watching.add_argument(
        "--debug",
        action="store_true",
        help="let `minisgl-tui attach` watch every step, prompts and answers included: with the "
        "API key, or from this machine",
    )
    watching.add_argument(
        "--debug-control", action="store_true", help="let it pause and step the engine too"
    )
    watching.add_argument(
        "--debug-redact",
        action="store_true",
        help="viewers and recordings get numbers for tokens, and no text of a prompt or an answer",
    )
    watching.add_argument(
        "--tui",
        action="store_true",
        help="show it here as `attach --control` does; implies --debug and --debug-control",
    )
    watching.add_argument("--served", action="store_true", help=argparse.SUPPRESS)  # by served.py
    add_engine_flags(serve)
    add_record_flags(serve)
    add_look_flags(serve)


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted; returns the exit code."""
    _check(args)
    engine = given_flags(args)
    check_settings(engine)
    recording = record_to(args)
    model_store.check(args.model)
    if args.tui or args.served:
        from .served import end_with_input, serve_and_show

        if not args.served:
            return serve_and_show(args)
        end_with_input()
    with needs_extra("serve"):
        from ..api.server import ServerSettings, serve

    settings = ServerSettings(
        host=args.host,
        port=args.port,
        model_name=args.served_model_name or model_name(args.model),
        api_key=args.api_key,
        cors=tuple(args.cors),
        max_queued=args.max_queued_requests,
        max_body=args.max_request_mb << 20,
        drain=args.drain,
        tool_parser=args.tool_parser,
        record_to=recording,
        debug=args.debug or args.tui,
        debug_control=args.debug_control or args.tui,
        debug_redact=args.debug_redact,
    )
    serve(args.model, settings, engine, print_progress())
    return 0


@contextmanager
def needs_extra(what: str) -> Iterator[None]:
    """Imports of `api`, for ``what``: where its packages are missing, say how to get them."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        raise UserError(
            f"{what} needs {error.name}, which is not installed: pip install 'minisgl-tui[serve]'"
        ) from error


def model_name(model: str) -> str:
    """``~/models/tiny/`` → ``tiny``; an alias or Hub id as it is."""
    is_path = os.path.exists(model) or model.endswith(".gguf")
    return os.path.basename(os.path.abspath(model)) if is_path else model


def _check(args: argparse.Namespace) -> None:
    if not args.tui and (args.ascii or args.theme != THEMES[0]):
        raise UserError("--theme and --ascii are for the screens of --tui: add it")
    if args.debug_control and not (args.debug or args.tui):
        raise UserError("--debug-control needs --debug: who may not watch cannot stop anything")
    if args.debug_redact and not (args.debug or args.tui or args.record):
        raise UserError("--debug-redact is for what --debug shows or --record writes: add one")
    if args.api_key is not None and not bearer(args.api_key):
        raise UserError("--api-key is empty; give a key, or leave it out to let everybody in")
    for name, low, high in (
        ("port", 0, 65535),
        ("max_queued_requests", 0, 1_000_000),
        ("max_request_mb", 1, 1024),
        ("drain", 0, 3600),
    ):
        value = getattr(args, name)
        if not low <= value <= high:
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag} is {value}; it must be from {low} to {high}")
    for origin in args.cors:
        if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#\s]+", origin):
            raise UserError(
                f"--cors {origin!r} is no origin; give scheme://host or scheme://host:port without "
                "a path, or *"
            )
