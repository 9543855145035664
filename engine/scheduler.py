"""Who runs next, and why.

Phase-free, as in vLLM V1: every request has ``computed`` tokens and catches up with what it knows,
under one budget a step. Running requests come first, decodes before unfinished prefills, then
admissions from the waiting queue; so a decode never waits for somebody's prompt.

Blocks are taken as they are needed. When a running request can get none, one that has no place in
this step yet gives its own back (preemption), and then nobody is admitted in this step. An
admission needs room for all the request knows, besides what prefills under way still need, so that
nobody is let in only to be thrown out.
"""

from collections import deque
from collections.abc import Sequence

from .cache import PrefixCache
from .config import EngineConfig
from .events import Admitted, Decoding, Deferred, EventLog, Finished, Preempted, Scheduled, Starved
from .plan import Foreseen, Plan, Row
from .policies import AGEING_STEPS, Policies, Reserve
from .radix import Match
from .request import FinishReason, Request, Status

QUEUED = (Status.WAITING, Status.PREEMPTED)


class Scheduler:
    """Owns the queues: ``waiting`` (preempted ones at its head) and ``running`` (by admission)."""

    def __init__(
        self, config: EngineConfig, cache: PrefixCache, policies: Policies, log: EventLog
    ) -> None:
        self.config = config
        self.cache = cache
        self.log = log
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        # One token each has to fit into a step, or the last ones would never decode.
        self.max_running = min(config.max_running_requests, config.max_batch_tokens)
        self._policies = policies
        self._budget = 0
        self._rows: list[Row] = []
        self._admitted: list[Request] = []
        self._ended: list[Request] = []

    @property
    def ratio(self) -> float:
        """The share of room that the admission policy keeps, if it is one that adapts it."""
        policy = self._policies.admission
        return policy.ratio if isinstance(policy, Reserve) else 0.0

    @ratio.setter
    def ratio(self, ratio: float) -> None:
        policy = self._policies.admission
        if isinstance(policy, Reserve):
            policy.ratio = ratio

    def submit(self, request: Request) -> None:
        request.queued_step = self.cache.step
        self.waiting.append(request)

    # --- a step ----------------------------------------------------------------------------------

    def schedule(self, step: int) -> Plan:
        """Decide the batch of ``step``, take the blocks for it and share those it will fill."""
        self._budget = self.config.max_batch_tokens
        self._rows = []
        self._admitted = []
        decodes = [r for r in self.running if r.status is Status.DECODING]
        prefills = [r for r in self.running if r.status is not Status.DECODING]
        preempted = self._continue(deque(decodes + prefills))
        if self.waiting:
            self._admit(preempted)
        self._policies.admission.after_step(self.running, preempted)
        if self.log.on:
            ids = [row.request.id for row in self._rows if row.request.status is Status.DECODING]
            if ids:
                self.log.add(Decoding(ids))
        return Plan(step, self._rows)

    def _continue(self, order: deque[Request]) -> bool:
        """Give running requests their tokens, in ``order``; true if any had to be preempted."""
        preempted = False
        size = self.config.block_size
        while order:
            request = order.popleft()
            start = request.computed
            if start % size and self._budget and request.status is Status.DECODING:
                # The common case: one token, and a slot for it in the last block.
                self._rows.append(Row(request, start, 1, True))
                if (start + 1) % size == 0:
                    self.cache.share(request, start, start + 1)
                request.computed = start + 1
                self._budget -= 1
                continue
            if self._outgrew(request, start + 1):
                continue
            if not self._budget:
                if self.log.on:
                    self.log.add(Starved(request.id, "no_budget", request.remaining))
                continue
            while self.cache.room(request) < 1:
                victim = self._preempt_one([request, *order], request)
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
        self._rows.append(Row(request, start, count, end == len(request.tokens)))
        self.cache.grow(request, end)
        self.cache.share(request, start, end)
        request.computed = end
        self._budget -= count
        if request.status is Status.PREFILLING:
            request.chunks_done += 1
            if self.log.on:
                rest = -(-request.remaining // self.config.max_batch_tokens)
                chunk = request.chunks_done
                self.log.add(Scheduled(request.id, start, count, chunk, chunk + rest))

    def foresee(self) -> list[Foreseen]:
        """The decodes of the next step; none if it will be more than decodes, as these are faster
        together with the rest. Changes nothing, and is right unless a request comes or goes."""
        size, running = self.config.block_size, self.running[: self.config.max_batch_tokens]
        if self.waiting or any(r.status is not Status.DECODING for r in self.running):
            return []
        growing = sum(request.computed % size == 0 for request in running)
        blocks = iter(self.cache.next_blocks(growing))
        decodes: list[Foreseen] = []
        for request in running:
            table = request.block_table[:]
            if request.computed % size == 0:
                block = next(blocks, None)
                if block is None:  # something has to be evicted, or somebody preempted
                    break
                table.append(block)
            decodes.append(Foreseen(request, request.computed, table))
        return decodes

    def give_back(self, blocks: int) -> None:
        """Between steps: have ``blocks`` blocks free, of cached prefixes and then of requests."""
        while self.cache.available < blocks:
            self._preempt_one(self.running, self.running[0])
        self.cache.clear(blocks)

    def _preempt_one(self, candidates: Sequence[Request], for_request: Request) -> Request:
        """Send the policy's victim back to the head of the queue, to be recomputed."""
        victim, among = self._policies.preemption.victim(candidates), len(candidates)
        free, evictable, lost = self.cache.free, self.cache.evictable, victim.computed
        self.running.remove(victim)
        victim.status = Status.PREEMPTED
        victim.preemptions += 1
        victim.queued_step = self.cache.step
        self.waiting.appendleft(victim)
        self.cache.release(victim)
        if self.log.on:
            need = 1  # `room` was less than one token: the next block is what is missing
            self.log.add(Preempted(victim.id, for_request.id, need, free, evictable, lost, among))
        return victim

    # --- admission -------------------------------------------------------------------------------

    def _admit(self, preempted: bool) -> None:
        """Let waiting requests in, in the policy's order, up to the first that has to wait."""
        why = self._closed(preempted)
        if why:
            self._defer(self.waiting[0], why)
            return
        size, blocks_for = self.config.block_size, self.config.blocks_for
        promised = sum(
            blocks_for(len(r.tokens)) - len(r.block_table)
            for r in self.running
            if r.status is Status.PREFILLING
        )
        admission = self._policies.admission
        # Nothing is held back for nobody, or a policy could keep an idle engine from starting.
        held = admission.held_for(self.running) / size if self.running else 0.0
        for request in self._order():
            if request.status not in QUEUED:
                policy = type(self._policies.schedule).__name__
                raise ValueError(f"{policy} ordered request {request.id}, which is not waiting")
            if self._outgrew(request, len(request.tokens)):
                continue
            match = self.cache.match(request)
            asked = max(0, round(admission.asked_by(request)))
            blocks = blocks_for(len(request.tokens) + asked)
            need = min(blocks, self.config.num_blocks) - len(match.blocks)
            reserved = promised + round(held)
            why = self._closed(preempted)
            if not why and need > self.cache.available - match.evictable - reserved:
                why = "no_blocks"
            if why:
                self._defer(request, why, match, need, reserved)
                return
            self._let_in(request, need, match, reserved)
            promised += blocks_for(len(request.tokens)) - len(request.block_table)
            held += admission.held_for([request]) / size

    def _closed(self, preempted: bool) -> str:
        """Why nobody at all can be admitted now; empty if somebody could."""
        if preempted:
            return "preempting"
        if len(self.running) >= self.max_running:
            return "max_running"
        return "" if self._budget else "no_budget"

    def _order(self) -> Sequence[Request]:
        """Preempted and overdue requests by arrival, then the others as the policy says."""
        overdue = self.cache.step - AGEING_STEPS
        first: list[Request] = []
        others: list[Request] = []
        for request in self.waiting:
            due = request.status is Status.PREEMPTED or request.queued_step <= overdue
            (first if due else others).append(request)
        if others:
            first += self._policies.schedule.order(others, self.cache)
        return first

    def _let_in(self, request: Request, need: int, match: Match, reserved: int) -> None:
        free, evictable = self.cache.free, self.cache.evictable - match.evictable
        recompute = request.status is Status.PREEMPTED
        self.waiting.remove(request)
        self.running.append(request)
        self._admitted.append(request)
        request.status = Status.PREFILLING
        request.chunks_done = 0
        node = self.cache.admit(request, match)
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
                    promised=reserved,
                    recompute=recompute,
                )
            )
        self._place(request)

    def _defer(
        self,
        request: Request,
        why: str,
        match: Match | None = None,
        need: int = 0,
        reserved: int = 0,
    ) -> None:
        """Say why ``request``, and with it all behind it, has to wait."""
        if not self.log.on:
            return
        cached = match.blocks if match else []
        self.log.add(
            Deferred(
                req=request.id,
                why=why,
                need=need,
                free=self.cache.free,
                evictable=self.cache.evictable - (match.evictable if match else 0),
                promised=reserved,
                cached_tokens=len(cached) * self.config.block_size,
                behind=len(self.waiting) - 1,
            )
        )

    # --- endings ---------------------------------------------------------------------------------

    def finish(self, request: Request, reason: FinishReason, message: str = "") -> None:
        """End ``request``, in whatever state it is, and let go of its blocks."""
        if request.status in QUEUED:
            self.waiting.remove(request)
        else:
            self.running.remove(request)
        request.status = Status.FINISHED
        request.finish_reason = reason
        request.message = message
        self._ended.append(request)
        self.cache.release(request)
        if self.log.on:
            self.log.add(Finished(request.id, reason.value, message))

    def take_ended(self) -> list[Request]:
        """The requests that have ended since the last call."""
        ended, self._ended = self._ended, []
        return ended

    def blame(self) -> list[Request]:
        """Who ends when a step raises: whoever it placed or let in, else the next in line."""
        step = dict.fromkeys([*(row.request for row in self._rows), *self._admitted])
        return [r for r in step if not r.finished] or [*self.running, *self.waiting][:1]

    def _outgrew(self, request: Request, tokens: int) -> bool:
        """End a request whose next ``tokens`` tokens would not fit even into an empty pool."""
        need = self.config.blocks_for(tokens)
        if need <= self.config.num_blocks:
            return False
        self.finish(
            request,
            FinishReason.ERROR,
            f"outgrew the KV pool after {len(request.output)} tokens: {tokens} tokens need {need} "
            f"blocks of {self.config.block_size}, the pool has {self.config.num_blocks}; "
            "raise --num-blocks or lower max_tokens",
        )
        return True
