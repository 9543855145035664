"""The history of a live run in a file that is a recording at any moment, whatever happens next.

For a session that nobody has asked to be recorded: should its terminal die, or the program be
killed, what was seen can still be opened, at the place where one looked.
"""

from collections.abc import Iterable
from itertools import chain
from typing import BinaryIO

from .events import Position, StepRecord
from .history import History
from .state import EngineState
from .trace import End, Header, Look, Speller, encode, tokens_in, vocabulary


class KeptHistory(History):
    """An empty one of a run that begins now; ``file`` is empty, and closed with it. ``speller``
    puts the texts of tokens into it. Raises `OSError` if nothing can be written."""

    def __init__(self, header: Header, file: BinaryIO, speller: Speller | None) -> None:
        super().__init__(header.config, file)
        self._speller = speller
        self._spelled: set[int] = set()
        self._write(encode(header) + b"\n")

    def append(self, record: StepRecord, state: EngineState) -> None:
        self._spell(chain.from_iterable(map(tokens_in, record.events)))
        super().append(record, state)

    def look(self, position: Position | None) -> None:
        """Remember that somebody looks at ``position`` now; None: at the end."""
        self._add(encode(Look(position)))

    def finish(self) -> None:
        """Nothing more will come; it can still be read."""
        self.settle()
        self._add(encode(End(len(self))))

    def _spell(self, tokens: Iterable[int]) -> None:
        """Have the tokens told that come up for the first time."""
        new = set(tokens) - self._spelled
        if new and self._speller and not self.gap:
            self._spelled |= new
            self._add(encode(vocabulary(sorted(new), self._speller)))

    def _add(self, line: bytes) -> None:
        if not self.gap:
            try:
                self._write(line + b"\n")
            except OSError as error:
                self._end_at_gap(error)
