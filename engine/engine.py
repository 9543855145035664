"""`Engine.step()`: schedule → execute → commit, and what happens when the middle one fails.

The engine is synchronous and owned by one thread; whoever has several (a screen, a server) hands it
work between steps. Text, models and devices are not its business: it deals in token ids and a
`Runner`.
"""

import time
from collections.abc import Callable

from .cache import PrefixCache
from .config import EngineConfig
from .errors import RequestRefused
from .events import (
    EventLog,
    Finished,
    Refused,
    Sampled,
    StepBegan,
    StepFailed,
    Submitted,
)
from .plan import Plan, Runner, StepOutput
from .policies import EVICTION_POLICIES, SCHEDULE_POLICIES, choose
from .request import FinishReason, Request, Status
from .sampling import SamplingParams
from .scheduler import Scheduler

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
        eviction = choose(EVICTION_POLICIES, config.eviction_policy, "--eviction-policy")
        schedule = choose(SCHEDULE_POLICIES, config.schedule_policy, "--schedule-policy")
        self.cache = PrefixCache(config, eviction, self.log)
        self.scheduler = Scheduler(config, self.cache, schedule, self.log)
        self.requests: dict[int, Request] = {}  # the live ones
        self.step_count = 0
        self._next_id = 0
        self._eos = frozenset(config.eos_token_ids)

    # --- requests --------------------------------------------------------------------------------

    def submit(self, prompt: list[int], params: SamplingParams | None = None) -> Request:
        """Queue a prompt. Raises `RequestRefused`, with the numbers, if it can never run."""
        params = params or SamplingParams()
        self._check_ids(prompt)
        request = Request(self._next_id, list(prompt), params)
        self._next_id += 1
        if self.log.on:
            self.log.add(Submitted(request.id, list(prompt), params))
        refusal = self._refusal(request)
        if refusal:
            if self.log.on:
                self.log.add(refusal)
                self.log.add(Finished(request.id, FinishReason.ERROR.value, _explain(refusal)))
                self.log.close(self.clock())
            raise RequestRefused(_explain(refusal))
        self.requests[request.id] = request
        self.scheduler.submit(request)
        if self.log.on:
            self.log.close(self.clock())
        return request

    def _check_ids(self, prompt: list[int]) -> None:
        if not prompt:
            raise RequestRefused("the prompt is empty; it needs at least one token")
        vocab = self.config.vocab_size
        if min(prompt) < 0 or (vocab and max(prompt) >= vocab):
            bad = next(t for t in prompt if t < 0 or t >= vocab)
            raise RequestRefused(
                f"token id {bad} is not in the model's vocabulary; ids run from 0 to {vocab - 1}"
            )

    def _refusal(self, request: Request) -> Refused | None:
        config = self.config
        if request.prompt_len >= config.max_model_len:
            limit = config.max_model_len - 1
            return Refused(request.id, "prompt_exceeds_context", request.prompt_len, limit)
        if request.prompt_len > config.capacity:
            return Refused(request.id, "prompt_exceeds_pool", request.prompt_len, config.capacity)
        return None

    def abort(self, request_id: int) -> bool:
        """End a request between steps; false if it is unknown or has ended already."""
        request = self.requests.pop(request_id, None)
        if request is None:
            return False
        self.scheduler.finish(request, FinishReason.ABORT)
        if self.log.on:
            self.log.close(self.clock())
        return True

    def has_work(self) -> bool:
        return bool(self.requests)

    def reset_prefix_cache(self) -> int:
        """Forget every cached prefix that no request holds; returns the blocks freed."""
        freed = self.cache.reset()
        if self.log.on:
            self.log.close(self.clock())
        return freed

    # --- the step --------------------------------------------------------------------------------

    def step(self) -> Plan | None:
        """Run one step; returns what ran, or None (and no step is counted) without work."""
        if not self.requests:
            return None
        began = self.clock()
        self.step_count += 1
        log, cache = self.log, self.cache
        log.begin_step(self.step_count)
        cache.begin_step(self.step_count)
        if log.on:
            self._log_step_began()
        plan = self.scheduler.schedule(self.step_count)
        self._forget_finished()
        scheduled = self.clock()
        timings = {"schedule": scheduled - began}
        try:
            output = self.runner.execute(plan) if plan.rows else StepOutput([])
        except Exception as error:
            self._fail(plan, error)
        else:
            committing = self.clock()
            self._commit(plan, output)
            timings |= output.timings
            timings["commit"] = self.clock() - committing
        if log.on:
            log.close(began, self.clock() - began, timings)
        return plan

    def _log_step_began(self) -> None:
        self.log.add(
            StepBegan(
                step=self.step_count,
                budget=self.config.max_batch_tokens,
                waiting=len(self.scheduler.waiting),
                running=len(self.scheduler.running),
                free=self.cache.free,
                evictable=self.cache.evictable,
            )
        )

    def _commit(self, plan: Plan, output: StepOutput) -> None:
        """Append the sampled tokens and end the requests that are done."""
        rows = [row for row in plan.rows if row.samples]
        if self.log.on and rows:
            ids = [row.request.id for row in rows]
            self.log.add(Sampled(ids, list(output.tokens), list(output.logprobs)))
        logprobs = output.logprobs or [None] * len(rows)
        for row, token, logprob in zip(rows, output.tokens, logprobs, strict=True):
            request = row.request
            request.tokens.append(token)
            request.status = Status.DECODING
            if logprob is not None:
                request.logprobs.append(logprob)
            reason = self._finish_reason(request, token)
            if reason:
                del self.requests[request.id]
                self.scheduler.finish(request, reason)

    def _finish_reason(self, request: Request, token: int) -> FinishReason | None:
        params = request.params
        if token in params.stop_token_ids or (token in self._eos and not params.ignore_eos):
            return FinishReason.STOP
        length = len(request.tokens)
        if length - request.prompt_len >= params.max_tokens or length >= self.config.max_model_len:
            return FinishReason.LENGTH
        return None

    def _fail(self, plan: Plan, error: Exception) -> None:
        """End the requests of this step and take back the blocks it was to fill; the rest go on."""
        text = f"{type(error).__name__}: {error}"
        if self.log.on:
            self.log.add(StepFailed(text))
        for row in plan.rows:
            del self.requests[row.request.id]
            self.scheduler.finish(row.request, FinishReason.ERROR, f"the step failed: {text}")
        self.cache.withdraw_step()

    def _forget_finished(self) -> None:
        """Drop what the scheduler ended by itself (requests that outgrew the pool)."""
        for request in self.scheduler.take_ended():
            del self.requests[request.id]


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
