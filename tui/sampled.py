"""In which step each token was sampled: a request's output knows its order, not its time."""

from array import array

from ..engine.events import Sampled, StepRecord
from ..engine.state import EngineState

UNSEEN = 0  # no token is sampled in step 0


class SampledSteps:
    """Four bytes a token, for the requests that the state still keeps. ``start`` is the state
    before the first record."""

    def __init__(self, start: EngineState) -> None:
        known = ((r.id, len(r.tokens) - r.prompt_len) for r in start.requests.values())
        self._steps = {id: array("I", [UNSEEN]) * count for id, count in known if count}

    def apply(self, record: StepRecord, state: EngineState) -> None:
        """Take in one record; ``state`` includes it."""
        for event in record.events:
            if isinstance(event, Sampled):
                for req in event.reqs:
                    self._steps.setdefault(req, array("I")).append(record.step)
        if len(self._steps) > 2 * len(state.requests) + 100:
            for gone in self._steps.keys() - state.requests.keys():
                del self._steps[gone]

    def step_of(self, req: int, index: int) -> int | None:
        """Of output token ``index``; None if its record never came by."""
        steps = self._steps.get(req)
        step = steps[index] if steps and index < len(steps) else UNSEEN
        return None if step == UNSEEN else step
