"""In which step each token was sampled: a request's output knows its order, not its time."""

from array import array

from ..engine.events import Sampled, StepRecord
from ..engine.state import EngineState


class SampledSteps:
    """Four bytes a token, for the requests that the state still keeps."""

    def __init__(self) -> None:
        self._steps: dict[int, array[int]] = {}

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
        return steps[index] if steps and index < len(steps) else None
