"""Recording a running server without a person: a `Sink` that says on stderr how it goes."""

import signal
import sys
import threading
from types import FrameType

from ..engine.errors import UserError
from ..engine.events import StepRecord
from ..engine.wording import plural
from .sources.base import Failed, Link, Message, Ready, RecordingEnded
from .sources.http import HttpSource

_TOLD = 1.0  # seconds between two looks at the progress


class Watching:
    """Lets ``source``, which records, watch its server until interrupted."""

    def __init__(self, source: HttpSource) -> None:
        self._source = source
        self._error = ""
        self._records = 0
        self._step = 0
        self._lost = ""
        self._ended = threading.Event()

    def run(self, seconds: float | None) -> None:
        """For so many ``seconds``, or until a signal. Raises `UserError` if the server could not be
        joined, or the file not be written."""

        def interrupted(number: int, frame: FrameType | None) -> None:
            self._ended.set()

        before = {s: signal.signal(s, interrupted) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._source.start(self)
            self._wait(seconds)
            self._source.close()
            self._source.wait(None)
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
        if self._error:
            raise UserError(self._error)

    def _wait(self, seconds: float | None) -> None:
        """Until it is over, with a line of progress on a terminal."""
        left = seconds
        while not self._ended.wait(_TOLD if left is None else min(_TOLD, left)):
            if left is not None and (left := left - _TOLD) <= 0:
                break
            if sys.stderr.isatty():
                print(f"\r\x1b[K{self._progress}", end="", file=sys.stderr, flush=True)
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    @property
    def _progress(self) -> str:
        lost = f" · {self._lost}" if self._lost else ""
        return f"{plural(self._records, 'record')} · step {self._step:,}{lost} · ctrl-c ends it"

    def figures(self) -> list[str]:
        """What was recorded, in a few lines."""
        files = [str(path) for path in self._source.recorded_to]
        return [f"{', '.join(files)}:", f"{plural(self._records, 'record')} to step {self._step:,}"]

    # --- the source's thread ---------------------------------------------------------------------

    def put(self, message: Message) -> None:
        if isinstance(message, StepRecord):
            self._records += 1
            self._step = message.step
        elif isinstance(message, Ready):
            said = (message.origin.ended, message.origin.note, f"recording to {message.records_to}")
            self._say("; ".join(filter(None, said)))
        elif isinstance(message, Link):
            if message.lost != self._lost:
                self._say(message.lost or "connected again")
            self._lost = message.lost
        elif isinstance(message, (Failed, RecordingEnded)):
            self._error = self._error or message.message
            self._ended.set()

    def _say(self, line: str) -> None:
        clear = "\r\x1b[K" if sys.stderr.isatty() else ""
        print(f"{clear}{line}", file=sys.stderr, flush=True)
