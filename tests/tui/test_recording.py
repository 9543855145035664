"""`--record`: what the screens show is in the file, and nothing that goes wrong with it hurts."""

import os
import signal
import stat
import time
from pathlib import Path

import pytest
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.trace import Piece, RecordTo
from minisgl_tui.engine.trace_file import Trace
from minisgl_tui.tui.cli import main
from minisgl_tui.tui.sources.local import LocalSource, Session
from minisgl_tui.tui.unattended import Unattended

from .pilot import NARROW, running
from .toy import QUESTIONS, ROOMY, SYSTEM, WordCodec, make_source


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


@pytest.mark.parametrize(
    "words", [["run", "--record"], ["serve", "--record"], ["record", "--output"]], ids=" ".join
)
def test_a_file_that_is_there_is_refused_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    path = tmp_path / "run.mtrace"
    path.write_text("mine")
    for file, said in (
        (path, "exists already; give another name, or --overwrite"),
        (tmp_path, "is a directory; give the name of a file"),
        (tmp_path / "no" / "x.mtrace", "there is no directory"),
    ):
        assert main([*words, str(file), "--model", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    assert path.read_text() == "mine"
    assert stat.S_IMODE(path.stat().st_mode) != 0o600


# --- without a terminal --------------------------------------------------------------------------


def test_a_run_that_nobody_watches_is_recorded_to_its_end_and_summed_up(tmp_path: Path) -> None:
    path, stages = tmp_path / "run.mtrace", set[str]()
    run = Unattended(recording_source(path), lambda stage, done: stages.add(stage))
    run.run()
    history = Trace.open(path).history
    state = history.state_at(history.end)
    assert not Trace.open(path).cut
    assert len(state.finished) == len(QUESTIONS) and not state.running and not state.waiting
    assert stages == {"loading the toy", "running the workload"}
    ended, cached, preempted, *_ = run.figures()
    assert ended.startswith(f"4 requests ended (4 by length) after {state.step} steps and ")
    hit = sum(r.cached_tokens for r in state.requests.values())
    assert hit and cached.startswith(f"cached: {hit / state.stats.prompt_tokens:.0%} of ")
    assert preempted == "preemptions: 0"


def test_a_run_that_nobody_watches_ends_with_the_reason_if_it_cannot_go_on(tmp_path: Path) -> None:
    def open_session(progress: object) -> Session:
        raise UserError("no such model")

    with pytest.raises(UserError, match="no such model"):
        Unattended(LocalSource(open_session), lambda stage, done: None).run()


def test_a_disk_that_is_full_ends_a_run_that_is_made_to_be_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("minisgl_tui.engine.trace.TraceWriter._lines_of", full)
    with pytest.raises(UserError, match="No space left on device"):
        Unattended(recording_source(tmp_path / "run.mtrace"), lambda stage, done: None).run()


def test_an_interrupted_run_that_nobody_watches_leaves_a_whole_recording(tmp_path: Path) -> None:
    path = tmp_path / "run.mtrace"
    source = recording_source(path, tokens=200)

    def interrupt(stage: str, done: float | None) -> None:
        if stage == "running the workload":
            os.kill(os.getpid(), signal.SIGINT)  # which the main thread gets
            while not source._closed:  # until the main thread has had its turn
                time.sleep(0.001)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        Unattended(source, interrupt).run()
    assert signal.getsignal(signal.SIGINT) is before
    trace = Trace.open(path)
    assert not trace.cut and not trace.history.state_at(trace.history.end).finished
