"""``minisgl-tui attach``: the screens over a server that runs elsewhere, and what all commands that
ask such a server have in common."""

import argparse
import getpass
import os
import socket
from typing import Any

from .engine_flags import API_KEY_VARIABLE, add_record_flags, record_to
from .start import add_look_flags, check_keys, show
from .terminal import check_terminal

URL_HELP = "of a server that was started with serve --debug, as in http://127.0.0.1:30000"


def add_parser(commands: Any) -> None:
    attach = commands.add_parser(
        "attach",
        help="watch a running server in the terminal",
        description="Every step of a server's real traffic as it happens, on the screens of `run`. "
        "The server has to be started with --debug.",
    )
    attach.add_argument("url", metavar="URL", help=URL_HELP)
    add_key_flag(attach)
    attach.add_argument(
        "--control",
        action="store_true",
        help="stop and step the server too, if it runs with --debug-control; its clients then wait",
    )
    add_record_flags(attach)
    add_look_flags(attach)
    attach.set_defaults(command=_attach)


def add_key_flag(parser: Any) -> None:
    parser.add_argument(
        "--api-key",
        default=os.environ.get(API_KEY_VARIABLE),
        metavar="KEY",
        help=f"the server's; better kept in {API_KEY_VARIABLE}",
    )


def _attach(args: argparse.Namespace) -> int:
    from .sources.http import HttpSource

    source = HttpSource(
        args.url, args.api_key, record_to(args), viewer_name() if args.control else ""
    )
    check_terminal("attach")
    check_keys()
    return show(source, args, keeps=True)


def viewer_name() -> str:
    """What this viewer is called where others see it: ``anna@host:4711``."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user without a name
        user = "somebody"
    return f"{user}@{socket.gethostname()}:{os.getpid()}"[:80]
