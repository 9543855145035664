"""In which step each token was sampled: a request's output knows its order, not its time."""

from bisect import bisect_right
from operator import itemgetter
from typing import NamedTuple

from ..engine.events import Sampled, StepRecord
from ..engine.state import EngineState

UNSEEN = 0  # no token is sampled in step 0


class _Run(NamedTuple):
    """From output token ``first`` on there came one in every step from ``step`` on; or, if that is
    `UNSEEN`, none came that was heard of."""

    first: int
    step: int


_FIRST = itemgetter(0)


class SampledSteps:
    """A few numbers for every time that a request begins or ceases to get a token in each step, for
    the requests that the state still keeps. ``start`` is the state before the first record."""

    def __init__(self, start: EngineState) -> None:
        self._runs: dict[int, list[_Run]] = {}
        self._batch: set[int] = set()  # those that got a token last …
        self._step = start.step  # … and in which step

    def apply(self, record: StepRecord, state: EngineState) -> None:
        """Take in one record; ``state`` includes it."""
        for event in record.events:
            if isinstance(event, Sampled):
                self._follow(set(event.reqs), record.step, state)
        if len(self._runs) > 2 * len(state.requests) + 100:
            for gone in self._runs.keys() - state.requests.keys():
                del self._runs[gone]

    def _follow(self, batch: set[int], step: int, state: EngineState) -> None:
        go_on = self._batch if step == self._step + 1 else set[int]()
        for req in batch - go_on:
            self._note(req, 1, step, state)
        for req in self._batch - batch:
            self._note(req, 0, UNSEEN, state)
        self._batch, self._step = batch, step

    def _note(self, req: int, last: int, step: int, state: EngineState) -> None:
        """A run begins with the ``last`` so many tokens that ``req`` has."""
        request = state.requests.get(req)
        if request is not None:
            first = len(request.tokens) - request.prompt_len - last
            self._runs.setdefault(req, []).append(_Run(first, step))

    def step_of(self, req: int, index: int) -> int | None:
        """Of output token ``index``; None if its record never came by."""
        runs = self._runs.get(req, [])
        at = bisect_right(runs, index, key=_FIRST) - 1
        if at < 0 or runs[at].step == UNSEEN:
            return None
        step = runs[at].step + index - runs[at].first
        return step if step <= self._step else None
