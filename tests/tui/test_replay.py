"""`replay` and `dump`: a recording shows what the live screens showed, and says where it ends."""

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.playback import Playback
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.snapshot import Snapshot
from minisgl_tui.engine.state import EngineState
from minisgl_tui.engine.trace import Header, Model, Piece, TraceWriter, new_header
from minisgl_tui.engine.trace_file import Trace
from minisgl_tui.tui.cli import main
from minisgl_tui.tui.sources import recorded
from minisgl_tui.tui.sources.recorded import RecordedCodec, RecordedSource
from minisgl_tui.tui.store import Store
from minisgl_tui.tui.terminal import check_terminal

from .pilot import MEDIUM, NARROW, WIDE, running
from .test_recording import WordSpeller
from .toy import CONFIG, INFO, QUESTIONS, WordCodec, make_session


def record_toy(path: Path, steps: int = 10**6, spelled: bool = True) -> Store:
    """The toy's four questions in a recording; the store that watched them live."""
    session = make_session(CONFIG)
    assert isinstance(session.codec, WordCodec)
    speller = WordSpeller(session.codec) if spelled else None
    store = Store(CONFIG, INFO, session.codec)
    model = Model("toy-135m", "llama", "float32", "cpu")
    writer = TraceWriter(path, new_header(CONFIG, model, 0.0, speller), speller=speller)
    engine = session.engine
    engine.log.listen(store.apply)
    engine.log.listen(lambda record: writer.write(record, store.now))
    for question in QUESTIONS:
        params = SamplingParams(temperature=0, max_tokens=24)
        engine.submit(session.codec.encode_chat(question), params)
    while engine.has_work() and engine.step_count < steps:
        engine.step()
    writer.close()
    return store


# --- replay --------------------------------------------------------------------------------------


