"""The `.mtrace` file: what its lines say, and writing them while the engine runs.

A recording is JSON lines (through gzip if the name ends in ``.gz``), each with its kind in ``k``:

    {"k": "header", "kind": "minisgl-trace", "v": 1, "epoch": …, "config": …, "model": …}
    {"k": "vocab", "ids": [504, 3575], "texts": ["The", " capital"]}  tokens, as they first come up
    {"k": "step", "n": 5, "seq": 0, "step": 1, "first": 0, "t": …, "events": […]}    a `StepRecord`
    {"k": "ended", "requests": […]}                     requests that ended since the last snapshot
    {"k": "snap", "state": …}       the state after the records so far, without those that had ended
    {"k": "look", "at": [51, 6]}         where the one who watches looks from then on; null: the end
    {"k": "end", "records": 5812}                  the last line of a recording that came to its end

A snapshot that was written while records went on says with ``n`` after how many of them it is.

So a file that is cut off anywhere is a recording up to the cut, and whoever reads it can begin at
any snapshot. Reading is in `trace_file.py`, finding states in `history.py`.
"""

import os
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, BinaryIO, NamedTuple, Protocol
from uuid import uuid4

import msgspec

from . import events as ev
from .config import EngineConfig
from .errors import UserError
from .snapshot import RequestState, Snapshot
from .state import EngineState

KIND = "minisgl-trace"
VERSION = 1  # lines and fields are added under the same number: readers skip what they do not know

FLUSH_SECONDS = 1.0  # the most that a killed process takes with it
QUEUE_BYTES = 256 << 20  # what may wait for the disk
SPARSEST = 128 << 10  # bytes of records between two snapshots, at the least


class Model(msgspec.Struct, frozen=True, omit_defaults=True):
    """What ran. ``path`` is where its tokenizer was."""

    name: str
    architecture: str = ""
    dtype: str = ""
    device: str = ""
    path: str = ""


class ForkedFrom(msgspec.Struct, frozen=True):
    """The run that a fork goes on from: ``epoch`` of its recording, the position ``at`` whose event
    is the last they have in common, or ``start``, and what is different (`fork.Changes`)."""

    epoch: str
    at: str
    changes: dict[str, Any]


class Header(msgspec.Struct, frozen=True, kw_only=True, tag_field="k", tag="header"):
    """The first line. ``t0`` is the time of day in seconds since 1970 when the engine's clock said
    ``clock``. ``chat`` is what the model's chat template puts before and after a question, and
    ``drops_first_space`` how the texts in the vocabulary are joined. In a ``redacted`` run numbers
    stand for tokens (`redact.py`)."""

    kind: str = KIND
    v: int = VERSION
    epoch: str
    config: EngineConfig
    model: Model
    t0: float
    clock: float
    program: str = ""
    chat: tuple[str, str] = ("", "")
    drops_first_space: bool = False
    forked_from: ForkedFrom | None = None
    redacted: bool = False


class Vocab(msgspec.Struct, frozen=True, tag_field="k", tag="vocab", omit_defaults=True):
    """Tokens as they are shown; ``raw`` has the bytes of those that add others to a text."""

    ids: list[int]
    texts: list[str]
    raw: dict[int, bytes] = {}


class Ended(msgspec.Struct, frozen=True, tag_field="k", tag="ended"):
    """Requests that never change again, so that no snapshot need repeat them."""

    requests: list[RequestState]


class Snap(msgspec.Struct, frozen=True, tag_field="k", tag="snap", omit_defaults=True):
    """A snapshot without the requests in ``Snapshot.finished``: those are in lines before it. It is
    of the state after ``n`` records, if not after all that come before it."""

    state: Snapshot
    n: int | None = None


class Look(msgspec.Struct, frozen=True, tag_field="k", tag="look"):
    """Somebody looked at that position from then on; None: at the end, wherever that moved."""

    at: ev.Position | None


class End(msgspec.Struct, frozen=True, tag_field="k", tag="end"):
    records: int


class Piece(NamedTuple):
    """A token: as it is shown, and the bytes it adds to a text (none for a special one)."""

    text: str
    raw: bytes


class Speller(Protocol):
    """What a recording asks of a tokenizer."""

    @property
    def drops_first_space(self) -> bool: ...

    def chat_frame(self) -> tuple[str, str]: ...

    def piece(self, token: int) -> Piece: ...


def new_header(config: EngineConfig, model: Model, clock: float, speller: Speller | None) -> Header:
    """The header of a recording that begins now, when the engine's clock says ``clock``."""
    return Header(
        epoch=str(uuid4()),
        config=config,
        model=model,
        t0=time.time(),
        clock=clock,
        program=f"minisgl-tui {version('minisgl-tui')}",
        chat=speller.chat_frame() if speller else ("", ""),
        drops_first_space=speller is not None and speller.drops_first_space,
    )


encode = msgspec.json.Encoder().encode
_PIECE = 256  # nodes or requests
_RECORD = msgspec.json.Decoder(ev.StepRecord)
_KINDS = {kind.__struct_config__.tag for kind in ev.AnyEvent.__args__}


