"""A recording in the place of an engine: the debugger steps it, plays it and stops it alike.

Each step hands the listeners the records of one step, as the engine did when it was recorded.
Nothing is computed, so nothing can be asked of it either: no prompts, no aborts.
"""

from collections.abc import Callable

from .errors import UserError
from .events import Listener, StepRecord
from .history import History
from .request import Request
from .sampling import SamplingParams

ONLY_PLAYED = "this is a recording: it can be played, not changed"


class PlaybackLog:
    """Hands out records; to those who want to hear them, in the order they came."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` with every record from now on; the result ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def hand_out(self, record: StepRecord) -> None:
        for listener in tuple(self._listeners):
            listener(record)


class Playback:
    """``history`` from its start on. ``records`` of them have been handed out."""

    def __init__(self, history: History) -> None:
        self.config = history.config
        self.history = history
        self.log = PlaybackLog()
        self.records = 0
        self.requests: dict[int, Request] = {}  # the debugger's: none of them is alive here

    @property
    def step_count(self) -> int:
        return self.history.position_after(self.records).step

    def has_work(self) -> bool:
        return self.records < len(self.history)

    def begin(self) -> None:
        """Hand out what came before the first step, so that it is there to be looked at."""
        while self.has_work() and self.history.step_of(self.records) == 0:
            self._next()

    def step(self) -> None:
        """One step, with what came after it and before the next."""
        if self.has_work():
            step = self.history.step_of(self.records)
            while self.has_work() and self.history.step_of(self.records) == step:
                self._next()

    def skip(self) -> StepRecord:
        """The next record, which is handed out to nobody else."""
        record = self.history.record(self.records)
        self.records += 1
        return record

    def _next(self) -> None:
        self.log.hand_out(self.skip())

    def submit(self, prompt: list[int], params: SamplingParams, *, priority: int = 0) -> None:
        raise UserError(ONLY_PLAYED)

    def abort(self, request_id: int) -> bool:
        raise UserError(ONLY_PLAYED)
