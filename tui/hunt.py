"""Where in the record of a run breakpoints would have stopped it, forwards or backwards.

A hunt goes over the record a little at a time, so that the screens stay alive, and says how far it
has come. Breakpoints that only log are not hunted for, and their counts of ignored hits are those
of the run, not of a hunt.
"""

import time
from collections.abc import Sequence

from ..engine.breakpoints import Breakpoint, Breakpoints
from ..engine.conditions import parse
from ..engine.events import Position
from ..engine.history import History
from ..engine.stops import Stop

STRETCH = 64  # records that are looked through before those before them, backwards


class Hunt:
    """The next place after ``start``, or before it if ``back``, where one of ``conditions`` stops.

    Call `go_on` until it says that it is done; ``found`` is the place, None if there is none.
    """

    def __init__(
        self, past: History, start: Position, conditions: Sequence[str], back: bool = False
    ) -> None:
        self.found: Stop | None = None
        self.at = start
        self.back = back
        self._past = past
        self._start = start
        self._conditions = conditions
        first = past.records_until(start)
        if past.position_after(first) != start:
            first -= 1  # the rest of this record is still to be looked through
        self._next = past.records_until(start) if back else first
        self._end = len(past)
        self._state = None if back else past.state_after(first)
        self._breakpoints = self._armed()

    def go_on(self, seconds: float) -> bool:
        """Look for about so long; true when there is nothing left to do."""
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            if self._backwards() if self.back else self._forwards():
                return True
        return False

    def _armed(self) -> Breakpoints:
        breakpoints = Breakpoints()
        for id, condition in enumerate(self._conditions, 1):
            breakpoints.add(Breakpoint(id, parse(condition)))
        return breakpoints

    def _forwards(self) -> bool:
        if self._next >= self._end:
            return True
        assert self._state
        stops = self._breakpoints.check(self._past.record(self._next), self._state)
        self._next += 1
        self.at = self._past.position_after(self._next)
        self.found = next((stop for stop in stops if _place(stop) > self._start), None)
        return self.found is not None

    def _backwards(self) -> bool:
        """Look through the stretch before what has been looked through; its last stop counts."""
        if not self._next:
            return True
        first = max(0, self._next - STRETCH)
        state = self._past.state_after(first)
        breakpoints = self._armed()
        for record in self._past.records(first, self._next):
            for stop in breakpoints.check(record, state):
                if _place(stop) < self._start:
                    self.found = stop
        self._next = first
        self.at = self._past.position_after(first)
        return self.found is not None


def _place(stop: Stop) -> Position:
    return Position(stop.step, stop.index)
