"""What a debugger says besides the records, as messages for the screens."""

from ...engine.debugger import Debugger
from ...engine.events import StepRecord
from ...engine.stops import Stop
from .base import BreakpointsChanged, ModeChanged, Sink


class Reporter:
    """Puts into ``sink`` what ``debugger`` has to say besides the records, once each."""

    def __init__(self, debugger: Debugger, sink: Sink) -> None:
        self._debugger = debugger
        self._sink = sink
        self._stop = debugger.last_stop
        self._told = BreakpointsChanged(())
        self._logged = debugger.logged[-1:]

    def changed(self) -> None:
        debugger = self._debugger
        self.breakpoints()
        if debugger.last_stop is not None and debugger.last_stop is not self._stop:
            self._stop = debugger.last_stop
            self._sink.put(self._stop)
        self._sink.put(ModeChanged(debugger.mode, debugger.rate, debugger.idle))

    def breakpoints(self, record: StepRecord | None = None) -> None:
        """Tell of breakpoints that came, went or were hit."""
        found = tuple(breakpoint.info for breakpoint in self._debugger.breakpoints)
        if found == self._told.all:
            return
        self._told = BreakpointsChanged(found, self._newly_logged())
        self._sink.put(self._told)

    def _newly_logged(self) -> tuple[Stop, ...]:
        logged = self._debugger.logged
        seen = next((i for i, stop in enumerate(logged, 1) if stop in self._logged), 0)
        self._logged = logged[-1:]
        return logged[seen:]
