"""Recordings: what was seen live is what is read back, however the file came to its end."""

import gzip
import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from helpers import Bench
from minisgl_tui.engine import trace as trace_module
from minisgl_tui.engine.config import EngineConfig
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.events import Position, Sampled, StepRecord
from minisgl_tui.engine.sampling import TokenLogprobs
from minisgl_tui.engine.state import EngineState
from minisgl_tui.engine.trace import Header, Model, Piece, TraceWriter
from minisgl_tui.engine.trace_file import Trace
from test_oracle import Load, run_load

EPOCH = "5f2b3c1e-0000-4000-8000-000000000000"


def header(config: EngineConfig) -> Header:
    return Header(epoch=EPOCH, config=config, model=Model("toy"), t0=1e9, clock=0.0)


class Spelling:
    """Token 7 is half a character and token 0 special; others are their numbers in words."""

    drops_first_space = False

    def chat_frame(self) -> tuple[str, str]:
        return "", ""

    def piece(self, token: int) -> Piece:
        if token == 7:
            return Piece("\ufffd", b"\xf0\x9f")
        return Piece(f"<{token}>", b"" if token == 0 else f"<{token}>".encode())


def recorded(path: Path, load: Load, **settings: object) -> list[str]:
    """Play ``load`` into a recording; the digest of the state after every record."""
    state, digests = EngineState(load.config), []
    writer = TraceWriter(path, header(load.config), **settings)  # pyright: ignore[reportArgumentType]
    for record in load.records:
        state.apply(record)
        writer.write(record, state)
        digests.append(state.digest())
    writer.close()
    assert not writer.error
    return digests


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots come every few records, so that short runs have many."""
    monkeypatch.setattr(trace_module, "SPARSEST", 2000)


def raw(records: list[StepRecord]) -> list[bytes]:
    return [msgspec.json.encode(record) for record in records]


# --- the same as live ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run.mtrace", "run.mtrace.gz"])
@pytest.mark.parametrize("first", range(0, 30, 10))
def test_a_recording_equals_the_live_run_digest_by_digest(
    tmp_path: Path, often: None, name: str, first: int
) -> None:
    for seed in range(first, first + 10):
        load = run_load(seed)
        path = tmp_path / f"{seed}-{name}"
        digests = recorded(path, load, speller=Spelling())
        trace = Trace.open(path)
        assert not trace.cut and not trace.skipped
        assert trace.header == header(load.config)
        history = trace.history
        assert raw(list(history.records())) == raw(load.records)
        state = EngineState(trace.header.config)
        for number, record in enumerate(history.records()):
            state.apply(record)
            assert state.digest() == digests[number]
        order = list(range(len(digests)))
        random.Random(seed).shuffle(order)
        for number in order:
            assert history.state_after(number + 1).digest() == digests[number]
        trace.close()


def test_every_event_has_its_position_and_its_state(tmp_path: Path, often: None) -> None:
    load = run_load(21)
    recorded(tmp_path / "a.mtrace", load)
    history = Trace.open(tmp_path / "a.mtrace").history
    forward = EngineState(load.config)
    at: Position | None = history.start
    assert history.state_at(history.start) == forward
    for record in load.records:
        for index, event in enumerate(forward.unfold(record)):
            at = history.after(at) if at else None
            assert at == record.position(index) and at is not None
            assert msgspec.json.encode(history.event(at)) == msgspec.json.encode(event)
            if index + 1 < len(record.events):
                assert history.state_at(at).digest() == forward.digest()
        assert at and history.state_at(at).digest() == forward.digest()
    assert at == history.end and history.after(at) is None
    back = [at]
    while earlier := history.before(back[-1]):
        back.append(earlier)
    assert back[-1] == history.start
    assert len(back) == 1 + sum(len(record.events) for record in load.records)


@pytest.mark.parametrize("seed", [21, 5])
def test_a_seek_replays_only_what_lies_after_the_nearest_snapshot(
    tmp_path: Path, often: None, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = run_load(seed)
    recorded(tmp_path / "a.mtrace", load)
    history = Trace.open(tmp_path / "a.mtrace").history
    frames = [frame.records for frame in history._keyframes]
    assert len(frames) > 2
    read: list[int] = []
    real = history.record
    monkeypatch.setattr(history, "record", lambda number: read.append(number) or real(number))
    for number in (*frames[1:], *(frame - 1 for frame in frames[1:])):
        history._lately.clear()
        read.clear()
        history.state_after(number)
        assert read == list(range(max(f for f in frames if f <= number), number))


def test_a_recording_that_begins_under_way_begins_with_a_snapshot(tmp_path: Path) -> None:
    load = run_load(4)
    half = len(load.records) // 2
    state = EngineState(load.config)
    for record in load.records[:half]:
        state.apply(record)
    writer = TraceWriter(tmp_path / "a.mtrace", header(load.config))
    writer.write_snapshot(state)
    begun = state.digest()
    for record in load.records[half:]:
        state.apply(record)
        writer.write(record, state)
    writer.close()
    history = Trace.open(tmp_path / "a.mtrace").history
    assert history.state_at(history.start).digest() == begun
    assert history.state_at(history.end).digest() == state.digest()


# --- cut and damaged files -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run.mtrace", "run.mtrace.gz"])
def test_a_file_cut_at_any_byte_is_a_recording_up_to_the_cut(
    tmp_path: Path, often: None, name: str
) -> None:
    load = run_load(2)
    load.records = load.records[:7]
    path = tmp_path / name
    digests = recorded(path, load, speller=Spelling())
    whole, wanted = path.read_bytes(), raw(load.records)
    assert len(whole) < 60_000
    seen = set()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            trace = Trace.open(path)
        except UserError as error:
            assert "\n" not in str(error)
            assert not seen, "nothing is lost once there was a record"
            continue
        found = raw(list(trace.history.records()))
        assert found == wanted[: len(found)]
        assert trace.cut
        if len(found) not in seen:
            seen.add(len(found))
            assert trace.history.state_at(trace.history.end).digest() == (
                digests[len(found) - 1] if found else EngineState(load.config).digest()
            )
        trace.close()
    assert max(seen) == len(wanted)
    if not name.endswith(".gz"):
        assert seen == set(range(len(wanted) + 1))


def test_a_damaged_line_ends_the_recording_there(tmp_path: Path) -> None:
    load = run_load(2)
    path = tmp_path / "a.mtrace"
    recorded(path, load)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:4], b"\x00\xff" + lines[4][2:], *lines[5:]]))
    trace = Trace.open(path)
    assert (len(trace.history), trace.cut) == (3, "the file is damaged at line 5")
    path.write_bytes(b"".join([*lines[:4], *lines[5:]]))
    trace = Trace.open(path)
    assert (len(trace.history), trace.cut) == (3, "records are missing before line 5")


def test_a_line_that_breaks_only_on_reading_says_where(tmp_path: Path) -> None:
    load = run_load(2)
    path = tmp_path / "a.mtrace"
    recorded(path, load)
    text = path.read_text()
    path.write_text(text.replace('"k":"submitted","req":0', '"k":"submitted","req":"x"', 1))
    history = Trace.open(path).history
    with pytest.raises(UserError, match="the recording is damaged at 0:0"):
        history.state_at(history.end)
    path.write_text(text.replace('"k":"submitted","req":0', '"k":"submitted","req":5', 1))
    history = Trace.open(path).history
    with pytest.raises(UserError, match=r"the recording contradicts itself at \d+:\d+ \(KeyError"):
        history.state_at(history.end)


def test_a_recording_from_before_requests_had_names_opens(tmp_path: Path) -> None:
    load = run_load(2)
    path = tmp_path / "a.mtrace"
    digests = recorded(path, load)
    text = path.read_text()
    assert ',"name":""' in text
    path.write_text(text.replace(',"name":""', ""))
    history = Trace.open(path).history
    assert history.state_at(history.end).digest() == digests[-1]


def test_what_a_newer_program_adds_is_passed_over_and_counted(tmp_path: Path) -> None:
    load = run_load(2)
    path = tmp_path / "a.mtrace"
    digests = recorded(path, load)
    lines = path.read_text().splitlines(keepends=True)
    lines[0] = lines[0].replace('"v":1', '"v":1,"mood":"good"')
    lines[2] = lines[2].replace('"events":[', '"events":[{"k":"pondered","req":1},')
    lines[2] = lines[2].replace('"n":', '"mind":[1],"n":')
    lines.insert(3, '{"k":"weather","sky":"blue"}\n')
    path.write_text("".join(lines))
    trace = Trace.open(path)
    assert trace.skipped == {"weather": 1}
    assert trace.history.state_at(trace.history.end).digest() == digests[-1]
    assert trace.history.unknown == {"pondered": 1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"hello\n", "is no recording; they are made with --record FILE"),
        (b'{"a": 1}\n', "is no recording"),
        (b"\xff\xfe\x00", "is no recording"),
        (b"[1, 2]\n", "is no recording"),
        (gzip.compress(b"hello", mtime=0), "is no recording"),
        (b"\x1f\x8b\x08\x00broken", "is empty"),
        (
            b'{"k":"header","kind":"minisgl-trace","v":2}\n',
            "of version 2, and this program reads 1",
        ),
        (b'{"k":"header","kind":"minisgl-trace","v":1}\n', "the first line .* is damaged"),
        (b'{"k":"header","kind":"mini', "is cut off before the first step"),
    ],
)
def test_what_is_no_recording_is_refused_in_one_line(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "a.mtrace"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said) as refused:
        Trace.open(path)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*: No such file"):
        Trace.open(tmp_path / "none")
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory"):
        Trace.open(tmp_path)


# --- writing -------------------------------------------------------------------------------------


def test_the_file_is_its_owners_alone_and_never_replaced_unasked(tmp_path: Path) -> None:
    load = run_load(2)
    path = tmp_path / "a.mtrace"
    recorded(path, load)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"--record .* exists already; .* --overwrite"):
        TraceWriter(path, header(load.config))
    assert path.read_bytes() == before
    path.chmod(0o644)
    recorded(path, load, overwrite=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(UserError, match="is a directory"):
        TraceWriter(tmp_path, header(load.config))
    with pytest.raises(UserError, match="there is no directory"):
        TraceWriter(tmp_path / "no" / "a.mtrace", header(load.config))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_ends_the_recording_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trace_module.create

    class Filling:
        def __init__(self, file: object) -> None:
            self.file, self.full = file, open("/dev/full", "wb", buffering=0)  # noqa: SIM115
            self.lines = 0

        def write(self, data: bytes) -> None:
            self.lines += 1
            (self.full if self.lines > 5 else self.file).write(data)  # pyright: ignore

        def flush(self) -> None:
            self.file.flush()  # pyright: ignore

        def close(self) -> None:
            self.file.close()  # pyright: ignore
            self.full.close()

    monkeypatch.setattr(trace_module, "create", lambda *args: Filling(real(*args)))
    load, told = run_load(2), []
    state = EngineState(load.config)
    path = tmp_path / "a.mtrace"
    writer = TraceWriter(path, header(load.config), on_end=told.append)
    for record in load.records:
        state.apply(record)
        writer.write(record, state)
    writer.close()
    assert told == [writer.error]
    assert "No space left on device" in writer.error and "\n" not in writer.error
    trace = Trace.open(path)
    assert len(trace.history) == 4 and trace.cut == "the recording stops without an end"


def test_tokens_are_spelled_before_they_are_used(tmp_path: Path) -> None:
    load = run_load(3)
    path = tmp_path / "a.mtrace"
    recorded(path, load, speller=Spelling())
    used = set()
    known = set()
    for line in path.read_text().splitlines():
        fields = msgspec.json.decode(line)
        if fields["k"] == "vocab":
            known |= set(fields["ids"])
        for event in fields.get("events", []):
            used |= {
                *event.get("prompt", []),
                *(event["tokens"] if event["k"] == "sampled" else []),
            }
        assert used <= known
    vocabulary = Trace.open(path).vocabulary()
    assert vocabulary == {id: Spelling().piece(id) for id in used}
    assert vocabulary[0] == Piece("<0>", b"")


def test_the_likeliest_tokens_are_spelled_too(tmp_path: Path) -> None:
    bench = Bench()
    path = tmp_path / "a.mtrace"
    writer = TraceWriter(path, header(bench.config), speller=Spelling())
    sampled = Sampled([0], [1000], [TokenLogprobs(-0.5, [(1000, -0.5), (77, -1.5)])])
    bench.engine.log.listen(lambda record: writer.write(record, bench.state))
    bench.submit([1, 2, 3])
    record = StepRecord(seq=1, step=1, events=[sampled])
    bench.state.apply(record)
    writer.write(record, bench.state)
    writer.close()
    assert {1, 2, 3, 77, 1000} == Trace.open(path).vocabulary().keys()


KILLED = """
import sys, time
from pathlib import Path
from minisgl_tui.engine.state import EngineState
from minisgl_tui.engine.trace import TraceWriter
from test_oracle import Load
from test_trace import header

