"""Lints on who runs when: preemptions, steps that a prefill makes slow, budget left lying."""

from collections import deque
from statistics import median
from typing import ClassVar

import msgspec

from .. import events as ev
from ..state import EngineState
from ..wording import plural, times
from .base import Hears, Lint, milliseconds, percent

THRASH_PREEMPTIONS = 2  # of one request
THRASH_STEPS = 8  # or one this soon after an admission

STALL_FACTOR = 2.0  # a mixed step this many times as long as a step of decodes alone …
STALL_SECONDS = 1e-3  # … and longer by this much
STALL_SAMPLES = 64  # pure decode steps the median is taken of …
STALL_MIN_SAMPLES = 8  # … and how many it takes to know what is normal

UNUSED_SHARE = 0.25  # of the budget
UNUSED_STEPS = 8  # in a row


class _Victim(msgspec.Struct):
    """What became of a request so far."""

    admitted: int = 0  # step
    preemptions: int = 0
    age: int = 0  # steps from the admission to the latest preemption
    lost: int = 0  # tokens
    lost_last: int = 0  # tokens of those that the latest preemption took
    found_again: int = 0  # tokens of those that were still in the tree


class PreemptionThrash(Lint):
    """A request that is let in only to be thrown out, or thrown out again and again."""

    name = "preemption-thrash"

    def __init__(self) -> None:
        super().__init__()
        self._victims: dict[int, _Victim] = {}

    def summary(self, count: int) -> str:
        verb = "was" if count == 1 else "were"
        return f"{plural(count, 'request')} {verb} preempted repeatedly or right after admission"

    def _admitted(self, e: ev.Admitted, state: EngineState) -> None:
        victim = self._victims.setdefault(e.req, _Victim())
        victim.admitted = state.step
        if e.recompute:
            victim.found_again += min(e.cached_tokens, victim.lost_last)
            if finding := self.found.get(f"request {e.req}"):
                finding.sentence = self._sentence(e.req, victim)

    def _preempted(self, e: ev.Preempted, state: EngineState) -> None:
        victim = self._victims.setdefault(e.req, _Victim())
        victim.preemptions += 1
        victim.lost += e.lost_tokens
        victim.lost_last = e.lost_tokens
        victim.age = state.step - victim.admitted
        if victim.preemptions >= THRASH_PREEMPTIONS or victim.age <= THRASH_STEPS:
            self.warn(f"request {e.req}", self._sentence(e.req, victim), state.step, e.req)

    def _sentence(self, req: int, victim: _Victim) -> str:
        when = "" if victim.preemptions == 1 else "the last "
        again = f", {victim.found_again} of them found again in the cache"
        return (
            f"request {req} was preempted {times(victim.preemptions)}, {when}"
            f"{plural(victim.age, 'step')} after it was admitted, and lost "
            f"{plural(victim.lost, 'computed token')}{again if victim.found_again else ''}: "
            "raise --num-blocks, lower --max-running-requests, or try --admission-policy reserve"
        )

    def _finished(self, e: ev.Finished, state: EngineState) -> None:
        self._victims.pop(e.req, None)

    hears: ClassVar[Hears] = {
        ev.Admitted: _admitted,
        ev.Preempted: _preempted,
        ev.Finished: _finished,
    }


