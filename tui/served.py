"""``serve --tui``: a server in a process of its own, and the screens over it in this terminal.

The screens are those of `attach`, over HTTP like any other viewer's, so that drawing takes no time
from the engine's interpreter. Should they crash, the server goes on. When this process is gone, in
whatever way, the server's input ends, and then it does.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from ..engine import model_store
from ..engine.errors import UserError
from .attach_command import viewer_name
from .progress import print_progress
from .start import check_keys, show
from .terminal import check_terminal

CRASHED = 1
PROGRAM = (sys.executable, "-m", f"{__package__}.cli")
_LAST_LINES = 20
_URL = re.compile(r" at (http://\S+)/v1$")
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}


def serve_and_show(args: argparse.Namespace) -> int:
    """Serve as ``args`` say, show it until the user leaves; gives the exit code."""
    check_terminal("serve --tui")
    check_keys()
    progress = print_progress()
    model_store.resolve(args.model, progress)  # a download is better watched here
    progress("starting the server", None)
    with ServerProcess(args.words) as server:
        progress("", None)
        url = server.listening()
        from .sources.http import HttpSource

        source = HttpSource(url, args.api_key, holder=viewer_name())
        code = show(source, args, keeps=True)
        server.check()
        if code == CRASHED:
            print(
                f"the server goes on at {url}; `minisgl-tui attach {url} --control` "
                "watches it again, ctrl-c ends it",
                file=sys.stderr,
            )
            with suppress(KeyboardInterrupt):
                server.wait()
        print("ending the server; ctrl-c does not wait for its requests", file=sys.stderr)
        server.end()
        return code


class ServerProcess:
    """A process that runs ``words``, which begin with ``serve``. Use as a context manager: at its
    end none is left."""

    def __init__(self, words: Sequence[str]) -> None:
        log, name = tempfile.mkstemp(".log", "minisgl-tui-serve-")
        self._log = Path(name)
        self._process = subprocess.Popen(
            [*PROGRAM, *words, "--served"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,  # the signals of this terminal are for the screens
        )
        os.close(log)
        self._url: str | None = None

    def __enter__(self) -> "ServerProcess":
        assert self._process.stdout
        self._url = _listening(self._process.stdout)
        return self

    def __exit__(self, *exc: object) -> None:
        self.end()
        self._log.unlink(missing_ok=True)

    def wait(self) -> None:
        self._process.wait()

    def listening(self) -> str:
        """Its address, as it can be asked from here. Raises UserError if it does not listen."""
        if self._url is None:
            self._process.wait()
            self.check()
        assert self._url
        return self._url

    def check(self) -> None:
        """Raises UserError, with what the server said last, if it has ended."""
        code = self._process.poll()
        if code is None:
            return
        lines = self._log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
        if code < 0:
            lines.append(f"the server was ended by signal {-code}")
        raise UserError("\n".join(lines).removeprefix("minisgl-tui: "))

    def end(self) -> None:
        """Have it end as a signal would, and wait; ctrl-c meanwhile does not wait."""
        if self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGINT)
        while self._process.poll() is None:
            try:
                self._process.wait()
            except KeyboardInterrupt:
                self._process.send_signal(signal.SIGINT)


def _listening(output: IO[str]) -> str | None:
    """The address in the first lines that the server prints, as it can be asked from here."""
    for line in output:
        if found := _URL.search(line.rstrip()):
            url = found[1]
            host, _, port = url.removeprefix("http://").rpartition(":")
            return f"http://{_EVERYWHERE.get(host, host)}:{port}"
    return None


def end_with_input() -> None:
    """In the server's process: end when the screens' process is gone, which held this input."""

    def wait() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
