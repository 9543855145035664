"""Who runs next, and why.

Phase-free, as in vLLM V1: every request has ``computed`` tokens and catches up with what it knows,
under one budget a step. Running requests come first, decodes before unfinished prefills, then
admissions from the waiting queue; so a decode never waits for somebody's prompt.

Blocks are taken as they are needed. When a running request can get none, the latest arrival that
has no place in this step yet gives its own back (preemption), and then nobody is admitted in this
step. An admission needs room for all the request knows, besides what prefills under way still need,
so that nobody is let in only to be thrown out.
"""

from collections import deque

from .cache import PrefixCache
from .config import EngineConfig
from .events import (
    Admitted,
    Decoding,
    Deferred,
    EventLog,
    Finished,
    Preempted,
    Scheduled,
    Starved,
)
from .plan import Plan, Row
from .policies import SchedulePolicy
from .radix import Match
from .request import FinishReason, Request, Status


class Scheduler:
    """Owns the queues: ``waiting`` (preempted ones at its head) and ``running`` (by admission)."""

    def __init__(
        self, config: EngineConfig, cache: PrefixCache, policy: SchedulePolicy, log: EventLog
    ) -> None:
        self.config = config
        self.cache = cache
        self.log = log
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        # One token each has to fit into a step, or the last ones would never decode.
        self.max_running = min(config.max_running_requests, config.max_batch_tokens)
        self._policy = policy
        self._budget = 0
        self._rows: list[Row] = []
        self._ended: list[Request] = []

    def submit(self, request: Request) -> None:
        self.waiting.append(request)

    # --- a step ----------------------------------------------------------------------------------

    def schedule(self, step: int) -> Plan:
        """Decide the batch of ``step``, take the blocks for it and share those it will fill."""
        self._budget = self.config.max_batch_tokens
        self._rows = []
        decodes = [r for r in self.running if r.status is Status.DECODING]
        prefills = [r for r in self.running if r.status is not Status.DECODING]
        preempted = self._continue(deque(decodes + prefills))
        if self.waiting:
            self._admit(preempted)
        if self.log.on:
            ids = [row.request.id for row in self._rows if row.request.status is Status.DECODING]
            if ids:
                self.log.add(Decoding(ids))
        return Plan(step, self._rows)

    def _continue(self, order: deque[Request]) -> bool:
        """Give running requests their tokens, in ``order``; true if any had to be preempted."""
        preempted = False
        while order:
            request = order.popleft()
            if self._outgrew(request, request.computed + 1):
                continue
            if not self._budget:
                if self.log.on:
                    self.log.add(Starved(request.id, "no_budget", request.remaining))
                continue
            while self.cache.room(request) < 1:
                victim = max(request, *order, key=lambda r: r.id) if order else request
                self._preempt(victim, request)
                preempted = True
                if victim is request:
                    break
                order.remove(victim)
            else:
                self._place(request)
        return preempted

    def _place(self, request: Request) -> None:
        """Put ``request`` into the batch with as many tokens as budget and blocks allow."""
        start = request.computed
        count = min(request.remaining, self._budget, self.cache.room(request))
        end = start + count
        self.cache.grow(request, end)
        self.cache.share(request, start, end)
        request.computed = end
        self._budget -= count
        self._rows.append(Row(request, start, count, samples=request.remaining == 0))
        if request.status is Status.PREFILLING:
            request.chunks_done += 1
            if self.log.on:
                rest = -(-request.remaining // self.config.max_batch_tokens)
                chunk = request.chunks_done
                self.log.add(Scheduled(request.id, start, count, chunk, chunk + rest))

    def _preempt(self, victim: Request, for_request: Request) -> None:
        """Send ``victim`` back to the head of the queue, to be recomputed."""
        if self.log.on:
            need = 1  # `room` was less than one token: the next block is what is missing
            free, evictable, lost = self.cache.free, self.cache.evictable, victim.computed
            self.log.add(Preempted(victim.id, for_request.id, need, free, evictable, lost))
        self.running.remove(victim)
        self.cache.release(victim)
        victim.status = Status.PREEMPTED
        victim.preemptions += 1
        self.waiting.appendleft(victim)

    # --- admission -------------------------------------------------------------------------------

    def _admit(self, preempted: bool) -> None:
        """Let waiting requests in, in the policy's order, up to the first that has to wait."""
        blocks_for = self.config.blocks_for
        promised = sum(
            blocks_for(len(r.tokens)) - len(r.block_table)
            for r in self.running
            if r.status is Status.PREFILLING
        )
        for request in list(self._policy.order(self.waiting)):
            if self._outgrew(request, len(request.tokens)):
                continue
            match = self.cache.match(request)
            blocks = min(blocks_for(len(request.tokens) + 1), self.config.num_blocks)
            need = blocks - len(match.blocks)
            why = self._why_not(preempted, need, match, promised)
            if why:
                if self.log.on:
                    self._log_deferred(request, why, need, match, promised)
                return
            self._let_in(request, need, match, promised)
            promised += blocks_for(len(request.tokens)) - len(request.block_table)

    def _why_not(self, preempted: bool, need: int, match: Match, promised: int) -> str:
        if preempted:
            return "preempting"
        if len(self.running) >= self.max_running:
            return "max_running"
        if not self._budget:
            return "no_budget"
        if need > self.cache.available - match.evictable - promised:
            return "no_blocks"
        return ""

    def _let_in(self, request: Request, need: int, match: Match, promised: int) -> None:
        free, evictable = self.cache.free, self.cache.evictable - match.evictable
        self.waiting.remove(request)
        self.running.append(request)
        node = self.cache.admit(request, match)
        recompute = request.status is Status.PREEMPTED
        request.status = Status.PREFILLING
        request.chunks_done = 0
        if not recompute:
            request.cached_tokens = request.computed
        if self.log.on:
            self.log.add(
                Admitted(
                    req=request.id,
                    node=node,
                    blocks=list(match.blocks),
                    cached_tokens=request.computed,
                    need=need,
                    free=free,
                    evictable=evictable,
                    promised=promised,
                    recompute=recompute,
                )
            )
        self._place(request)

    def _log_deferred(
        self, request: Request, why: str, need: int, match: Match, promised: int
    ) -> None:
        self.log.add(
            Deferred(
                req=request.id,
                why=why,
                need=need,
                free=self.cache.free,
                evictable=self.cache.evictable - match.evictable,
                promised=promised,
                cached_tokens=len(match.blocks) * self.config.block_size,
                behind=len(self.waiting) - 1,
            )
        )

    # --- endings ---------------------------------------------------------------------------------

    def finish(self, request: Request, reason: FinishReason, message: str = "") -> None:
        """End ``request``, in whatever state it is, and let go of its blocks."""
        if request.status in (Status.WAITING, Status.PREEMPTED):
            self.waiting.remove(request)
        else:
            self.running.remove(request)
        request.status = Status.FINISHED
        request.finish_reason = reason
        request.message = message
        if self.log.on:
            self.log.add(Finished(request.id, reason.value, message))
        self.cache.release(request)

    def take_ended(self) -> list[Request]:
        """The requests that `schedule` ended by itself since the last call."""
        ended, self._ended = self._ended, []
        return ended

    def _outgrew(self, request: Request, tokens: int) -> bool:
        """End a request whose next ``tokens`` tokens would not fit even into an empty pool."""
        need = self.config.blocks_for(tokens)
        if need <= self.config.num_blocks:
            return False
        self._ended.append(request)
        self.finish(
            request,
            FinishReason.ERROR,
            f"outgrew the KV pool after {len(request.output)} tokens: {tokens} tokens need {need} "
            f"blocks of {self.config.block_size}, the pool has {self.config.num_blocks}; "
            "raise --num-blocks or lower max_tokens",
        )
        return True
