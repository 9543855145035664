"""`Engine.step()`: schedule → execute → commit, and what happens when one of them fails.

The engine is synchronous and owned by one thread; whoever has several (a screen, a server) hands it
work between steps. Text, models and devices are not its business: it deals in token ids and a
`Runner`.
"""

import time
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from math import inf

from .cache import PrefixCache
from .config import LARGEST, EngineConfig
from .errors import RequestRefused
from .events import (
    EventLog,
    Finished,
    Position,
    Refused,
    Sampled,
    StepBegan,
    StepFailed,
    Submitted,
)
from .interrupts import Interrupts
from .plan import Plan, Row, Runner, StepOutput
from .policies import make_policies
from .request import TIMED_OUT, FinishReason, Request, Status
from .sampling import SamplingParams
from .scheduler import Scheduler
from .state import EngineState

Clock = Callable[[], float]


class Engine:
    """An inference engine over any `Runner`.

    >>> engine = Engine(EngineConfig(), runner)
    >>> request = engine.submit([1, 2, 3], SamplingParams(max_tokens=8))
    >>> while engine.has_work():
    ...     engine.step()
    >>> request.output, request.finish_reason
    """

    def __init__(
        self, config: EngineConfig, runner: Runner, clock: Clock = time.perf_counter
    ) -> None:
        self.config = config
        self.runner = runner
        self.clock = clock
        self.log = EventLog()
        policies = make_policies(config)
        self.cache = PrefixCache(config, policies.eviction, self.log)
        self.scheduler = Scheduler(config, self.cache, policies, self.log)
        self.requests: dict[int, Request] = {}  # the live ones
        self.step_count = 0
        self._next_id = 0
        self._eos = frozenset(config.eos_token_ids)
        self._deadlines: list[tuple[float, int, float]] = []  # (when, request, timeout), a heap
        self._interrupts = Interrupts()
        self._in_step = False
        # Those that were ended, and why, while their step was being executed.
        self._aborted: dict[int, tuple[FinishReason, str]] = {}

    @classmethod
    def resume(
        cls, state: EngineState, runner: Runner, clock: Clock, after: Position, next_id: int = 0
    ) -> "Engine":
        """One that goes on from ``state``, the picture of an engine after the event at ``after``.

        The KV in ``state`` has to be in the runner's blocks. New requests are numbered from
        ``next_id`` on, or as ``state`` suggests. The picture does not tell in which order blocks
        are free, nor what a policy remembers; that begins anew.
        """
        engine = cls(state.config, runner, clock)
        engine.step_count = state.step
        engine.log.go_on_after(after)
        engine.cache.adopt(state)
        for seen in state.requests.values():
            if seen.live:
                request = seen.request()
                engine._set_limits(request)
                engine.requests[request.id] = request
                if seen.timeout is not None:
                    when = seen.submitted_at + seen.timeout
                    heappush(engine._deadlines, (when, request.id, seen.timeout))
        engine.scheduler.waiting.extend(engine.requests[id] for id in state.waiting)
        engine.scheduler.running.extend(engine.requests[id] for id in state.running)
        engine._next_id = next_id or max(state.requests, default=-1) + 1
        return engine

    # --- requests --------------------------------------------------------------------------------

    def submit(
        self,
        prompt: list[int],
        params: SamplingParams | None = None,
        *,
        priority: int = 0,
        salt: str = "",
        timeout: float | None = None,
        name: str = "",
    ) -> Request:
        """Queue a prompt. Raises `RequestRefused`, with the numbers, if it can never run.

        ``priority``: the lower, the sooner (for policies that look at it). ``salt``: prefixes are
        shared only among requests with the same one. ``timeout``: seconds until it is aborted.
        ``name``: what the caller calls it; told to whoever watches, and of no effect.
        """
        return self.submit_samples(
            prompt, params, 1, priority=priority, salt=salt, timeout=timeout, name=name
        )[0]

    def submit_samples(
        self,
        prompt: list[int],
        params: SamplingParams | None = None,
        n: int = 1,
        *,
        priority: int = 0,
        salt: str = "",
        timeout: float | None = None,
        name: str = "",
    ) -> list[Request]:
        """Queue ``n`` samples of one prompt. They share the prompt's full blocks, and each has a
        seed of its own. Refusal as in `submit`, of all together."""
        params = params or SamplingParams()
        self._check_ids(prompt, params)
        self.runner.check(params)
        _check_options(n, priority, salt, timeout, name)
        group = self._next_id
        requests: list[Request] = []
        for i in range(n):
            request = Request(group + i, list(prompt), params.sample(i), priority, salt, group)
            self._set_limits(request)
            requests.append(request)
            if self.log.on:
                self.log.add(
                    Submitted(
                        request.id,
                        list(prompt),
                        request.params,
                        priority,
                        salt,
                        group,
                        timeout,
                        name,
                    )
                )
        self._next_id += n
        refusal = self._refusal(group, len(prompt))
        if refusal:
            self._refuse(requests, refusal)
        for request in requests:
            self.requests[request.id] = request
            self.scheduler.submit(request)
            if timeout is not None:
                self._set_deadline(request, timeout)
        self._close_record()
        return requests

    def _set_limits(self, request: Request) -> None:
        """Say when ``request`` ends."""
        request.max_len = min(request.max_len, self.config.max_model_len)
        request.ends = frozenset(request.params.stop_token_ids)
        if not request.params.ignore_eos or request.params.grammar:
            request.ends |= self._eos

    def check(self, prompt: list[int], params: SamplingParams | None = None) -> None:
        """Raise what `submit` would raise for ``prompt``, without queueing anything."""
        params = params or SamplingParams()
        self._check_ids(prompt, params)
        self.runner.check(params)
        refusal = self._refusal(0, len(prompt))
        if refusal:
            raise RequestRefused(_explain(refusal))

    def _check_ids(self, prompt: list[int], params: SamplingParams) -> None:
        if not prompt:
            raise RequestRefused("the prompt is empty; it needs at least one token")
        wrong = [token for token in prompt if type(token) is not int]
        if wrong:
            raise RequestRefused(
                f"token id {wrong[0]!r} is a {type(wrong[0]).__name__}, not an int"
            )
        last = self.config.vocab_size - 1 if self.config.vocab_size else LARGEST
        for ids, what in ((prompt, "token id"), (params.logit_bias, "logit_bias: token id")):
            if ids and (min(ids) < 0 or max(ids) > last):
                bad = next(token for token in ids if not 0 <= token <= last)
                raise RequestRefused(
                    f"{what} {bad} is not in the model's vocabulary; ids run from 0 to {last}"
                )

    def _refusal(self, request_id: int, prompt_len: int) -> Refused | None:
        config = self.config
        if prompt_len >= config.max_model_len:
            limit = config.max_model_len - 1
            return Refused(request_id, "prompt_exceeds_context", prompt_len, limit)
        if prompt_len > config.capacity:
            return Refused(request_id, "prompt_exceeds_pool", prompt_len, config.capacity)
        return None

    def _refuse(self, requests: Sequence[Request], refusal: Refused) -> None:
        message = _explain(refusal)
        if self.log.on:
            for request in requests:
                self.log.add(Refused(request.id, refusal.why, refusal.need, refusal.limit))
                self.log.add(Finished(request.id, FinishReason.ERROR.value, message))
        self._close_record()
        raise RequestRefused(message)

    def abort(self, request_id: int, message: str = "") -> bool:
        """End a request, and say why; false if it is unknown or has ended already.

        Between steps it ends at once. From within a step (a runner's callback) it ends with the
        step, and the token sampled meanwhile is dropped.
        """
        return self._end(request_id, FinishReason.ABORT, message)

    def stop(self, request_id: int) -> bool:
        """End a request whose answer is complete by something that only its client sees, such as a
        stop string; otherwise as `abort`."""
        return self._end(request_id, FinishReason.STOP)

    def _end(self, request_id: int, reason: FinishReason, message: str = "") -> bool:
        request = self.requests.get(request_id)
        if request is None or request.finished or request_id in self._aborted:
            return False
        if self._in_step:
            self._aborted[request_id] = (reason, message)
            return True
        try:
            self.scheduler.finish(request, reason, message)
        finally:
            self._forget_ended()
        self._close_record()
        return True

    def has_work(self) -> bool:
        return bool(self.requests)

    def reset_prefix_cache(self) -> int:
        """Forget every cached prefix that no request holds; returns the blocks freed."""
        freed = self.cache.reset()
        self._close_record()
        return freed

    # --- the step --------------------------------------------------------------------------------

    def step(self) -> Plan | None:
        """Run one step; returns what ran, or None (and no step is counted) without work.

        If anything in it raises, the requests of this step end with ``error``, the blocks they
        were to fill are withdrawn and the next step runs. An interrupt (ctrl-c) in the runner does
        the same and goes on to the caller; elsewhere it waits for the end of the step.
        """
        if not self.requests:
            return None
        with self._interrupts.deferred():
            return self._step()

    def _step(self) -> Plan:
        began = self.clock()
        self.step_count += 1
        self.log.begin_step(self.step_count)
        self.cache.begin_step(self.step_count)
        timings: dict[str, float] = {}
        plan = Plan(self.step_count, [])
        self._in_step = True
        try:
            if self.log.on:
                self._log_step_began()
            self._expire(began)
            plan = self.scheduler.schedule(self.step_count)
            timings["schedule"] = self.clock() - began
            with self._interrupts.allowed():
                output = self.runner.execute(plan) if plan.rows else StepOutput([])
            timings |= output.timings
            committing = self.clock()
            self._commit(plan, output)
            timings["commit"] = self.clock() - committing
            if self.runner.overlaps:
                self._begin_next(timings)
        except Exception as error:
            self._fail(error)
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            self._in_step = False
            self._aborted.clear()
            self._forget_ended()
            if self.log.on:
                self.log.close(began, self.clock() - began, timings)
        return plan

    def _begin_next(self, timings: dict[str, float]) -> None:
        began = self.clock()
        self.runner.begin(self.scheduler.foresee())
        timings["ahead"] = self.clock() - began

    def _log_step_began(self) -> None:
        self.log.add(
            StepBegan(
                step=self.step_count,
                budget=self.config.max_batch_tokens,
                waiting=len(self.scheduler.waiting),
                running=len(self.scheduler.running),
                free=self.cache.free,
                evictable=self.cache.evictable,
                ratio=self.scheduler.ratio,
            )
        )

    def _set_deadline(self, request: Request, timeout: float) -> None:
        if len(self._deadlines) > 2 * len(self.requests) + 64:  # mostly of requests long ended
            self._deadlines = [d for d in self._deadlines if d[1] in self.requests]
            heapify(self._deadlines)
        heappush(self._deadlines, (self.clock() + timeout, request.id, timeout))

    def expire(self, request_id: int, timeout: float) -> None:
        """Let the ``timeout`` seconds of a request be over: the next step aborts it."""
        heappush(self._deadlines, (-inf, request_id, timeout))

    def _expire(self, now: float) -> None:
        """Abort the requests whose time is up."""
        while self._deadlines and self._deadlines[0][0] <= now:
            _, request_id, timeout = heappop(self._deadlines)
            request = self.requests.get(request_id)
            if request is not None and not request.finished:
                self.scheduler.finish(
                    request,
                    FinishReason.ABORT,
                    f"{TIMED_OUT} after {timeout:g} s with {len(request.output)} tokens generated",
                )

    def _commit(self, plan: Plan, output: StepOutput) -> None:
        """Append what was sampled and scored, and end the requests that are done."""
        rows = [row for row in plan.rows if row.samples]
        tokens, logprobs = output.tokens, output.logprobs
        if len(tokens) != len(rows):
            raise ValueError(f"the runner sampled {len(tokens)} tokens for {len(rows)} rows")
        if output.prompt_logprobs:
            for row in plan.rows:
                found = output.prompt_logprobs.get(row.request.id, ())
                row.request.prompt_logprobs.extend(found)
        if self._aborted or output.failed:
            gone = self._aborted.keys() | output.failed.keys()
            keep = [i for i, row in enumerate(rows) if row.request.id not in gone]
            rows, tokens = [rows[i] for i in keep], [tokens[i] for i in keep]
            logprobs = [logprobs[i] for i in keep] if logprobs else ()
            self._end_aborted()
            for request_id, message in output.failed.items():
                if not self.requests[request_id].finished:
                    self.scheduler.finish(self.requests[request_id], FinishReason.ERROR, message)
        ended = self._append(rows, tokens)
        for row, logprob in zip(rows, logprobs, strict=False):
            if logprob is not None:
                row.request.logprobs.append(logprob)
        if self.log.on and rows:
            self.log.add(Sampled([row.request.id for row in rows], list(tokens), list(logprobs)))
        for request, reason in ended:
            self.scheduler.finish(request, reason)

    def _end_aborted(self) -> None:
        for request_id, (reason, message) in sorted(self._aborted.items()):
            if not self.requests[request_id].finished:
                self.scheduler.finish(self.requests[request_id], reason, message)

    def _append(
        self, rows: Sequence[Row], tokens: Sequence[int]
    ) -> list[tuple[Request, FinishReason]]:
        """Give each row's request its token; returns those that end with it. Runs for every token
        of every request, so it does nothing twice."""
        decoding = Status.DECODING
        ended: list[tuple[Request, FinishReason]] = []
        for row, token in zip(rows, tokens, strict=True):
            request = row.request
            known = request.tokens
            known.append(token)
            request.status = decoding
            if token in request.ends:
                ended.append((request, FinishReason.STOP))
            elif len(known) >= request.max_len:
                ended.append((request, FinishReason.LENGTH))
        return ended

    def _fail(self, error: BaseException) -> None:
        """End the requests of this step and take back the blocks it was to fill."""
        text = f"{type(error).__name__}: {error}"
        for request in self.scheduler.blame():
            self.scheduler.finish(request, FinishReason.ERROR, f"the step failed: {text}")
        self._end_aborted()
        self.cache.withdraw_step()
        if self.log.on:
            self.log.add(StepFailed(text))

    def _forget_ended(self) -> None:
        for request in self.scheduler.take_ended():
            self.requests.pop(request.id, None)

    def _close_record(self) -> None:
        if self.log.on and not self._in_step:  # what comes within a step belongs to its record
            self.log.close(self.clock())


def _check_options(n: int, priority: int, salt: str, timeout: float | None, name: str) -> None:
    if type(n) is not int or n < 1:
        raise RequestRefused(f"n is {n!r}; it must be a whole number of at least 1")
    if type(priority) is not int:
        raise RequestRefused(f"priority is {priority!r}; it must be a whole number")
    if not isinstance(salt, str):
        raise RequestRefused(f"salt is {salt!r}; it must be a string")
    if not isinstance(name, str):
        raise RequestRefused(f"name is {name!r}; it must be a string")
    if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
        raise RequestRefused(f"timeout is {timeout!r}; it must be a number of seconds above 0")


def _explain(refusal: Refused) -> str:
    if refusal.why == "prompt_exceeds_context":
        return (
            f"the prompt has {refusal.need} tokens; with room for one more the context takes "
            f"{refusal.limit}: shorten it or raise --max-model-len"
        )
    return (
        f"the prompt has {refusal.need} tokens; the KV pool holds {refusal.limit}: "
        "shorten it or raise --num-blocks"
    )
