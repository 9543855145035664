"""Writing down a server that is watched: an `.mtrace` file for each stretch without a gap.

The first has the name that was asked for. Where the server was restarted or steps were missed
another file begins, as in ``run-2.mtrace``: a recording is one run without holes.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from ..engine.events import StepRecord
from ..engine.state import EngineState
from ..engine.trace import Header, Piece, RecordTo, TraceWriter
from .sources.recorded import unspelled


class LiveRecording:
    """``on_end`` is told, in a line, when nothing more can be written. ``records`` counts those of
    all files in ``paths``."""

    def __init__(self, wanted: RecordTo, on_end: Callable[[str], object]) -> None:
        self.paths: list[Path] = []
        self._wanted = wanted
        self._on_end = on_end
        self._writer: TraceWriter | None = None
        self._before = 0

    @property
    def records(self) -> int:
        return self._before + (self._writer.records if self._writer else 0)

    @property
    def error(self) -> str:
        """Why nothing more is written; empty as long as it is."""
        return self._writer.error if self._writer else ""

    def begin(self, header: Header, state: EngineState, vocabulary: Mapping[int, Piece]) -> None:
        """Another stretch, from ``state`` on; ``vocabulary`` grows with it. Raises `UserError` for
        a file that cannot be made."""
        self.close()
        path, overwrite = self._wanted
        if self.paths:
            path, overwrite = _next(path, len(self.paths) + 1), False
        speller = _Spelled(header, vocabulary)
        self._writer = TraceWriter(
            path, header, overwrite=overwrite, speller=speller, on_end=self._on_end
        )
        self.paths.append(path)
        if state != EngineState(header.config):
            self._writer.spell(vocabulary)
            self._writer.write_snapshot(state)

    def write(self, record: StepRecord, state: EngineState) -> None:
        """Record ``record``, which ``state`` includes."""
        if self._writer:
            self._writer.write(record, state)

    def close(self) -> None:
        """Write the last line of the file. May be called again."""
        if self._writer:
            self._writer.close()
            self._before += self._writer.records
            self._writer = None


def _next(path: Path, number: int) -> Path:
    """``run.mtrace.gz`` → ``run-2.mtrace.gz``, or with the next number that is free."""
    name, dot, suffixes = path.name.partition(".")
    while (found := path.with_name(f"{name}-{number}{dot}{suffixes}")).exists():
        number += 1
    return found


class _Spelled:
    """A `Speller` by what the server has spelled."""

    def __init__(self, header: Header, vocabulary: Mapping[int, Piece]) -> None:
        self.drops_first_space = header.drops_first_space
        self._chat = header.chat
        self._vocabulary = vocabulary

    def chat_frame(self) -> tuple[str, str]:
        return self._chat

    def piece(self, token: int) -> Piece:
        return self._vocabulary.get(token) or unspelled(token)