load = Load(2)
load.config = load.config
writer = TraceWriter(Path(sys.argv[1]), header(load.config))
load.engine.log.listen(lambda record: writer.write(record, load.state))
print("started", flush=True)
while True:
    if len(load.engine.requests) < 4:
        load.submit_one()
    load.engine.step()
    print(load.records[-1].seq, load.state.digest(), flush=True)
    time.sleep(0.03)
"""


@pytest.mark.parametrize("name", ["run.mtrace", "run.mtrace.gz"])
def test_a_killed_process_leaves_all_but_the_last_second(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    code = f"import sys; sys.path[:0] = {sys.path!r}\n{KILLED}"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stdout.readline() == "started\n"
        said: list[tuple[int, str, float]] = []
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            seq, digest = process.stdout.readline().split()
            said.append((int(seq), digest, time.monotonic()))
        os.kill(process.pid, signal.SIGKILL)
        killed = time.monotonic()
        process.stdout.read()
    trace = Trace.open(path)
    assert trace.cut
    digests = {seq: digest for seq, digest, _ in said}
    last = len(trace.history) - 1
    assert last >= max(seq for seq, _, at in said if at < killed - 2)
    for seq in digests:
        if seq <= last:
            assert trace.history.state_after(seq + 1).digest() == digests[seq]
