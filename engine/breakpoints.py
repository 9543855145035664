"""Breakpoints: which event, or which turn of the state, is worth a stop, and how often it was.

A condition that mentions the event (``ev``, ``req``, …) is asked at every event and fires at each
one it holds of. One on the state alone (``free<10``) is asked after every event too, but fires only
when it *becomes* true: at the event that made it so, and not again until it was false in between.
One that is true when it is set, or enabled, has to become false first.

Conditions see the state as it is right after the event, with nothing later in it. What to do about
a stop is up to `debugger.py`; how conditions are written is in `conditions.py`.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from .conditions import Condition, parse
from .errors import UserError
from .events import AnyEvent, StepRecord
from .state import EngineState
from .stops import Stop

RETAIN_LOGGED = 1000  # lines of log-only breakpoints; older ones are forgotten

# --- the common conditions -----------------------------------------------------------------------


def on_event(kind: str) -> Condition:
    """Any event of that kind, in snake case. Raises `UserError` if there is none."""
    return parse(f"ev == {kind!r}")


def on_request(request: int) -> Condition:
    """Any event about that request, or done for its sake.

    The tokens it decodes come in events of the whole batch and do not count; ``7 in reqs`` is true
    of those.
    """
    return parse(f"req == {request} or for_req == {request}")


def on_node(node: int) -> Condition:
    """The node is made, hit, extended, split or evicted, or gets a child."""
    return parse(f"node == {node} or upper == {node} or parent == {node}")


def on_block(block: int) -> Condition:
    """The block is allocated, shared, hit, freed or evicted.

    When a request lets go of a block that stays in the tree, its event does not name the block.
    """
    return parse(f"{block} in blocks")


# --- breakpoints and their stops -----------------------------------------------------------------


class BreakpointInfo(NamedTuple):
    """A `Breakpoint` as it is at one moment, free to be read in any thread."""

    id: int
    condition: str
    ignore: int
    log_only: bool
    temporary: bool
    enabled: bool
    hits: int
    last: Stop | None


@dataclass(slots=True, eq=False)
class Breakpoint:
    """A condition to watch for. ``hits`` counts all times it fired, the ignored ones too.

    The first ``ignore`` hits go unnoticed; ``log_only`` ones are noted and do not stop; a
    ``temporary`` one is gone after the first hit that was not ignored.
    """

    id: int
    condition: Condition
    ignore: int = 0
    log_only: bool = False
    temporary: bool = False
    enabled: bool = True
    hits: int = 0
    last: Stop | None = None  # the latest hit that was not ignored
    _held: bool | None = field(default=None, repr=False)  # the state condition's last answer

    @property
    def info(self) -> BreakpointInfo:
        return BreakpointInfo(
            self.id,
            self.condition.text,
            self.ignore,
            self.log_only,
            self.temporary,
            self.enabled,
            self.hits,
            self.last,
        )

    def arm(self, state: EngineState) -> None:
        """Learn whether a condition on the state is true already, if that is not known."""
        if self._held is None and not self.condition.needs_event:
            self._held = self.condition.holds(state)

    def disarm(self) -> None:
        self._held = None

    def fires(self, state: EngineState, event: AnyEvent) -> bool:
        holds = self.condition.holds(state, event)
        if self.condition.needs_event:
            return holds
        rises = holds and not self._held
        self._held = holds
        return rises


class Breakpoints:
    """All breakpoints of an engine, by id, and the lines of those that only log.

    ``all`` and ``logged`` may be read from any thread; the rest belongs to the engine's.
    """

    def __init__(self) -> None:
        self.all: tuple[Breakpoint, ...] = ()
        self._logged: deque[Stop] = deque(maxlen=RETAIN_LOGGED)

    @property
    def logged(self) -> tuple[Stop, ...]:
        """The hits of log-only breakpoints, oldest first."""
        return tuple(self._logged)

    def add(self, breakpoint: Breakpoint) -> None:
        self.all = (*self.all, breakpoint)

    def remove(self, id: int) -> None:
        """Raises `UserError` if there is no such breakpoint, as do `enable` and `disable`."""
        gone = self._find(id)
        self.all = tuple(b for b in self.all if b is not gone)

    def enable(self, id: int) -> None:
        self._find(id).enabled = True

    def disable(self, id: int) -> None:
        found = self._find(id)
        found.enabled = False
        found.disarm()

    def disarm(self) -> None:
        """Forget what conditions on the state were like: it is another state from now on."""
        for breakpoint in self.all:
            breakpoint.disarm()

    def clear(self) -> None:
        self.all = ()

    def _find(self, id: int) -> Breakpoint:
        for breakpoint in self.all:
            if breakpoint.id == id:
                return breakpoint
        known = ", ".join(str(b.id) for b in self.all) or "none"
        raise UserError(f"there is no breakpoint {id}; there are: {known}")

    # --- watching --------------------------------------------------------------------------------

    def check(self, record: StepRecord, state: EngineState) -> list[Stop]:
        """Carry ``state`` over ``record``; every stop on the way, in order."""
        watching = [b for b in self.all if b.enabled]
        if not watching:
            state.apply(record)
            return []
        for breakpoint in watching:
            breakpoint.arm(state)
        stops: list[Stop] = []
        for index, event in enumerate(state.unfold(record), record.first):
            stops += self._ask(watching, state, record.step, index, event)
        # How long a step took is known when its events are over: the last one stands for that.
        watching = [b for b in watching if not b.condition.needs_event]
        index = record.first + len(record.events) - 1
        return stops + self._ask(watching, state, record.step, index, record.events[-1])

    def _ask(
        self, watching: list[Breakpoint], state: EngineState, step: int, index: int, event: AnyEvent
    ) -> list[Stop]:
        """The stops at ``event``, position ``step:index``."""
        stops = []
        for breakpoint in watching:
            if breakpoint.enabled and breakpoint.fires(state, event):
                breakpoint.hits += 1
                text, hit = breakpoint.condition.text, breakpoint.hits
                if hit > breakpoint.ignore:
                    stop = Stop(breakpoint.id, text, hit, step, index, event)
                    breakpoint.last = stop
                    (self._logged if breakpoint.log_only else stops).append(stop)
                    if breakpoint.temporary:
                        self.disable(breakpoint.id)
                        self.remove(breakpoint.id)
        return stops
