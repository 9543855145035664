"""What a lint is, and the findings it leaves.

A lint is one small class that knows one way in which a run can go badly. It hears the events it
names, and for each entity it concerns leaves one `Finding`: a sentence with the numbers that says
what happened, what it cost and what to try. Found again, a finding is raised, not repeated.

The idea is tokio-console's `Warn` (check, format, summary), here over an event stream.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import msgspec

from ..events import StepRecord
from ..state import EngineState

Hears = dict[type, Callable[[Any, Any, EngineState], None]]  # kind of event → lint's method

MAX_FINDINGS = 100  # kept for each lint; the one not raised for longest makes room


class Finding(msgspec.Struct):
    """``sentence`` is about the latest time, in step ``step``; ``count`` says how often so far.

    ``entity`` is what it is about: ``request 7``, or a thing there is one of (``engine``). ``req``
    is the request that was hit the latest time, -1 if it was none in particular.
    """

    lint: str
    entity: str
    sentence: str
    step: int
    count: int = 1
    req: int = -1


class Lint:
    """Base of the lints. ``hears`` maps kinds of events to methods ``(lint, event, state)``; the
    state is that after the whole record. Then `close` is called, once a record."""

    name: ClassVar[str]
    hears: ClassVar[Hears] = {}

    def __init__(self) -> None:
        self.found: dict[str, Finding] = {}  # by entity, the latest raised last
        self.entities = 0  # how many ever had a finding

    def close(self, record: StepRecord, state: EngineState) -> None:
        """All events of ``record`` were heard."""

    def summary(self, count: int) -> str:
        """One line for ``count`` entities with a finding."""
        raise NotImplementedError

    def warn(self, entity: str, sentence: str, step: int, req: int = -1) -> None:
        """Leave a finding, or raise the one there is."""
        finding = self.found.pop(entity, None)
        if finding is None:
            self.entities += 1
            finding = Finding(self.name, entity, sentence, step, req=req)
            if len(self.found) >= MAX_FINDINGS:
                del self.found[next(iter(self.found))]
        else:
            finding.sentence, finding.step, finding.req = sentence, step, req
            finding.count += 1
        self.found[entity] = finding


def percent(part: float, whole: float) -> str:
    return f"{part / whole:.0%}"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"
