"""`--record`: what the screens show is in the file, and nothing that goes wrong with it hurts."""

import stat
from pathlib import Path

import pytest
from minisgl_tui.engine.trace import Piece, RecordTo
from minisgl_tui.engine.trace_file import Trace
from minisgl_tui.tui.cli import main
from minisgl_tui.tui.sources.local import LocalSource, Session

from .pilot import NARROW, running
from .toy import ROOMY, SYSTEM, WordCodec, make_source


class WordSpeller:
    """The toy's words as pieces."""

    drops_first_space = False

    def __init__(self, codec: WordCodec) -> None:
        self.codec = codec

    def chat_frame(self) -> tuple[str, str]:
        return SYSTEM, ""

    def piece(self, token: int) -> Piece:
        return Piece(self.codec.words[token], self.codec.words[token].encode())


def recording_source(path: Path, tokens: int = 6) -> LocalSource:
    """The toy, recorded."""

    def prepare(session: Session) -> None:
        assert isinstance(session.codec, WordCodec)
        session.speller = WordSpeller(session.codec)
        session.path = "/models/toy"

    source = make_source(ROOMY, prepare=prepare, tokens=tokens)
    source._record_to = RecordTo(path)
    return source


async def test_a_recorded_session_is_in_the_file_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "run.mtrace"
    async with running(NARROW, recording_source(path)) as on:
        await on.until(lambda: len(on.store.state.waiting) == 4)
        await on.press(*["greater_than_sign"] * 3, "space")
        await on.until(lambda: on.store.done)
        await on.press("q")
    on.app.source.wait(5)
    trace = Trace.open(path)
    assert not trace.cut
    assert trace.history.state_at(trace.history.end).digest() == on.store.now.digest()
    assert (trace.header.model.name, trace.header.model.path) == ("toy-135m", "/models/toy")
    assert trace.header.chat == (SYSTEM, "")
    vocabulary = trace.vocabulary()
    (first,) = (on.store.state.requests[0].tokens,)
    spelled = b"".join(vocabulary[token].raw for token in first).decode()
    assert spelled == on.store.texts.codec.decode(first)


async def test_a_recording_that_cannot_be_written_is_told_and_the_engine_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.mtrace"
    async with running(NARROW, recording_source(path)) as on:
        await on.until(lambda: len(on.store.state.waiting) == 4)

        def full(*args: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("minisgl_tui.engine.trace.TraceWriter._lines_of", full)
        assert "● REC   ⏸ paused" in on.lines()[0]
        await on.step(3)
        await on.until(lambda: any("No space left on device" in t for t in on.toasts()))
        await on.step(2)
        assert "REC" not in on.lines()[0]
        await on.press("q")
    assert on.store.state.step == 5


@pytest.mark.parametrize("command", ["run", "serve"])
def test_a_file_that_is_there_is_refused_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    path = tmp_path / "run.mtrace"
    path.write_text("mine")
    for file, said in (
        (path, "exists already; give another name, or --overwrite"),
        (tmp_path, "is a directory; give the name of a file"),
        (tmp_path / "no" / "x.mtrace", "there is no directory"),
    ):
        assert main([command, "--model", str(tmp_path), "--record", str(file)]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    assert path.read_text() == "mine"
    assert stat.S_IMODE(path.stat().st_mode) != 0o600
