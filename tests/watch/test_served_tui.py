"""`serve --tui` on a terminal of its own: the real model, served and shown."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from minisgl_tui.engine.trace_file import Trace
from tui.test_terminal import Terminal

SCRIPT = """
import sys
from minisgl_tui.tui.cli import main
record = ["--record", sys.argv[1] + ".mtrace", "--debug-redact"]
sys.exit(main(["serve", "--tui", "--port", "{port}", "--num-blocks", "64", *record]))
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def terminal(port: int, tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path / "told", SCRIPT.replace("{port}", str(port)))
    yield terminal
    if terminal.process.poll() is None:
        terminal.process.kill()
    terminal.process.wait()


def ask(port: int) -> str:
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "temperature": 0}
    answer = httpx2.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=60)
    return answer.json()["choices"][0]["message"]["content"]


def test_it_serves_and_shows_until_its_user_leaves(
    terminal: Terminal, port: int, tmp_path: Path
) -> None:
    terminal.read_until(b"the server has no requests", 120)
    assert ask(port)
    terminal.read_until(b"hit")
    os.write(terminal.master, b"q")
    terminal.read_until(b"ending the server")
    assert terminal.process.wait(30) == 0
    assert not listens(port)
    path = tmp_path / "told.mtrace"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    trace = Trace.open(path)
    assert trace.cut == "" and trace.header.redacted and not trace.vocabulary()
    assert "Hello" not in path.read_text()


def test_the_server_ends_when_the_screens_are_killed(terminal: Terminal, port: int) -> None:
    terminal.read_until(b"the server has no requests", 120)
    assert listens(port)
    os.kill(terminal.process.pid, signal.SIGKILL)
    end = time.monotonic() + 30
    while listens(port):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_why_the_server_did_not_start_is_the_last_line(terminal: Terminal, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        terminal.read_until(f"cannot listen on --host 127.0.0.1 --port {port}".encode(), 120)
        assert terminal.process.wait(30) == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--theme", "ansi"], "--theme and --ascii are for the screens of --tui"),
        (["--debug-redact"], "--debug-redact is for what --debug shows or --record writes"),
        (["--debug-control"], "--debug-control needs --debug"),
        (["--tui"], "serve --tui draws on a terminal, and stdin is none"),
    ],
)
def test_flags_that_need_others_are_refused(words: list[str], says: str) -> None:
    command = [sys.executable, "-m", "minisgl_tui.tui.cli", "serve", *words]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 2 and done.stdout == ""
    assert says in done.stderr and done.stderr.count("\n") == 1