def read_record(line: bytes | str, unknown: Counter[str]) -> ev.StepRecord:
    """The record in a line, less the events of kinds that only a newer program knows: those are
    counted in ``unknown``. Raises msgspec.DecodeError for what is no record."""
    try:
        return _RECORD.decode(line)
    except msgspec.ValidationError:
        loose = msgspec.json.decode(line, type=dict)
    events = msgspec.convert(loose.pop("events", []), list[dict])
    record = msgspec.convert(loose, ev.StepRecord)
    for event in events:
        if event.get("k") in _KINDS:
            record.events.append(msgspec.convert(event, ev.AnyEvent))
        else:
            unknown[str(event.get("k"))] += 1
    return record


def encode_record(record: ev.StepRecord) -> bytes:
    """The line of a record, without its end."""
    return b'{"k":"step","n":%d,%b' % (len(record.events), encode(record)[1:])


def tokens_in(event: ev.AnyEvent) -> Iterable[int]:
    """The tokens that an event brings up, those that might have been sampled among them; what is
    in the tree has come up before."""
    if isinstance(event, ev.Submitted):
        return event.prompt
    if not isinstance(event, ev.Sampled):
        return ()
    others = (top for logprobs in event.logprobs if logprobs for top, _ in logprobs.top)
    return chain(event.tokens, others)


def vocabulary(ids: list[int], speller: Speller | None) -> Vocab:
    """How those tokens are spelled; none of them without a ``speller``."""
    if speller is None:
        return Vocab([], [])
    return vocab_of({id: speller.piece(id) for id in ids})


def pieces(vocab: Vocab) -> Iterator[tuple[int, Piece]]:
    """The tokens that a line spells."""
    for id, text in zip(vocab.ids, vocab.texts, strict=False):
        raw = vocab.raw.get(id)
        yield id, Piece(text, text.encode() if raw is None else raw)


