"""Going over the record of a run for a place in it: where breakpoints would have stopped, forwards
or backwards, and where something is touched that no index knows of yet.

Either goes over the record a little at a time, so that the screens stay alive, and says how far it
has come. Breakpoints that only log are not hunted for, and their counts of ignored hits are those
of the run, not of a hunt.
"""

import time
from collections.abc import Callable, Mapping

from ..engine.breakpoints import Breakpoint, Breakpoints
from ..engine.conditions import parse
from ..engine.events import AnyEvent, Position
from ..engine.history import History
from ..engine.stops import Stop

STRETCH = 64  # records that are looked through before those before them, backwards


class Hunt:
    """The next place after ``start``, or before it if ``back``, where one of ``conditions`` stops,
    which come by the ids of their breakpoints, from 1 on; 0 is for one that is none's.

    Call `go_on` until it says that it is done; ``found`` is the place, None if there is none.
    """

    def __init__(
        self, past: History, start: Position, conditions: Mapping[int, str], back: bool = False
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
        for id, condition in self._conditions.items():
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


class Search:
    """The next event after ``start`` that ``fits``, or the last one before it if ``back``, among
    the records from number ``first`` on. `go_on` and ``found`` as with a `Hunt`."""

    def __init__(
        self,
        past: History,
        start: Position,
        fits: Callable[[AnyEvent], bool],
        back: bool,
        first: int,
    ) -> None:
        self.found: Position | None = None
        self.at = start
        self._past = past
        self._start = start
        self._fits = fits
        self._back = back
        here = past.records_until(start)
        numbers = range(first, here) if back else range(max(first, here - 1), len(past))
        self._numbers = iter(reversed(numbers) if back else numbers)

    def go_on(self, seconds: float) -> bool:
        """Look for about so long; true when there is nothing left to do."""
        deadline = time.perf_counter() + seconds
        for number in self._numbers:
            record = self._past.record(number)
            places = (record.position(i) for i, e in enumerate(record.events) if self._fits(e))
            if self._back:
                self.found = max((at for at in places if at < self._start), default=None)
            else:
                self.found = min((at for at in places if at > self._start), default=None)
            self.at = self._past.position_after(number)
            if self.found is not None:
                return True
            if time.perf_counter() > deadline:
                return False
        return True


def _place(stop: Stop) -> Position:
    return Position(stop.step, stop.index)
