"""What a recording knows of the requests of a run: when they came, what was answered, how they
ended, and what its steps took. That is all a fork needs in place of a model and of clients.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from statistics import median

import msgspec

from .. import events as ev
from ..errors import UserError
from ..history import History
from ..request import TIMED_OUT, FinishReason
from ..sampling import SamplingParams, TokenLogprobs
from ..state import EngineState
from .costs import FREE, Pace, StepCosts, StepLoad, fit, load_of
from .figures import Figures

PAUSE = 0.02  # seconds between two records, with work at hand, in which nobody stepped the engine
ENOUGH = 512  # steps that costs are learnt from; earlier ones are taken as well if there are fewer

ShowProgress = Callable[[str, float | None], object]


class Answer(msgspec.Struct):
    """What is known of a request's output, and how it ended: ``""`` if it never did. Its last token
    ``ends`` it if the engine saw to that, which it may have no other way to know: numbers stand for
    the tokens of a redacted run.

    ``logprobs`` are those of the last tokens, if they were recorded, packed by `add`.
    """

    tokens: list[int]
    timeout: float | None
    reason: str = ""
    ends: bool = False
    logprobs: list[bytes] = []

    def add(self, token: int, logprobs: TokenLogprobs | None) -> None:
        self.tokens.append(token)
        if logprobs is not None:
            self.logprobs.append(_pack(logprobs))

    def logprobs_of(self, number: int) -> TokenLogprobs | None:
        """Of token ``number``; None if they were not recorded."""
        at = number - len(self.tokens) + len(self.logprobs)
        return _unpack(self.logprobs[at]) if 0 <= at < len(self.logprobs) else None


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(TokenLogprobs).decode


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """``n`` samples of ``prompt`` were submitted; ``record`` is the number of their record."""

    record: int
    t: float
    req: int
    prompt: list[int]
    params: SamplingParams
    n: int
    priority: int
    salt: str
    timeout: float | None
    name: str

    @property
    def requests(self) -> range:
        """The ids of the samples."""
        return range(self.req, self.req + self.n)


class Leaving(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody ended ``req`` with ``reason``; the engine itself did, if ``timed_out``."""

    record: int
    t: float
    req: int
    reason: FinishReason
    timed_out: bool = False


class Reset(msgspec.Struct, frozen=True, kw_only=True):
    """The prefix cache was emptied."""

    record: int
    t: float


Happening = Arrival | Leaving | Reset


@dataclass
class Recorded:
    """A run from the end of its first ``records`` records to that of ``end``: all that a fork has
    to know of it.

    ``state`` is the picture there, not to be changed. ``happenings`` came from outside, in order;
    their times leave out ``paused`` seconds in which there was work and nobody stepped the engine.
    ``lag`` is what passes between two steps.
    """

    history: History
    records: int
    end: int
    state: EngineState
    answers: dict[int, Answer] = field(default_factory=dict)
    happenings: list[Happening] = field(default_factory=list)
    costs: StepCosts = FREE
    pace: Pace = field(init=False)
    lag: float = 0.0
    paused: float = 0.0
    figures: Figures = field(init=False)  # of what was recorded
    ratio: float = 0.0  # of the admission policy, in the first step

    def __post_init__(self) -> None:
        self.figures = Figures(self.state)

    @property
    def at(self) -> ev.Position:
        return self.history.position_after(self.records)

    @property
    def open(self) -> int:
        """Requests that were alive at the end of the recording."""
        return sum(not answer.reason for answer in self.answers.values())


def read(history: History, at: ev.Position, progress: ShowProgress) -> Recorded:
    """Everything from ``at`` on; from the end of the record before, if ``at`` is within one.

    Raises `UserError` where nothing comes after it that could run.
    """
    records = history.records_until(at)
    if not history.ends_record(at):
        records -= 1
    end = len(history)  # of a live run, now
    found = Recorded(history, records, end, history.state_after(records))
    costs = _Costs(history, records)
    for request in found.state.requests.values():
        if request.live:
            found.answers[request.id] = Answer(request.output, request.timeout)
    for number, record in enumerate(running_time(history, records, end, found), start=records):
        try:
            _take(record, number, found)
            costs.add(record)
            found.figures.add(record)
        except (LookupError, ValueError) as error:
            raise UserError(
                f"the recording contradicts itself at {record.position(0)} "
                f"({type(error).__name__}: {error}), so it cannot be run again"
            ) from error
        if number % 256 == 0:
            progress("reading the recording", (number - records) / max(1, end - records))
    if not costs.steps:
        raise UserError(f"no step comes after {found.at}: choose an earlier position")
    found.costs, found.lag = costs.learn(), costs.lag
    found.pace = Pace(found.costs, (s for s in costs.samples if s[0] >= found.state.now))
    return found


def running_time(
    history: History, first: int, end: int, found: Recorded | None = None
) -> Iterator[ev.StepRecord]:
    """The records from ``first`` on with the pauses taken out of their times, which ``found`` is
    told of. A pause is time in which requests were alive and no step was taken."""
    state = history.state_after(first)
    live = len(state.waiting) + len(state.running)
    last, paused = state.now, 0.0
    for record in history.records(first, end):
        gap = record.t - last
        if live and gap > PAUSE:
            paused += gap
        last = record.t + record.seconds
        for event in record.events:
            if isinstance(event, ev.Submitted):
                live += 1
            elif isinstance(event, ev.Finished):
                live -= 1
        record.t -= paused
        if found:
            found.paused = paused
        yield record


