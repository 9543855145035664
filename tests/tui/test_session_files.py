"""A session that is cut off is kept, told of once, and opened where one looked."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.trace import Model, new_header
from minisgl_tui.engine.trace_file import Trace
from minisgl_tui.tui import session_files
from minisgl_tui.tui.cli import main
from minisgl_tui.tui.session_files import SessionFile
from minisgl_tui.tui.sources.base import Ready

from .test_terminal import Terminal
from .toy import CONFIG, INFO, ByteCodec

RUN = """
import sys
from minisgl_tui.tui.app import DebuggerApp
from minisgl_tui.tui.session_files import SessionFile
from tui.toy import ROOMY, make_source

app = DebuggerApp(make_source(ROOMY, tokens=20000), session_file=SessionFile())
if sys.argv[1] == "faulty":
    app.action_picture = lambda: 1 / 0
sys.exit(app.run_to_exit_code())
"""
REPLAY = "from minisgl_tui.tui.cli import main; main(['replay', '--last'])"

Start = Callable[..., Terminal]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Terminal] = []

    def start(script: str = RUN, told: str = "sound") -> Terminal:
        terminal = Terminal(Path(told), script, XDG_STATE_HOME=str(tmp_path))
        started.append(terminal)
        return terminal

    yield start
    for terminal in started:
        if terminal.process.poll() is None:
            terminal.process.kill()
        terminal.process.wait()


def left(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "minisgl-tui" / "sessions").iterdir())


def press(terminal: Terminal, keys: str) -> None:
    os.write(terminal.master, keys.encode())


def look_back(terminal: Terminal) -> None:
    """Take two steps and go one back."""
    for step in ("1", "2"):
        press(terminal, "s")
        terminal.read_until(f"step {step}:".encode())
    press(terminal, "S")
    terminal.read_until("◂".encode())


@pytest.mark.parametrize("how", ["hang-up", "kill", "terminate"])
def test_what_was_cut_off_opens_where_one_looked(start: Start, tmp_path: Path, how: str) -> None:
    terminal = start()
    terminal.read_until(b"toy-135m")
    look_back(terminal)
    if how == "hang-up":
        os.close(terminal.master)
    else:
        os.kill(terminal.process.pid, signal.SIGKILL if how == "kill" else signal.SIGTERM)
    if how == "terminate":
        terminal.read_until(b"the session is kept: minisgl-tui replay --last")
    terminal.process.wait(20)
    (path,) = left(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    trace = Trace.open(path)
    assert trace.history.end.step == 2 and bool(trace.cut) == (how == "kill")
    assert trace.looked_at == trace.history.end_of_step(1)

    after = start()
    after.read_until(b"a session was cut off at")
    press(after, "q")
    after.process.wait(20)
    assert len(left(tmp_path)) == 1  # who leaves leaves nothing

    again = start(REPLAY)
    again.read_until(b"step 1:")  # of 2, and it begins there
    press(again, "q")
    again.process.wait(20)
    trace.close()


def test_a_fault_of_the_screens_leaves_the_session(start: Start, tmp_path: Path) -> None:
    terminal = start(told="faulty")
    terminal.read_until(b"toy-135m")
    press(terminal, "sP")
    terminal.read_until(b"the session is kept")
    assert terminal.process.wait(20) == 1
    (path,) = left(tmp_path)
    assert not Trace.open(path).cut


# --- how many are kept ---------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "minisgl-tui" / "sessions"


READY = Ready(CONFIG, INFO, ByteCodec(), header=new_header(CONFIG, Model("toy"), 0.0, None))


def cut_off(folder: Path, time: str, size: int = 10) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"session-{time}-1.mtrace"
    path.write_bytes(bytes(size))
    return path


def test_the_last_few_are_kept_and_each_is_told_of_once(folder: Path) -> None:
    for minute in range(8):
        cut_off(folder, f"20260101-10{minute:02}00")
    assert "replay --last opens it" in SessionFile().found
    names = [path.name for path in sorted(folder.iterdir())]
    assert names == [f"kept-20260101-10{minute:02}00-1.mtrace" for minute in range(3, 8)]
    assert SessionFile().found == ""
    assert session_files.last() == folder / names[-1]
    newer = cut_off(folder, "20260102-000000")
    assert session_files.last() == newer


def test_long_ones_are_kept_fewer_of_but_the_last_in_any_case(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_files, "KEEP_BYTES", 100)
    for minute in range(4):
        cut_off(folder, f"20260101-10{minute:02}00", 40)
    SessionFile()
    assert len(list(folder.iterdir())) == 2
    cut_off(folder, "20260102-000000", 1000)
    SessionFile()
    assert [path.stat().st_size for path in folder.iterdir()] == [1000]


def test_a_session_that_goes_on_is_left_alone(folder: Path) -> None:
    going = SessionFile()
    history = going.history(READY)
    assert history is not None
    assert SessionFile().found == ""
    with pytest.raises(UserError, match="no session is kept in"):
        session_files.last()
    history.close()  # its program is gone
    assert "a session was cut off" in SessionFile().found


def test_where_nothing_can_be_written_the_session_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    session = SessionFile()
    assert session.history(READY) is None
    assert "this session is kept nowhere" in session.problem


@pytest.mark.parametrize("words", [["replay"], ["replay", "x.mtrace", "--last"]])
def test_replay_wants_a_file_or_the_last(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minisgl_tui.tui.recording_commands.check_terminal", lambda name: None)
    assert main(words) == 2
    assert (
        "replay needs the FILE of a recording, or --last, and not both" in capsys.readouterr().err
    )
