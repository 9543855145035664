"""Where the engine stopped and why, and the breakpoints that were set, as the screens know them."""

from collections import deque

from ..engine.breakpoints import BreakpointInfo
from ..engine.stops import Stop, Stopped, StopReason
from .sources.base import BreakpointsChanged

RETAIN = 1000  # stops and logged hits that are remembered

# What a person asked for step by step is no news.
_QUIET = (StopReason.STEP, StopReason.PAUSE)


class Stops:
    """``all`` stops in order, ``logged`` hits of log-only breakpoints, ``breakpoints`` now."""

    def __init__(self) -> None:
        self.all: deque[Stopped] = deque(maxlen=RETAIN)
        self.logged: deque[Stop] = deque(maxlen=RETAIN)
        self.breakpoints: tuple[BreakpointInfo, ...] = ()
        self.version = 0

    def take(self, message: Stopped | BreakpointsChanged) -> None:
        self.version += 1
        if isinstance(message, Stopped):
            self.all.append(message)
        else:
            self.breakpoints = message.all
            self.logged.extend(message.logged)

    def at(self, step: int) -> Stopped | None:
        """The stop at the end of ``step`` that is worth a word: a breakpoint's, one that was run
        to, or one for which there was a condition to reach."""
        latest = next((s for s in reversed(self.all) if s.step == step), None)
        if latest and (latest.reason not in _QUIET or latest.until):
            return latest if latest.hits or latest.until else None
        return None

    def hits(self, step: int) -> list[Stop]:
        """What fired in ``step``, of stopping and of log-only breakpoints, in order."""
        found = [hit for stop in self.all if stop.step == step for hit in stop.hits]
        found += (hit for hit in self.logged if hit.step == step)
        return sorted(found, key=lambda hit: hit.index)

    def before(self, step: int) -> int:
        """The step of the latest stop before ``step``; 0, the start, if there was none."""
        return max((s.step for s in self.all if s.step < step), default=0)
