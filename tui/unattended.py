"""A run without a person: a `Sink` that plays its source to the end, and the figures of that."""

import signal
from types import FrameType

from ..engine.debugger import Mode
from ..engine.errors import UserError
from ..engine.events import StepRecord
from ..engine.lints import Lints
from ..engine.state import EngineState
from ..engine.stats import Statistics
from ..engine.windows import Windows
from ..engine.wording import plural
from .progress import ShowProgress
from .sources.base import (
    Failed,
    Message,
    ModeChanged,
    Progress,
    Ready,
    RecordingEnded,
    Rejected,
    Source,
)
from .views.statistics import duration


class Unattended:
    """Plays ``source`` at full speed, and closes it when it is idle."""

    def __init__(self, source: Source, progress: ShowProgress) -> None:
        self._source = source
        self._progress = progress
        self._state: EngineState | None = None
        self._windows: Windows | None = None
        self._lints = Lints()
        self._error = ""
        self._began = False

    def run(self) -> None:
        """From start to end. Raises `UserError` if it could not be carried through; an interrupt
        ends it after the step in progress."""
        interrupts: list[int] = []

        def interrupted(number: int, frame: FrameType | None) -> None:
            interrupts.append(number)
            self._source.close()

        # Python up to 3.12 takes a thread for ended when the wait for it is broken off.
        before = signal.signal(signal.SIGINT, interrupted)
        try:
            self._source.start(self)
            self._source.wait(None)
        finally:
            signal.signal(signal.SIGINT, before)
        if interrupts:
            raise KeyboardInterrupt
        if self._error:
            raise UserError(self._error)

    # --- the source's thread ---------------------------------------------------------------------

    def put(self, message: Message) -> None:
        if isinstance(message, StepRecord):
            self._take(message)
        elif isinstance(message, Progress):
            self._progress(message.stage, message.fraction)
        elif isinstance(message, Ready):
            self._state = EngineState(message.config)
            self._windows = Windows(self._state)
        elif isinstance(message, ModeChanged) and message.mode is Mode.PAUSED:
            self._paused(message.idle)
        elif isinstance(message, (Failed, RecordingEnded, Rejected)):
            self._error = self._error or message.message
            self._source.close()

    def _paused(self, idle: bool) -> None:
        """Before the first step, once its requests are there; and when nothing is left to do."""
        if not self._began:
            self._began = True
            self._source.play(None)
        elif idle:
            self._source.close()

    def _take(self, record: StepRecord) -> None:
        state, windows = self._state, self._windows
        assert state and windows
        state.apply(record)
        windows.apply(record, state)
        self._lints.apply(record, state)
        done = state.stats.ended / max(1, state.stats.submitted)
        self._progress("running the workload", done)

    # --- what came of it -------------------------------------------------------------------------

    def figures(self) -> list[str]:
        """The run in a few lines: what it took, hit and lost, and what the lints say of it."""
        if self._state is None or self._windows is None:
            return []
        found = (f"⚠ {line}" for line in self._lints.summaries().values())
        return [*figures(self._state.stats, self._windows), *found]


def figures(stats: Statistics, windows: Windows) -> list[str]:
    """A run in a few lines."""
    seconds = stats.now - (stats.started_at or 0.0)
    ends = ", ".join(f"{count} by {reason}" for reason, count in sorted(stats.finished.items()))
    lost = f", {stats.lost_tokens:,} computed tokens let go of" if stats.preemptions else ""
    hit = f"{stats.hit_rate:.0%} of {plural(stats.prompt_tokens, 'prompt token')}"
    return [
        f"{plural(stats.submitted, 'request')} ended ({ends}) after {plural(stats.steps, 'step')} "
        f"and {duration(seconds)}",
        f"cached: {hit}; {stats.prefill_tokens:,} computed by prefill",
        f"preemptions: {stats.preemptions}{lost}",
        f"to the first token: {_times(stats, windows, 'ttft')}",
        f"between tokens: {_times(stats, windows, 'itl')}",
    ]


def _times(stats: Statistics, windows: Windows, name: str) -> str:
    whole = windows.window(stats, None)
    times = windows.times(whole, stats, name) if whole else None
    if not times or not times.samples:
        return "none"
    median, high, most = map(duration, (times.p50, times.p99, times.most))
    about = "~" if whole and windows.estimates(whole, stats) else ""
    return f"median {about}{median}, p99 {about}{high}, longest {most}"
