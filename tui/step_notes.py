"""The decisions of the latest steps in words, newest step first: what the decisions pane pages."""

from collections import deque
from dataclasses import dataclass, field

from ..engine import events as ev
from ..engine.history import History
from ..engine.state import EngineState
from .explain import Note, explain

KEEP = 300  # steps that can be scrolled back to
KEEP_BACK = 40  # the same where they have to be read from the record first


@dataclass(slots=True)
class StepNotes:
    """The decisions of one step, in order."""

    step: int
    notes: list[Note] = field(default_factory=list)


class LatestNotes:
    """The notes of the last steps that came in. ``start`` is the state before the first record."""

    def __init__(self, start: EngineState) -> None:
        self.steps: deque[StepNotes] = deque([_first(start)], maxlen=KEEP)

    def apply(self, record: ev.StepRecord, state: EngineState) -> None:
        """Take in one record."""
        _note(self.steps, record)


def notes_until(past: History, position: ev.Position) -> deque[StepNotes]:
    """The decisions of the steps up to ``position``, from the record."""
    found: deque[StepNotes] = deque(maxlen=KEEP_BACK)
    end = past.records_until(position)
    for record in past.records(max(0, end - KEEP_BACK), end):
        if not found:
            found.append(StepNotes(record.step))
        reached = position.event - record.first + 1
        if record.step == position.step and reached < len(record.events):
            record.events = record.events[:reached]
        _note(found, record)
    return found or deque([_first(past.state_at(past.start))])


def _first(start: EngineState) -> StepNotes:
    """Of the step that led to ``start``."""
    return StepNotes(start.step, [note for note in map(explain, start.notes) if note])


def _note(steps: deque[StepNotes], record: ev.StepRecord) -> None:
    """Add the decisions of ``record`` to the newest step, or to a new one."""
    if record.events and isinstance(record.events[0], ev.StepBegan):
        steps.appendleft(StepNotes(record.step))
    steps[0].notes.extend(note for note in map(explain, record.events) if note)
