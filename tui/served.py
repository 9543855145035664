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
from .attach_command import viewer_name
from .progress import print_progress
from .start import check_keys, show
from .terminal import check_terminal

CRASHED = 1
_PROGRAM = f"{__package__}.cli"
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
    with _Server(args.words) as server:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        if server.url is None:
            return server.failed()
        from .sources.http import HttpSource

        source = HttpSource(server.url, args.api_key, holder=viewer_name())
        code = show(source, args, keeps=True)
        if not server.runs:
            return server.failed()
        if code == CRASHED:
            print(
                f"the server goes on at {server.url}; `minisgl-tui attach {server.url} --control` "
                "watches it again, ctrl-c ends it",
                file=sys.stderr,
            )
            with suppress(KeyboardInterrupt):
                server.wait()
        server.end()
        return code


class _Server:
    """The process. Use as a context manager: at its end none is left. ``url`` is None if it did
    not come to listen."""

    def __init__(self, words: Sequence[str]) -> None:
        log, name = tempfile.mkstemp(".log", "minisgl-tui-serve-")
        self._log = Path(name)
        self._process = subprocess.Popen(
            [sys.executable, "-m", _PROGRAM, *words, "--served"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,  # the signals of this terminal are for the screens
        )
        os.close(log)
        self.url: str | None = None

    def __enter__(self) -> "_Server":
        assert self._process.stdout
        self.url = _listening(self._process.stdout)
        return self

    def __exit__(self, *exc: object) -> None:
        self.end()
        self._log.unlink(missing_ok=True)

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> None:
        self._process.wait()

    def failed(self) -> int:
        """Say what it said last, now that it is gone; gives its exit code."""
        code = self._process.wait()
        lines = self._log.read_text(errors="replace").splitlines()
        print("\n".join(lines[-_LAST_LINES:]), file=sys.stderr)
        if code < 0:
            print(f"the server was ended by signal {-code}", file=sys.stderr)
        return code if code > 0 else CRASHED

    def end(self) -> None:
        """Have it end as a signal would, and wait; ctrl-c meanwhile does not wait."""
        if not self.runs:
            return
        print("ending the server; ctrl-c does not wait for its requests", file=sys.stderr)
        self._process.send_signal(signal.SIGINT)
        while self.runs:
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
