"""Opening a recording: one pass over its lines for an index, and the rest when it is asked for; and
saving a run that is over as one.

A file that is cut off, in the middle of a line or of a gzip block, is a recording up to the cut.
Lines of unknown kinds are counted and passed over; only a newer version of the whole is refused.
"""

import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import msgspec

from .errors import UserError
from .events import Position
from .history import History, Span
from .trace import (
    KIND,
    VERSION,
    End,
    Header,
    Look,
    Piece,
    Vocab,
    check_path,
    create,
    encode,
    pieces,
    vocab_of,
)

Progress = Callable[[float], object]

_PIECE = 1 << 20  # bytes between two words on progress
_GZIP = b"\x1f\x8b"


class Trace:
    """A recording that is open for reading.

    ``history`` has its records and states. ``cut`` is empty if the recording came to its end, else
    it says why it does not go on. ``skipped`` counts lines of unknown kinds.
    """

    def __init__(self, path: Path, header: Header, file: BinaryIO) -> None:
        self.path = path
        self.header = header
        self.history = History(header.config, file)
        self.cut = ""
        self.skipped: Counter[str] = Counter()
        self.looked_at: Position | None = None
        self._file = file
        self._vocabulary: list[Span] = []

    @classmethod
    def open(cls, path: Path, progress: Progress = lambda fraction: None) -> "Trace":
        """Read the index of the recording at ``path``. ``progress`` is told how much of it is done.

        Raises `UserError` for what is no recording, or one that only a newer program can read.
        """
        file, cut = _plain(path)
        first = file.readline()
        trace = cls(path, _header(path, first), file)
        trace._scan(len(first), progress)
        trace.cut = trace.cut or cut
        return trace

    def vocabulary(self) -> dict[int, Piece]:
        """Every token that comes up, as far as the recording spells it."""
        found: dict[int, Piece] = {}
        for span in self._vocabulary:
            self._file.seek(span.offset)
            line = self._file.read(span.length)
            found.update(pieces(msgspec.json.decode(line, type=Vocab)))
        return found

    def close(self) -> None:
        self.history.close()

    def _scan(self, offset: int, progress: Progress) -> None:
        size = _size(self._file)
        ended, number, told = False, 1, 0
        seq: int | None = None
        self._file.seek(offset)
        for line in self._file:
            number += 1
            try:
                head = _HEAD.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                head = None
            if head is None or not line.endswith(b"\n"):
                whole = "cut off in" if not line.endswith(b"\n") else "damaged at"
                self.cut = f"the file is {whole} line {number}"
                return
            if head.k == "step" and seq is not None and head.seq != seq + 1:
                self.cut = f"records are missing before line {number}"
                return
            span = Span(offset, len(line))
            offset += len(line)
            if head.k == "step":
                seq = head.seq
                count = _COUNT.decode(line).count if head.n is None else head.n
                self.history.add_record(span, head.step, head.first, count)
            elif head.k == "snap":
                after = len(self.history) if head.n is None else head.n
                self.history.add_snapshot(span, after)
            elif head.k == "ended":
                self.history.add_ended(span)
            elif head.k == "vocab":
                self._vocabulary.append(span)
            elif head.k == "look":
                self.looked_at = _LOOK.decode(line).at
            elif head.k == "end":
                ended = True
            else:
                self.skipped[head.k] += 1
            if offset - told > _PIECE:
                told = offset
                progress(offset / size)
        if not ended:
            self.cut = "the recording stops without an end"
        progress(1.0)


def save(
    path: Path,
    header: Header,
    vocabulary: Mapping[int, Piece],
    history: History,
    *,
    overwrite: bool = False,
) -> None:
    """Write a run that is over to a recording. Raises `UserError` if it cannot be written."""
    check_path(path, overwrite)
    try:
        file = create(path, overwrite)
        try:
            file.write(encode(header) + b"\n")
            file.write(encode(vocab_of(vocabulary)) + b"\n")
            for line in history.lines():
                file.write(line)
            file.write(encode(End(len(history))) + b"\n")
        finally:
            file.close()
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


class _Head(msgspec.Struct):
    """What the index wants of a line."""

    k: str
    n: int | None = None
    seq: int = 0
    step: int = 0
    first: int = 0


class _Count(msgspec.Struct):
    events: list[msgspec.Raw] = []

    @property
    def count(self) -> int:
        return len(self.events)


class _Preface(msgspec.Struct):
    kind: str = ""
    v: int = 0


_HEAD = msgspec.json.Decoder(_Head)
_COUNT = msgspec.json.Decoder(_Count)
_LOOK = msgspec.json.Decoder(Look)


def _header(path: Path, line: bytes) -> Header:
    """The first line, or the one line that says why it is none."""
    if not line:
        raise UserError(f"{path} is empty: nothing was recorded, or it was cut off at once")
    try:
        preface = msgspec.json.decode(line, type=_Preface)
    except (msgspec.DecodeError, UnicodeDecodeError):
        preface = _Preface()
        if line.startswith(b'{"k":"header"') and not line.endswith(b"\n"):
            raise UserError(f"{path} is cut off before the first step") from None
    if preface.kind != KIND:
        raise UserError(f"{path} is no recording; they are made with --record FILE")
    if preface.v > VERSION:
        raise UserError(
            f"{path} is a recording of version {preface.v}, and this program reads {VERSION}: "
            "install a newer minisgl-tui"
        )
    try:
        return msgspec.json.decode(line, type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the first line of the recording is damaged: {error}") from error


def _plain(path: Path) -> tuple[BinaryIO, str]:
    """The file, or a temporary one with what is compressed in it, and where that breaks off."""
    try:
        file = path.open("rb")
        start = file.read(2)
        file.seek(0)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if start != _GZIP:
        return file, ""
    with file:
        return _decompress(file)


def _decompress(file: BinaryIO) -> tuple[BinaryIO, str]:
    plain: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115  closed with its history
    cut = "the file is cut off"
    expand = zlib.decompressobj(wbits=31)
    try:
        while chunk := file.read(_PIECE):
            plain.write(expand.decompress(chunk))
    except zlib.error as error:
        cut = f"the file is damaged: {error}"
    plain.seek(0)
    return plain, "" if expand.eof else cut


def _size(file: BinaryIO) -> int:
    at = file.tell()
    size = file.seek(0, 2)
    file.seek(at)
    return max(1, size)
