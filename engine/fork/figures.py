"""What a stretch of a run came to, in numbers that can be set beside those of another.

`Figures` counts from a state on, in exact times: `stats.py` counts a whole run, in histograms. What
was alive at the start is counted from there, but its times begin when it was submitted.
"""

from array import array
from collections.abc import Iterable
from copy import copy
from typing import NamedTuple

import msgspec

from .. import events as ev
from ..state import EngineState
from ..stats import Statistics, percentile

ANSWERED, FAILED = "answered to the end", "failed or refused"
UNKNOWN = "the recording knows no more of its answer"  # why a fork ends a request


class RequestFigures(msgspec.Struct, gc=False):
    """One request. Seconds from its submission; None for what has not come in this stretch."""

    id: int
    prompt: int
    submitted_at: float
    name: str = ""
    queue: float | None = None  # to its first admission
    ttft: float | None = None
    e2e: float | None = None  # to its end
    outputs: int = 0  # tokens, those before the stretch too
    cached: int | None = None  # tokens of the prompt, found at first admission
    preemptions: int = 0
    reason: str = ""
    message: str = ""


class Figure(NamedTuple):
    """``value`` is None where there are no samples. ``better`` is -1 where less is better, 1 where
    more is, 0 where it depends. ``unit`` is ``s``, ``%`` (value: 0 to 1) or nothing."""

    name: str
    value: float | None
    unit: str = ""
    better: int = 0


class Figures:
    """Counts the records after ``state``; `all` are the sums, ``requests`` each of them.

    >>> figures = Figures(history.state_after(0))
    >>> figures.add_all(history.records())
    >>> [(f.name, f.value) for f in figures.all()]
    """

    def __init__(self, state: EngineState) -> None:
        self.requests: dict[int, RequestFigures] = {}
        self.itl: array[float] = array("d")
        self.began: float | None = None
        self.now = 0.0
        self._stats = Statistics(state.config.num_blocks, state.config.block_size)
        self._stats.live = {id: copy(live) for id, live in state.stats.live.items()}
        for id in (*state.waiting, *state.running):
            seen = state.requests[id]
            self.requests[id] = RequestFigures(
                id, seen.prompt_len, seen.submitted_at, seen.name, outputs=len(seen.output)
            )

    def add_all(self, records: Iterable[ev.StepRecord]) -> None:
        for record in records:
            self.add(record)

    def add(self, record: ev.StepRecord) -> None:
        """Take in one record."""
        now = self.now = record.t + record.seconds
        if self.began is None:
            self.began = record.t
        stats, requests = self._stats, self.requests
        stats.begin(record)
        for event in record.events:
            if isinstance(event, ev.Sampled):
                self._sampled(event, now)
            elif isinstance(event, ev.Submitted):
                requests[event.req] = RequestFigures(
                    event.req, len(event.prompt), record.t, event.name
                )
            elif isinstance(event, ev.Admitted) and not event.recompute:
                request = requests[event.req]
                request.queue = record.t - request.submitted_at
                request.cached = event.cached_tokens
            elif isinstance(event, ev.Preempted):
                requests[event.req].preemptions += 1
            elif isinstance(event, ev.Finished):
                request = requests[event.req]
                request.e2e = now - request.submitted_at
                request.reason, request.message = event.reason, event.message
            stats.take(event)
        stats.end(record, 0, 0)

    def _sampled(self, event: ev.Sampled, now: float) -> None:
        live = self._stats.live
        for req in event.reqs:
            request = self.requests[req]
            if request.outputs:
                before = live.get(req)
                if before is not None:
                    self.itl.append(now - before.last_at)
            else:
                request.ttft = now - request.submitted_at
            request.outputs += 1

    @property
    def seconds(self) -> float:
        return 0.0 if self.began is None else self.now - self.began

    def all(self) -> list[Figure]:
        """Every figure, always in the same order."""
        stats, ended = self._stats, self._stats.finished
        answered = ended.get("stop", 0) + ended.get("length", 0)
        cut = sum(r.message == UNKNOWN for r in self.requests.values())
        live = sum(not r.reason for r in self.requests.values())
        figures = [
            Figure(ANSWERED, answered, "", 1),
            Figure("aborted", ended.get("abort", 0) - cut),
            Figure(FAILED, ended.get("error", 0) + stats.refused, "", -1),
            Figure("not answered to the end", live + cut),
            Figure("steps", stats.steps),
            Figure("time", self.seconds, "s", -1),
            Figure("tokens sampled", stats.sampled_tokens),
            Figure("prefill tokens computed", stats.prefill_tokens, "", -1),
            Figure("prompt tokens cached", stats.hit_rate if stats.prompt_tokens else None, "%", 1),
            Figure("cached again after preemption", stats.rehit_tokens),
            Figure("preemptions", stats.preemptions, "", -1),
            Figure("blocks evicted", stats.evicted.get("capacity", 0), "", -1),
        ]
        for name, samples in (
            ("queue", [r.queue for r in self.requests.values() if r.queue is not None]),
            ("TTFT", [r.ttft for r in self.requests.values() if r.ttft is not None]),
            ("ITL", self.itl),
        ):
            for q in (50, 99):
                figures.append(Figure(f"{name} p{q}", percentile(samples, q / 100), "s", -1))
        return figures