async def test_one_goes_elsewhere_while_it_is_still_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two readings that give way to each other would read nothing any more."""
    live = record_toy(tmp_path / "run.mtrace")
    skip = Playback.skip
    monkeypatch.setattr(Playback, "skip", lambda self: (time.sleep(0.01), skip(self))[1])
    async with running(MEDIUM, RecordedSource(tmp_path / "run.mtrace")) as on:
        await on.until(lambda: len(on.store.state.waiting) == 4)
        await on.press("L")
        for step in (3, 9, 6):
            on.main.go(on.store.past.end_of_step(step))
            await on.pilot.pause(0.03)
        await on.until(lambda: on.store.reading is None and len(on.store.past) == on.store._taken)
        assert on.store.now.digest() == live.now.digest()


@pytest.mark.parametrize("size", [NARROW, MEDIUM, WIDE])
async def test_a_recording_opens_paused_and_is_stepped_to_its_end(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    live = record_toy(tmp_path / "run.mtrace")
    total = live.now.step
    async with running(size, RecordedSource(tmp_path / "run.mtrace")) as on:
        await on.until(lambda: len(on.store.state.waiting) == 4)
        assert "REPLAY run.mtrace · toy-135m" in on.lines()[0]
        assert f"⏸ paused   step 0 of {total}" in on.lines()[0]
        await on.step(3)
        assert f"step 3 of {total}" in on.lines()[0]
        assert on.store.now.digest() == live.past.state_at(live.past.end_of_step(3)).digest()
        await on.press("i")
        assert "this is a recording: it can be played, not changed" in on.toasts()
        await on.press(*["greater_than_sign"] * 6, "space")
        await on.until(lambda: on.store.played_out)
        assert f"■ end of the recording   step {total} of {total}" in on.lines()[0]
        assert "the recording ends here, all requests finished" in on.text()
        assert on.store.now.digest() == live.now.digest()
        assert on.store.texts.answer(on.store.now.requests[0]) == (
            live.texts.answer(live.now.requests[0])
        )
        await on.press("s")
        assert "the recording ends here" in on.toasts()


async def test_a_cut_recording_says_so_first_and_last(tmp_path: Path) -> None:
    record_toy(tmp_path / "run.mtrace", steps=12)
    whole = (tmp_path / "run.mtrace").read_bytes()
    (tmp_path / "run.mtrace").write_bytes(whole[: int(len(whole) * 0.7)])
    async with running(MEDIUM, RecordedSource(tmp_path / "run.mtrace")) as on:
        await on.until(lambda: len(on.store.state.waiting) == 4)
        assert any("the file is cut off in line" in toast for toast in on.toasts())
        await on.press(*["greater_than_sign"] * 6, "space")
        await on.until(lambda: on.store.played_out)
        assert "requests not ended (the file is cut off in line" in on.text()


async def test_a_damaged_recording_shows_what_came_before(tmp_path: Path) -> None:
    path = tmp_path / "run.mtrace"
    record_toy(path)
    lines = path.read_text().splitlines(keepends=True)
    damaged = next(i for i, line in enumerate(lines) if '"step":5,' in line)
    lines[damaged] = lines[damaged].replace('"events":[{', '"events":[7,{')
    path.write_text("".join(lines))
    async with running(MEDIUM, RecordedSource(path)) as on:
        await on.until(lambda: len(on.store.state.waiting) == 4)
        await on.step(4)
        await on.press("s")
        await on.until(lambda: "the recording cannot be played on" in on.text())
        assert "damaged at 5:0" in on.text().replace("\n", " ")
        assert on.store.state.step == 4


async def test_what_is_no_recording_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("hello\n")
    async with running(NARROW, RecordedSource(tmp_path / "x"), ready=False) as on:
        await on.until(lambda: on.app.return_code is not None)
    assert on.app.return_code == 2
    assert on.app.fatal == f"{tmp_path / 'x'} is no recording; they are made with --record FILE"


async def test_a_recording_without_texts_shows_ids_and_says_so(tmp_path: Path) -> None:
    record_toy(tmp_path / "run.mtrace", spelled=False)
    async with running(MEDIUM, RecordedSource(tmp_path / "run.mtrace")) as on:
        await on.until(lambda: len(on.store.state.waiting) == 4)
        assert any("it holds no texts, so token ids are shown" in t for t in on.toasts())
        assert "⟨" in on.store.texts.prompt(on.store.state.requests[0])


async def test_the_past_of_a_recording_can_be_looked_at(tmp_path: Path) -> None:
    live = record_toy(tmp_path / "run.mtrace")
    async with running(MEDIUM, RecordedSource(tmp_path / "run.mtrace")) as on:
        await on.until(lambda: len(on.store.state.waiting) == 4)
        store = on.store
        await on.step(6)
        here = store.position
        assert here == store.past.end_of_step(6) and store.follows
        for step in (2, 9, 5):
            store.look_at(store.past.end_of_step(step))
            assert store.state.digest() == live.past.state_at(store.position).digest()
        store.look_at(here)
        assert store.follows and store.state is store.now
        await on.step(1)
        assert store.state.step == 7


def test_characters_in_pieces_come_out_whole() -> None:
    pieces = {i: Piece("\ufffd", bytes([b])) for i, b in enumerate("😀é".encode())}
    pieces[10] = Piece("<end>", b"")
    header = Header(epoch="x", config=CONFIG, model=Model("m"), t0=0.0, clock=0.0)
    codec = RecordedCodec(header, pieces)
    assert codec.decode([0, 1, 2, 3, 10, 4, 5, 99]) == "😀é⟨99⟩"
    assert codec.token(10) == "<end>"
    following = codec.detokenizer([4, 5, 0, 1])
    assert [following.feed(i) for i in (2, 3, 4, 5)] == ["", "😀", "", "é"]


def test_texts_that_a_recording_lacks_are_spelled_by_its_models_tokenizer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Bytes:
        def encode_within(self, text: str) -> list[int]:
            return list(text.encode())

        def piece(self, token: int) -> Piece:
            return Piece(chr(token), bytes([token]))

    header = Header(epoch="x", config=CONFIG, model=Model("m"), t0=0.0, clock=0.0)
    codec = RecordedCodec(header, {97: Piece("a", b"a")})
    with pytest.raises(UserError, match="its model's tokenizer is not here"):
        codec.spelling().encode("ab")
    assert codec.decode([97, 98]) == "a⟨98⟩"
    monkeypatch.setattr(recorded, "tokenizer_of", lambda header: Bytes())
    assert codec.spelling().encode("ab") == [97, 98]
    assert codec.decode([97, 98]) == "ab"


# --- dump ----------------------------------------------------------------------------------------


def test_a_dump_shows_the_panes_at_a_position(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.mtrace"
    live = record_toy(path)
    assert main(["dump", str(path), "--at", "3"]) == 0
    text = capsys.readouterr().out
    for name in ("Batch", "Why", "Requests", "Tree", "Blocks"):
        assert f"── {name} ── " in text
    assert f"◂ 3:11 of {live.now.step}\n" in text and "budget 20" in text
    decided = live.past.record(live.past.records_until(live.past.end_of_step(3)) - 1)
    assert len(decided.events) > 3
    assert "You are a careful guide" in text  # a node of the tree, in words
    assert main(["dump", str(path), "--at", "3:0"]) == 0
    early = capsys.readouterr().out
    assert "position 3:0 of" in early and early != text


def test_a_dump_for_programs_holds_the_whole_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.mtrace"
    live = record_toy(path)
    at = live.past.end_of_step(4)
    assert main(["dump", str(path), "--at", str(at), "--json"]) == 0
    dump = msgspec.json.decode(capsys.readouterr().out)
    state = EngineState.restore(msgspec.convert(dump["state"], Snapshot, strict=False))
    assert state.digest() == dump["digest"] == live.past.state_at(at).digest()
    assert dump["position"] == str(at)
    assert [e["position"] for e in dump["events"]] == [f"4:{i}" for i in range(at.event + 1)]
    assert any("prompt" in e["sentence"] for e in dump["events"]) or dump["events"]


def test_a_wrong_position_or_file_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.mtrace"
    record_toy(path)
    for words, said in (
        ([str(path), "--at", "soon"], "'soon' is no position; give 120:7"),
        ([str(path), "--at", "99999"], "there is no step 99999; the recording goes to"),
        ([str(tmp_path / "none")], "cannot read"),
        ([str(tmp_path / "none"), "--json"], "cannot read"),
    ):
        assert main(["dump", *words]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1


def test_a_dump_that_nobody_reads_to_its_end_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "run.mtrace"
    record_toy(path)
    dump = [sys.executable, "-m", "minisgl_tui.tui.cli", "dump", str(path)]
    with subprocess.Popen(
        [*dump, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""


def test_replay_wants_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(tmp_path / "run.mtrace")]) == 2
    assert "replay draws on a terminal, and stdin is none" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
def test_no_stream_may_be_redirected(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in ("stdin", "stdout", "stderr"):
        there = stream != name
        monkeypatch.setattr(sys, stream, SimpleNamespace(isatty=lambda there=there: there))
    with pytest.raises(UserError, match=f"run draws on a terminal, and {name} is none"):
        check_terminal("run")


def test_opening_and_closing_leaves_no_file_open(tmp_path: Path) -> None:
    record_toy(tmp_path / "run.mtrace", steps=5)
    trace = Trace.open(tmp_path / "run.mtrace")
    trace.close()
    with pytest.raises(ValueError, match="closed"):
        trace.history.record(0)


# --- export --------------------------------------------------------------------------------------


def test_an_export_is_json_with_all_steps_and_replaces_nothing_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "run.mtrace", tmp_path / "out.json"
    live = record_toy(path)
    export = ["export", str(path), "--perfetto", str(out)]
    assert main(export) == 0
    assert f"trace events of {len(live.past)} records" in capsys.readouterr().out
    names = [event["name"] for event in msgspec.json.decode(out.read_bytes())["traceEvents"]]
    assert [n for n in names if n.startswith("step ")] == [
        f"step {number}" for number in range(1, live.now.step + 1)
    ]
    assert main(export) == 2
    assert "exists already; give another name, or --overwrite" in capsys.readouterr().err
    assert main([*export, "--overwrite"]) == 0
