"""The terminal dies, or its process is asked to end: the engine ends cleanly and nothing hangs."""

import errno
import io
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path

import pytest
from minisgl_tui.tui.hangup import forgiving
from textual.drivers.headless_driver import HeadlessDriver

TESTS = Path(__file__).parents[1]
SCRIPT = """
import sys
from minisgl_tui.tui.app import DebuggerApp
from tui.toy import ROOMY, make_source

class Source(type(make_source())):
    def _work(self):
        super()._work()
        open(sys.argv[1], "a").write("engine ended\\n")

made = make_source(ROOMY, tokens=20000)
app = DebuggerApp(Source(made._open, made._params))
code = app.run_to_exit_code()
open(sys.argv[1], "a").write("program ended\\n")
sys.exit(code)
"""


class Terminal:
    """A program on a pseudo-terminal of its own: ``script`` with ``told`` as its argument."""

    def __init__(self, told: Path, script: str = SCRIPT, **environ: str) -> None:
        self.told = told
        self.master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, str(told)],
            stdin=slave, stdout=slave, stderr=slave, cwd=TESTS,
            start_new_session=True,
            preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),  # its controlling terminal
            env={**os.environ, "TERM": "xterm-256color", **environ},
        )  # fmt: skip
        os.close(slave)

    def read_until(self, words: bytes, seconds: float = 30.0) -> None:
        seen, end = b"", time.monotonic() + seconds
        while words not in seen:
            ready, _, _ = select.select([self.master], [], [], max(0, end - time.monotonic()))
            assert ready, seen[-2000:]
            seen = (seen + os.read(self.master, 65536))[-100_000:]


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path / "told")
    yield terminal
    if terminal.process.poll() is None:
        terminal.process.kill()
    terminal.process.wait()


@pytest.mark.parametrize("playing", [False, True], ids=["paused", "playing"])
def test_when_the_terminal_dies_the_engine_ends_cleanly(terminal: Terminal, playing: bool) -> None:
    terminal.read_until(b"toy-135m")
    if playing:
        os.write(terminal.master, b" ")
        terminal.read_until(b"playing")
    os.close(terminal.master)
    terminal.process.wait(20)
    assert terminal.told.read_text() == "engine ended\nprogram ended\n"


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGHUP])
def test_when_it_is_asked_to_end_it_leaves_the_terminal_as_it_was(
    terminal: Terminal, asked: signal.Signals
) -> None:
    terminal.read_until(b"toy-135m")
    os.kill(terminal.process.pid, asked)
    terminal.read_until(b"\x1b[?1049l")  # back from the alternate screen
    terminal.process.wait(20)
    assert terminal.told.read_text() == "engine ended\nprogram ended\n"
    os.close(terminal.master)


class _Dead(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.EIO, "the terminal is gone")

    def flush(self) -> None:
        raise OSError(errno.EIO, "the terminal is gone")


def test_what_is_written_to_a_dead_terminal_is_lost_and_does_not_fail() -> None:
    class Fake(HeadlessDriver):
        def __init__(self) -> None:
            self._file = _Dead()

    driver = forgiving(Fake)()  # pyright: ignore[reportCallIssue]
    file = driver._file  # pyright: ignore[reportAttributeAccessIssue]
    assert file.write("abc") == 3
    file.flush()
    assert not file.closed
