"""The other run: the engine's own scheduler and cache, on the answers that were recorded.

As long as its batches are those of the recording, it is led by the records: what came from outside
comes between the same two steps, and a step takes as long as it took. From the first batch that
differs on, what comes from outside comes at its time, and steps take what `costs.py` expects.
"""

from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import suppress
from itertools import takewhile
from typing import NamedTuple

from .. import events as ev
from ..engine import Engine
from ..errors import RequestRefused
from ..plan import Plan, Row, Runner, StepOutput
from ..request import FinishReason, Request, Status
from ..sampling import SamplingParams, TokenLogprobs
from ..simulate import VirtualClock
from .costs import StepLoad, load_of
from .edits import Editor
from .figures import UNKNOWN
from .reading import (
    Answer,
    Arrival,
    Happening,
    Leaving,
    Recorded,
    Reset,
    ShowProgress,
    is_step,
    running_time,
)

_NO_LOGPROBS = TokenLogprobs(0.0)


class RecordedFailure(Exception):
    """What the runner raised when the step was recorded."""


class RecordedRunner(Runner):
    """Answers with what was recorded; its ``clock`` goes on by what a step takes.

    ``step`` is the record of the step to come, as long as there is one that it may be. Of requests
    with ``edited`` prompts no log-probabilities are known.
    """

    def __init__(self, recorded: Recorded, edited: Set[int] = frozenset()) -> None:
        self.clock = VirtualClock()
        self.step: ev.StepRecord | None = None
        self.engine: Engine
        self._recorded = recorded
        self._edited = edited

    def check(self, params: SamplingParams) -> None:
        """Takes everything: the answers are there already."""

    def execute(self, plan: Plan) -> StepOutput:
        if self.step and _batch(plan.rows) != _recorded_batch(self.step):
            self.step = None
        if self.step:
            seconds = self.step.seconds
        else:
            seconds = self._recorded.pace.seconds(_load(plan.rows), self.clock.now)
        self.clock.advance(seconds)
        failed = self._as_recorded(plan, self.step) if self.step else {}
        rows = [row for row in plan.rows if row.samples]
        scores = {
            row.request.id: [_NO_LOGPROBS] * len(row.scored)
            for row in plan.rows
            if row.request.prompt_logprobs
        }
        return StepOutput(
            [self._token(row.request) for row in rows],
            self._logprobs(rows),
            timings={"forward": seconds},
            prompt_logprobs={id: found for id, found in scores.items() if found},
            failed=failed,
        )

    def _as_recorded(self, plan: Plan, step: ev.StepRecord) -> dict[int, str]:
        """Do what was done while the step ran: who left, who failed, and whether all of it did."""
        if isinstance(failure := step.events[-1], ev.StepFailed):
            self._leave(e for e in step.events if isinstance(e, ev.Finished))
            raise RecordedFailure(failure.error)
        before = takewhile(lambda e: not isinstance(e, ev.Sampled), step.events)
        ended = [e for e in before if isinstance(e, ev.Finished)]
        self._leave(ended)
        here = {row.request.id for row in plan.rows}
        return {e.req: e.message for e in ended if e.reason == FinishReason.ERROR and e.req in here}

    def _leave(self, ended: Iterable[ev.Finished]) -> None:
        for event in ended:
            if event.reason == FinishReason.ABORT:
                self.engine.abort(event.req)
            elif event.reason == FinishReason.STOP:
                self.engine.stop(event.req)

    def _logprobs(self, rows: Sequence[Row]) -> Sequence[TokenLogprobs | None]:
        answers = self._recorded.answers
        found = [
            answers[r.id].logprobs_of(len(r.tokens) - r.prompt_len)
            if r.params.logprobs is not None and r.id not in self._edited
            else None
            for r in (row.request for row in rows)
        ]
        return found if any(found) else ()

    def _token(self, request: Request) -> int:
        answer = self._recorded.answers[request.id]
        known = answer.tokens
        at = len(request.tokens) - request.prompt_len
        if at < len(known):
            if answer.ends and at == len(known) - 1:
                request.ends |= {known[at]}
            return known[at]
        if self.step is None:
            end_as_recorded(self.engine, request.id, self._recorded.answers[request.id])
        return 0  # is dropped with its request


class Batch(NamedTuple):
    """Who decodes, and the chunks of prefill: ``(request, start, count)``."""

    decodes: list[int]
    chunks: list[tuple[int, int, int]]


def _batch(rows: Sequence[Row]) -> Batch:
    decodes: list[int] = []
    chunks: list[tuple[int, int, int]] = []
    for row in rows:
        if row.request.status is Status.DECODING:
            decodes.append(row.request.id)
        else:
            chunks.append((row.request.id, row.start, row.count))
    return Batch(decodes, chunks)