class PrefillStallsDecode(Lint):
    """A step whose prefill tokens make everybody who decodes wait much longer than usual."""

    name = "prefill-stalls-decode"

    def __init__(self) -> None:
        super().__init__()
        self._pure: deque[float] = deque(maxlen=STALL_SAMPLES)  # seconds of decode-only steps
        self._begin()

    def summary(self, count: int) -> str:
        return f"the prefill of {plural(count, 'request')} makes decodes wait"

    def _begin(self, e: ev.StepBegan | None = None, state: EngineState | None = None) -> None:
        self._decodes = self._prefill = 0
        self._largest = self._largest_req = 0

    def _scheduled(self, e: ev.Scheduled, state: EngineState) -> None:
        self._prefill += e.count
        if e.count > self._largest:
            self._largest, self._largest_req = e.count, e.req

    def _decoding(self, e: ev.Decoding, state: EngineState) -> None:
        self._decodes = len(e.reqs)

    def _failed(self, e: ev.StepFailed, state: EngineState) -> None:
        self._begin()  # its time says nothing

    def close(self, record: ev.StepRecord, state: EngineState) -> None:
        decodes, prefill, seconds = self._decodes, self._prefill, record.seconds
        if not decodes or not record.timings:
            return
        if not prefill:
            self._pure.append(seconds)
            return
        if len(self._pure) < STALL_MIN_SAMPLES:
            return
        usual = median(self._pure)
        if seconds < STALL_FACTOR * usual or seconds - usual < STALL_SECONDS:
            return
        req = self._largest_req
        self.warn(
            f"request {req}",
            f"{plural(prefill, 'prefill token')} in step {record.step}, {self._largest} of them "
            f"of request {req}, made {plural(decodes, 'decode')} wait {milliseconds(seconds)} "
            f"instead of {milliseconds(usual)}: lower --max-batch-tokens (now "
            f"{state.config.max_batch_tokens}) for smaller chunks",
            record.step,
            req,
        )

    hears: ClassVar[Hears] = {
        ev.StepBegan: _begin,
        ev.Scheduled: _scheduled,
        ev.Decoding: _decoding,
        ev.StepFailed: _failed,
    }


_UNUSED_ADVICE = {
    "no_blocks": "raise --num-blocks, or ask for shorter answers",
    "max_running": "raise --max-running-requests",
    "preempting": "raise --num-blocks: blocks are taken back as fast as they are given out",
}


class BudgetUnused(Lint):
    """Tokens of the step's budget left over, step after step, while requests wait."""

    name = "budget-unused"

    def __init__(self) -> None:
        super().__init__()
        self._streak = 0
        self._unused = 0  # tokens, over the streak
        self._why = ""
        self._begin()

    def summary(self, count: int) -> str:
        return f"budget stays unused while requests wait, for {plural(count, 'reason')}"

    def _begin(self, e: ev.StepBegan | None = None, state: EngineState | None = None) -> None:
        self._budget = self._left = e.budget if e else 0
        self._deferred: ev.Deferred | None = None

    def _scheduled(self, e: ev.Scheduled, state: EngineState) -> None:
        self._left -= e.count

    def _decoding(self, e: ev.Decoding, state: EngineState) -> None:
        self._left -= len(e.reqs)

    def _head_deferred(self, e: ev.Deferred, state: EngineState) -> None:
        self._deferred = self._deferred or e

    def close(self, record: ev.StepRecord, state: EngineState) -> None:
        if not record.timings:  # between steps
            return
        head, budget = self._deferred, self._budget
        if head is None or self._left < UNUSED_SHARE * budget:
            self._streak = self._unused = 0
            return
        if head.why != self._why:
            self._why, self._streak, self._unused = head.why, 0, 0
        self._streak += 1
        self._unused += self._left
        if self._streak % UNUSED_STEPS == 0:
            self.warn(head.why, self._sentence(head, budget), record.step, head.req)

    def _sentence(self, head: ev.Deferred, budget: int) -> str:
        whole = self._streak * budget
        numbers = ""
        if head.why == "no_blocks":
            numbers = (
                f" (request {head.req} needs {plural(head.need, 'block')}; free {head.free} + "
                f"evictable {head.evictable} - promised {head.promised})"
            )
        advice = _UNUSED_ADVICE.get(head.why, "see why the head of the queue was deferred")
        return (
            f"for {plural(self._streak, 'step')} in a row {self._unused} of {whole} budget tokens "
            f"({percent(self._unused, whole)}) stayed unused while "
            f"{plural(head.behind + 1, 'request')} waited, because of {head.why}{numbers}: "
            f"{advice}"
        )

    hears: ClassVar[Hears] = {
        ev.StepBegan: _begin,
        ev.Scheduled: _scheduled,
        ev.Decoding: _decoding,
        ev.Deferred: _head_deferred,
    }