class LineMaker:
    """Lines for records and snapshots, and when a snapshot is due.

    One is due when the records since the last take half as many bytes as it did: replaying a record
    takes longer than reading a snapshot of that length, and a file at most triples.
    """

    def __init__(self) -> None:
        self._since = 0
        self._wait = SPARSEST
        self._told: set[int] = set()  # requests in `Ended` lines

    @property
    def due(self) -> bool:
        return self._since >= self._wait

    def record(self, record: ev.StepRecord) -> bytes:
        line = encode_record(record) + b"\n"
        self._since += len(line)
        return line

    def begin_snapshot(self) -> None:
        """One is under way: count anew from here."""
        self._since = 0

    def snapshot(self, snapshot: Snapshot, records: int | None = None) -> list[bytes]:
        """The lines of a snapshot; those of one recording have to be asked for in order. It is
        after so many ``records``, if more may have been written meanwhile."""
        told, finished = self._told, set(snapshot.finished)
        live = {id: r for id, r in snapshot.requests.items() if id not in finished}
        ended = [snapshot.requests[id] for id in snapshot.finished if id not in told]
        self._told = finished
        lines = [encode(Ended(ended)) + b"\n"] if ended else []
        large = {"requests": _in_pieces(live), "nodes": _in_pieces(snapshot.nodes)}
        lines.append(encode(Snap(msgspec.structs.replace(snapshot, **large), records)) + b"\n")
        self._wait = max(SPARSEST, sum(map(len, lines)) // 2)
        return lines


def _in_pieces(entries: Mapping[int, Any]) -> msgspec.Raw:
    """The object that ``entries`` are, encoded so that other threads get their turn meanwhile: the
    tree of a large run takes tens of milliseconds."""
    pieces: list[bytes] = []
    left = iter(entries.items())
    while piece := dict(islice(left, _PIECE)):
        pieces.append(encode(piece)[1:-1])
        time.sleep(0)
    return msgspec.Raw(b"{" + b",".join(pieces) + b"}")


def check_path(path: Path, overwrite: bool, flag: str = "--record") -> None:
    """Raise `UserError` for a file that cannot be made or must not be replaced."""
    if path.is_dir():
        raise UserError(f"{flag} {path} is a directory; give the name of a file")
    if path.exists() and not overwrite:
        raise UserError(f"{flag} {path} exists already; give another name, or --overwrite")
    if not path.absolute().parent.is_dir():
        raise UserError(f"{flag} {path}: there is no directory {path.parent}; make it first")


def vocab_of(pieces: Mapping[int, Piece]) -> Vocab:
    """The line that tells ``pieces``, by token id."""
    raw = {
        id: piece.raw
        for id, piece in pieces.items()
        if piece.raw != piece.text.encode(errors="replace")
    }
    return Vocab([*pieces], [piece.text for piece in pieces.values()], raw)


class TraceWriter:
    """Writes a recording; `write` is called in the engine's thread, the disk waits in another.

    The file is readable by its owner alone. When it cannot be written any longer the recording
    ends, ``error`` says why in one line and ``on_end`` is told (in the writer's thread); the engine
    does not notice. ``speller`` puts the texts of tokens into the recording.
    """

    def __init__(
        self,
        path: Path,
        header: Header,
        *,
        overwrite: bool = False,
        speller: Speller | None = None,
        on_end: Callable[[str], object] = lambda message: None,
    ) -> None:
        check_path(path, overwrite)
        self.path = path
        self.error = ""
        self.records = 0
        self._speller = speller
        self._on_end = on_end
        self._lines = LineMaker()
        self._spelled: set[int] = set()
        self._queue: SimpleQueue[bytes | list[int] | Snapshot | None] = SimpleQueue()
        self._queued = self._written = 0  # bytes of lines
        self._closed = False
        try:
            self._file = create(path, overwrite)
            self._file.write(encode(header) + b"\n")
            self._file.flush()
        except OSError as error:
            raise UserError(f"cannot record to {path}: {error.strerror or error}") from error
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    # --- the engine's thread ---------------------------------------------------------------------

    def write(self, record: ev.StepRecord, state: EngineState) -> None:
        """Record ``record``. ``state`` is the picture that includes it and nothing later."""
        if self.error or self._closed:
            return
        if self._speller:
            self.spell(chain.from_iterable(map(tokens_in, record.events)))
        line = self._lines.record(record)
        self._queued += len(line)
        self.records += 1
        self._queue.put(line)
        if self._lines.due:
            self.write_snapshot(state)
        if self._queued - self._written > QUEUE_BYTES:
            self._fail(f"the disk is {QUEUE_BYTES >> 20} MB behind")

    def write_snapshot(self, state: EngineState) -> None:
        """For a recording that does not begin with an empty engine; others come by themselves."""
        self._lines.begin_snapshot()
        self._queue.put(state.snapshot())

    def spell(self, tokens: Iterable[int]) -> None:
        """Have tokens told that come up for the first time; those of records come by themselves."""
        new = set(tokens) - self._spelled
        if new and self._speller:
            self._spelled |= new
            self._queue.put(sorted(new))

    def close(self) -> None:
        """Write what is left and the last line. May be called again."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        self._thread.join()

    # --- the writer's thread ---------------------------------------------------------------------

    def _work(self) -> None:
        flushed, dirty = time.monotonic(), False
        ended = False
        while not ended:
            wait = max(0.0, flushed + FLUSH_SECONDS - time.monotonic()) if dirty else None
            try:
                item = self._queue.get(timeout=wait)
            except Empty:
                item = b""
            ended = item is None
            if self.error:
                continue  # only waiting to be closed
            try:
                for line in self._lines_of(item):
                    self._file.write(line)
                dirty = True
                if ended or time.monotonic() - flushed >= FLUSH_SECONDS:
                    self._file.flush()
                    flushed, dirty = time.monotonic(), False
            except Exception as error:  # whatever it is, the engine goes on without a recording
                self._fail(getattr(error, "strerror", None) or f"{type(error).__name__}: {error}")
                dirty = False
        with suppress(OSError):  # what could not be written before cannot be now
            self._file.close()

    def _lines_of(self, item: bytes | list[int] | Snapshot | None) -> list[bytes]:
        if item is None:
            return [encode(End(self.records)) + b"\n"]
        if isinstance(item, Snapshot):
            return self._lines.snapshot(item)
        if isinstance(item, list):
            return [encode(vocabulary(item, self._speller)) + b"\n"]
        self._written += len(item)
        return [item]

    def _fail(self, reason: str) -> None:
        if not self.error:
            self.error = f"the recording {self.path} ends after {self.records} records: {reason}"
            self._on_end(self.error)


class RecordTo(NamedTuple):
    """Where to record to, as it was asked for on the command line."""

    path: Path
    overwrite: bool = False

    def check(self, flag: str) -> None:
        """Refuse at once what `open` would refuse when the model is loaded. ``flag`` asked for
        it."""
        check_path(self.path, self.overwrite, flag)

    @contextmanager
    def open(
        self, header: Header, speller: Speller | None, on_end: Callable[[str], object]
    ) -> Iterator[TraceWriter]:
        """A writer that comes to its end with the block."""
        writer = TraceWriter(
            self.path, header, overwrite=self.overwrite, speller=speller, on_end=on_end
        )
        try:
            yield writer
        finally:
            writer.close()


class _File(Protocol):
    def write(self, data: bytes, /) -> object: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class _Gzip:
    """A gzip file of which all that was flushed can be read, whatever becomes of the rest."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._compress = zlib.compressobj(wbits=31)

    def write(self, data: bytes) -> None:
        self._file.write(self._compress.compress(data))

    def flush(self) -> None:
        self._file.write(self._compress.flush(zlib.Z_SYNC_FLUSH))
        self._file.flush()

    def close(self) -> None:
        try:
            self._file.write(self._compress.flush())
        finally:
            self._file.close()


def create(path: Path, overwrite: bool) -> _File:
    """A file for a recording, readable by its owner alone."""
    if overwrite:
        path.unlink(missing_ok=True)  # not emptied: somebody may be reading it
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    file = os.fdopen(descriptor, "wb", buffering=1 << 18)
    return _Gzip(file) if path.name.endswith(".gz") else file
