"""`record URL`, `dump URL` and `attach --record`: a server is written down, or printed."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from api.waiting import until
from minisgl_tui.engine.debugger import Mode
from minisgl_tui.engine.tokenizer import Tokenizer
from minisgl_tui.engine.trace import RecordTo
from minisgl_tui.engine.trace_file import Trace
from minisgl_tui.tui.cli import main
from minisgl_tui.tui.sources.http import HttpSource
from tui.pilot import NARROW, running

from .served import Watched, serve, served


def last_digest(path: Path) -> str:
    trace = Trace.open(path)
    assert trace.cut == ""
    return trace.history.state_at(trace.history.end).digest()


@contextmanager
def busy(server: Watched) -> Iterator[None]:
    """Requests one after the other, the last of them to its end."""
    enough = threading.Event()

    def ask() -> None:
        while not enough.is_set():
            server.ask(6)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def test_a_server_is_recorded_for_some_seconds(
    tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "live.mtrace.gz"
    with served(tokenizer) as server:
        server.ask(10)
        with busy(server):
            assert main(["record", server.url, "-o", str(path), "--duration", "1.5"]) == 0
    out, err = capsys.readouterr()
    assert str(path) in out and "records to step" in out
    assert "steps 1–" in err and "were not seen; recording to live.mtrace.gz" in err
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    trace = Trace.open(path)
    assert trace.cut == "" and len(trace.history) > 10
    state = trace.history.state_at(trace.history.end)
    vocabulary = trace.vocabulary()
    for request in state.requests.values():
        assert all(token in vocabulary for token in request.tokens)


async def test_ctrl_c_ends_a_recording_with_its_last_line(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "live.mtrace"
    with served(tokenizer) as server:
        command = [sys.executable, "-m", "minisgl_tui.tui.cli", "record", server.url]
        with subprocess.Popen(
            [*command, "-o", str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(os.environ),
            text=True,
        ) as process:
            assert process.stderr and process.stdout
            assert process.stderr.readline() == "recording to live.mtrace\n"
            server.ask(10)
            await until(lambda: Trace.open(path).history.end.step == 10, 30)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        assert process.returncode == 0 and err == ""
        assert "11 records to step 10" in out
        assert last_digest(path) == server.digest()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--demo", "three-chats"], "--demo is for a run of one's own"),
        (["--num-blocks", "8"], "--num-blocks is for a run of one's own"),
        (["--duration", "0"], "--duration is 0; give more than 0 seconds"),
    ],
)
def test_what_does_not_go_with_a_server_is_refused(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["record", "http://127.0.0.1:1", "-o", str(tmp_path / "x.mtrace"), *words]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_duration_without_a_server_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "-o", "x.mtrace", "--duration", "3"]) == 2
    assert "--duration is for recording a server" in capsys.readouterr().err


def test_a_server_that_cannot_be_recorded_leaves_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["record", "http://127.0.0.1:1", "-o", str(tmp_path / "x.mtrace")]) == 2
    assert "nothing listens at http://127.0.0.1:1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


async def test_attach_records_each_run_in_a_file_of_its_own(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    path, second = tmp_path / "live.mtrace", tmp_path / "live-2.mtrace"
    before = serve(tokenizer)
    try:
        source = HttpSource(before.url, record_to=RecordTo(path))
        async with running(NARROW, source) as on:
            await on.until(lambda: on.store.mode is Mode.PLAYING)
            assert "● REC" in on.lines()[0]
            before.ask(8)
            await on.until(lambda: on.store.now.step == 8)
            first, seen = on.store, before.digest()
            before.stop()
            with served(tokenizer, before.port) as after:
                await on.until(lambda: on.main.store is not first, 30)
                after.ask(5)
                await on.until(lambda: on.store.now.step == 5)
                await on.press("q")
                digest = after.digest()
        source.wait(5)
        assert (last_digest(path), last_digest(second)) == (seen, digest)
        assert stat.S_IMODE(second.stat().st_mode) == 0o600
    finally:
        before.stop()


def test_dump_prints_what_a_server_shows_now(
    tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(tokenizer) as server:
        server.ask(8)
        assert main(["dump", server.url]) == 0
        text = capsys.readouterr().out
        assert f"LIVE {server.url[7:]} · simulated" in text and "step 8" in text
        assert "── Requests ──" in text and "8/8       BCDEFGHI" in text
        assert main(["dump", server.url, "--json"]) == 0
        dump = json.loads(capsys.readouterr().out)
        assert dump["digest"] == server.digest() and dump["state"]["step"] == 8
        assert main(["dump", server.url, "--at", "3"]) == 2
        assert "of a server there is the present" in capsys.readouterr().err