# --- what happened, and what was answered --------------------------------------------------------


def _take(record: ev.StepRecord, number: int, found: Recorded) -> None:
    """Note what came from outside, and the answers."""
    answers, events = found.answers, record.events
    stepped = is_step(events)
    if stepped and isinstance(first := events[0], ev.StepBegan) and not found.ratio:
        found.ratio = first.ratio
    ended_by_engine = False  # from the sampling on
    for index, event in enumerate(events):
        if isinstance(event, ev.Submitted):
            answers[event.req] = Answer([], event.timeout)
            if event.group in (event.req, -1):
                found.happenings.append(_arrival(events, index, number, record.t))
        elif isinstance(event, ev.Sampled):
            ended_by_engine = True
            logprobs = event.logprobs or repeat(None, len(event.reqs))
            for req, token, scores in zip(event.reqs, event.tokens, logprobs, strict=True):
                answers[req].add(token, scores)
        elif isinstance(event, ev.Finished):
            answer = answers[event.req]
            answer.reason = event.reason
            answer.ends = ended_by_engine and event.reason == FinishReason.STOP
            timed_out = event.message.startswith(TIMED_OUT)
            left = event.reason in (FinishReason.ABORT, FinishReason.STOP)
            if left and not (stepped and ended_by_engine):
                found.happenings.append(
                    Leaving(
                        record=number,
                        t=record.t + record.seconds,
                        req=event.req,
                        reason=FinishReason(event.reason),
                        timed_out=timed_out,
                    )
                )
        elif isinstance(event, ev.Evicted) and event.why == "reset":
            last = found.happenings[-1] if found.happenings else None
            if not (isinstance(last, Reset) and last.record == number):
                found.happenings.append(Reset(record=number, t=record.t))


def is_step(events: Sequence[ev.AnyEvent]) -> bool:
    return bool(events) and isinstance(events[0], ev.StepBegan)


def _arrival(events: Sequence[ev.AnyEvent], index: int, number: int, t: float) -> Arrival:
    first = events[index]
    assert isinstance(first, ev.Submitted)
    if not first.prompt:
        raise UserError(
            "the recording holds no prompts (it was made with them left out), so nothing can be "
            "run again"
        )
    n = sum(isinstance(e, ev.Submitted) and e.group == first.req for e in events[index:])
    return Arrival(
        record=number,
        t=t,
        req=first.req,
        prompt=first.prompt,
        params=first.params,
        n=max(1, n),
        priority=first.priority,
        salt=first.salt,
        timeout=first.timeout,
        name=first.name,
    )


# --- what steps took -----------------------------------------------------------------------------


class StepRows:
    """Follows how much of each request is computed, to tell what a recorded step had to do."""

    def __init__(self, state: EngineState) -> None:
        self._computed = {id: r.computed for id, r in state.requests.items() if r.live}

    def add(self, record: ev.StepRecord) -> StepLoad:
        """Take in a record; gives the load of its step."""
        computed = self._computed
        chunks: list[tuple[int, int]] = []
        decodes: list[int] = []
        for event in record.events:
            if isinstance(event, ev.Decoding):
                for req in event.reqs:
                    decodes.append(computed[req])
                    computed[req] += 1
            elif isinstance(event, ev.Scheduled):
                chunks.append((event.start, event.count))
                computed[event.req] = event.start + event.count
            elif isinstance(event, ev.Finished):
                computed.pop(event.req, None)
        return load_of(chunks, decodes)


class _Costs:
    """Loads and seconds of the recorded steps, and of some before them if those are few."""

    def __init__(self, history: History, records: int) -> None:
        self.steps = 0  # after the fork
        self._gaps: list[float] = []
        self.samples: list[tuple[float, StepLoad, float]] = []  # start, load, seconds
        self._ended = -1.0  # the last step, if another may follow at once
        first = max(0, records - max(0, ENOUGH - (len(history) - records)))
        self._rows = StepRows(history.state_after(first))
        for record in history.records(first, records):
            self._sample(record)
        self._rows = StepRows(history.state_after(records))

    def add(self, record: ev.StepRecord) -> None:
        self.steps += is_step(record.events)
        self._sample(record)

    def _sample(self, record: ev.StepRecord) -> None:
        load = self._rows.add(record)
        if not is_step(record.events):
            return
        failed = isinstance(record.events[-1], ev.StepFailed)
        if any(load) and not failed and record.seconds > 0:
            self.samples.append((record.t, load, record.seconds))
        gap = record.t - self._ended
        if self._ended >= 0 and 0 <= gap <= PAUSE:
            self._gaps.append(gap)
        self._ended = record.t + record.seconds

    def learn(self) -> StepCosts:
        if not self.samples:
            raise UserError("no step of the recording has a time, so none can be estimated")
        return fit([(load, seconds) for _, load, seconds in self.samples])

    @property
    def lag(self) -> float:
        return median(self._gaps) if self._gaps else 0.0
