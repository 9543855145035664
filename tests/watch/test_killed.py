"""Real processes, killed: a viewer that holds a pause, and the server itself. Takes the time that
a lease takes, so it is not run by default."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from minisgl_tui.engine.debugger import Mode
from minisgl_tui.engine.feed import LEASE_SECONDS
from minisgl_tui.engine.tokenizer import Tokenizer
from minisgl_tui.tui.sources.http import HttpSource
from tui.pilot import NARROW, running
from tui.test_terminal import Terminal

from .served import served
from .test_served_tui import free_port

pytestmark = pytest.mark.long

ATTACH = """
import sys
from minisgl_tui.tui.cli import main
sys.exit(main(["attach", "{url}", "--control"]))
"""


def test_a_killed_viewer_leaves_no_server_paused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with served(tokenizer, step=0.02) as server:
        asking = server.ask_on(200)
        viewer = Terminal(tmp_path / "told", ATTACH.replace("{url}", server.url))
        try:
            viewer.read_until(b"playing")
            os.write(viewer.master, b" ")
            viewer.read_until(b"you hold the server")
            paused = server.serving.thread.engine.step_count
            viewer.process.kill()
            time.sleep(LEASE_SECONDS / 2)
            assert server.serving.thread.engine.step_count == paused
            asking.join(LEASE_SECONDS)
            assert not asking.is_alive()
        finally:
            viewer.process.kill()
            viewer.process.wait()
            os.close(viewer.master)


async def test_a_killed_server_is_found_again() -> None:
    port = free_port()
    words = ["serve", "--port", str(port), "--debug", "--num-blocks", "64"]
    command = [sys.executable, "-m", "minisgl_tui.tui.cli", *words]

    def start() -> "subprocess.Popen[str]":
        server = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert server.stdout
        assert "serves" in server.stdout.readline()
        return server

    server = start()
    try:
        async with running(NARROW, HttpSource(f"http://127.0.0.1:{port}")) as on:
            await on.until(lambda: on.store.link is not None and on.store.mode is Mode.PLAYING)
            first = on.store
            server.send_signal(signal.SIGKILL)
            server.wait()
            await on.until(lambda: first.link is not None and bool(first.link.lost))
            server = start()
            await on.until(lambda: on.main.store is not first, 60)
            assert first.over == "the server was restarted"
    finally:
        server.kill()
        server.wait()
