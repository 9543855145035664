"""What questions are put to: the past of a run, with an index of what happened to whom."""

from ..engine import events as ev
from ..engine.chronicle import Chronicle
from ..engine.events import Position
from ..engine.history import History
from ..engine.state import EngineState


class Record:
    """The past of a run, for one question: what was found once is kept, and not to be changed."""

    def __init__(self, past: History, chronicle: Chronicle) -> None:
        self.chronicle = chronicle
        self._past = past
        self._states: dict[Position, EngineState] = {}
        self._events: dict[Position, ev.AnyEvent] = {}

    def state_at(self, position: Position) -> EngineState:
        """The state that includes the event at ``position`` and nothing later."""
        if position not in self._states:
            self._states[position] = self._past.state_at(position)
        return self._states[position]

    def state_before(self, position: Position) -> EngineState:
        """The same without the event at ``position``."""
        return self.state_at(self._past.before(position) or self._past.start)

    def state_at_step_before(self, position: Position) -> EngineState | None:
        """The state at the end of the step before that of ``position``, if there is one."""
        before = self._past.step_before(position)
        return self.state_at(before) if before else None

    def event_at(self, position: Position) -> ev.AnyEvent:
        if position not in self._events:
            event = self._past.event(position)
            assert event is not None
            self._events[position] = event
        return self._events[position]

    def refusal_of(self, request: int, here: Position) -> Position | None:
        """Where ``request`` was refused, if it was up to ``here``: right when it came."""
        for position in self.chronicle.of("request", request)[:2]:
            if position <= here and isinstance(self.event_at(position), ev.Refused):
                return position
        return None
