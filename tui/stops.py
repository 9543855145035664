"""Where the engine stopped and why, and the breakpoints that are set, as the screens know them."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from ..engine.breakpoints import BreakpointInfo
from ..engine.conditions import parse
from ..engine.state import EngineState
from ..engine.stops import Stop, Stopped, StopReason
from .explain import Note, explain
from .sources.base import BreakpointsChanged

RETAIN = 1000  # steps whose stops and hits are remembered
GLYPH, LOGGED = "◉", "◌"
STOPPED, NOTED, REACHED = "stopped", "noted", "came true"


class Hit(NamedTuple):
    """A breakpoint that fired; ``verb`` says what it did there."""

    stop: Stop
    verb: str

    @property
    def logged(self) -> bool:
        """It only took note of that."""
        return self.verb == NOTED

    @property
    def note(self) -> Note:
        """It as a line of the why pane."""
        stop = self.stop
        cause = explain(stop.event)
        where = f"{stop.position}: {cause.sentence}" if cause else f"{stop.what}."
        who = "The condition run to" if self.verb == REACHED else f"Breakpoint {stop.breakpoint}"
        text = f"{who} ({stop.condition}) {self.verb} at {where}"
        glyph, style = (LOGGED, "dim") if self.logged else (GLYPH, "bad")
        return Note(glyph, style, text, getattr(stop.event, "req", -1))


class Stops:
    """``latest`` is the last stop, ``breakpoints`` are those set now, the one run to included."""

    def __init__(self) -> None:
        self.breakpoints: tuple[BreakpointInfo, ...] = ()
        self.latest: Stopped | None = None
        self._steps: OrderedDict[int, Stopped] = OrderedDict()
        self._hits: OrderedDict[int, list[Hit]] = OrderedDict()
        self.fired = 0  # breakpoints, in all

    def take(self, message: Stopped | BreakpointsChanged) -> None:
        if isinstance(message, BreakpointsChanged):
            self.breakpoints = message.all
            self._add(Hit(stop, NOTED) for stop in message.logged)
            return
        self.latest = self._steps[message.step] = message
        if len(self._steps) > RETAIN:
            self._steps.popitem(last=False)
        reached = message.reason is StopReason.UNTIL
        for number, stop in enumerate(message.hits):
            self._add([Hit(stop, REACHED if reached and not number else STOPPED)])

    def _add(self, hits: Iterable[Hit]) -> None:
        for hit in hits:
            self.fired += 1
            self._hits.setdefault(hit.stop.step, []).append(hit)
        while len(self._hits) > RETAIN:
            self._hits.popitem(last=False)

    def hits(self, step: int) -> list[Hit]:
        """What fired in ``step``."""
        return self._hits.get(step, [])

    def why(self, state: EngineState) -> str:
        """Why it stopped after the step that ``state`` is the end of, in a line, if somebody wanted
        to know: empty for a step or a pause that was asked for by key."""
        stop = self._steps.get(state.step)
        if stop is None or not (stop.hits or stop.until):
            return ""
        first = stop.hits[0] if stop.hits else None
        if first is None:
            return stop.text
        reached = stop.reason is StopReason.UNTIL
        whose = stop.until if reached else f"breakpoint {first.breakpoint}: {first.condition}"
        more = f" (and {len(stop.hits) - 1} more)" if len(stop.hits) > 1 else ""
        if _passed(first, state):
            gone = f"at {first.what}, but no longer (:goto {first.position})"
            return f"{gone} · {whose}{more}"
        return stop.text if reached else f"{whose} · at {first.what}{more}"

    def before(self, step: int) -> int:
        """The step of the latest stop before ``step``; 0, the start, if there was none."""
        return next((s for s in reversed(self._steps) if s < step), 0)


def _passed(stop: Stop, state: EngineState) -> bool:
    """Whether what ``stop`` is about was so within the step, and is not at its end, which is where
    the engine stands."""
    condition = parse(stop.condition)
    return not condition.needs_event and not condition.holds(state)