def _recorded_batch(step: ev.StepRecord) -> Batch:
    decodes: list[int] = []
    chunks: list[tuple[int, int, int]] = []
    for event in step.events:
        if isinstance(event, ev.Decoding):
            decodes = event.reqs
        elif isinstance(event, ev.Scheduled):
            chunks.append((event.req, event.start, event.count))
    return Batch(decodes, chunks)


def _load(rows: Sequence[Row]) -> StepLoad:
    decoding = Status.DECODING
    return load_of(
        [(row.start, row.count) for row in rows if row.request.status is not decoding],
        [row.start for row in rows if row.request.status is decoding],
    )


class Replay:
    """Runs ``engine``, which stands where ``recorded`` begins, to the end of what is known.

    ``diverged`` is the step whose batch is the first to differ; None if none is.
    """

    def __init__(
        self, recorded: Recorded, engine: Engine, runner: RecordedRunner, editor: Editor
    ) -> None:
        self.diverged: int | None = None
        self._recorded = recorded
        self._engine = engine
        self._runner = runner
        self._editor = editor
        self._to_come = recorded.happenings[::-1]
        self._left = sum(len(answer.tokens) for answer in recorded.answers.values())
        self._left -= sum(len(request.output) for request in engine.requests.values())
        self._all = max(1, self._left)

    def run(self, progress: ShowProgress) -> None:
        """To the end. ``progress`` may raise to put an end to it."""
        for _ in self._steps():
            progress("running the fork", 1 - self._left / self._all)

    def _steps(self) -> Iterator[None]:
        yield from self._led()
        if self.diverged is not None:
            yield from self._alone()

    def _led(self) -> Iterator[None]:
        """By the records, to the first batch that differs."""
        recorded, engine, runner = self._recorded, self._engine, self._runner
        records = running_time(recorded.history, recorded.records, recorded.end)
        for number, record in enumerate(records, start=recorded.records):
            runner.clock.now = record.t
            if not is_step(record.events):
                for happening in self._of_record(number):
                    self._let_happen(happening)
                continue
            due = list(self._of_record(number))
            for happening in due:
                if isinstance(happening, Leaving) and happening.timed_out:
                    engine.expire(happening.req, recorded.answers[happening.req].timeout or 0.0)
            runner.step = record
            plan = engine.step()
            self._count(plan)
            if not (plan and plan.rows) and any(_recorded_batch(record)):
                runner.step = None
            if runner.step is None:
                self.diverged = engine.step_count
                self._to_come += reversed(due)
                return
            for happening in due:
                if isinstance(happening, Arrival):
                    self._let_happen(happening)
            yield

    def _alone(self) -> Iterator[None]:
        """By the clock, until nothing is alive or to come.

        A client that stops an answer does so when it has seen so much of it, and time limits are
        the engine's: neither has to be seen to.
        """
        self._to_come = [
            h
            for h in self._to_come
            if not isinstance(h, Leaving) or (h.reason is FinishReason.ABORT and not h.timed_out)
        ]
        engine, clock = self._engine, self._runner.clock
        while engine.has_work() or self._to_come:
            while self._to_come and self._to_come[-1].t <= clock.now:
                self._let_happen(self._to_come.pop())
            if engine.has_work():
                plan = engine.step()
                self._count(plan)
                self._end_known(plan)
                clock.advance(self._recorded.lag)
            elif self._to_come:
                clock.now = self._to_come[-1].t
            yield

    def _of_record(self, number: int) -> Iterator[Happening]:
        while self._to_come and self._to_come[-1].record <= number:
            yield self._to_come.pop()

    def _let_happen(self, happening: Happening) -> None:
        engine = self._engine
        if isinstance(happening, Arrival):
            with suppress(RequestRefused):  # and there is an event that says so
                engine.submit_samples(
                    self._editor.edit(happening.prompt, happening.requests),
                    happening.params,
                    happening.n,
                    priority=happening.priority,
                    salt=happening.salt,
                    timeout=happening.timeout,
                    name=happening.name,
                )
        elif isinstance(happening, Reset):
            engine.reset_prefix_cache()
        elif happening.reason is FinishReason.STOP:
            engine.stop(happening.req)
        else:
            engine.abort(happening.req)

    def _count(self, plan: Plan | None) -> None:
        if plan:
            self._left -= sum(row.samples for row in plan.rows)

    def _end_known(self, plan: Plan | None) -> None:
        """End the requests whose last known token the step has given."""
        for row in plan.rows if plan else ():
            request = row.request
            if row.samples and not request.finished:
                answer = self._recorded.answers[request.id]
                if len(request.tokens) - request.prompt_len >= len(answer.tokens):
                    end_as_recorded(self._engine, request.id, answer)


def end_as_recorded(engine: Engine, request: int, answer: Answer) -> None:
    """End a request of which no further token is known."""
    if answer.reason == FinishReason.STOP:
        engine.stop(request)
    else:
        engine.abort(request, "" if answer.reason == FinishReason.ABORT else UNKNOWN)
