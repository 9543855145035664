"""Why something is as it is: a chain of recorded reasons, each with the event to go and see.

``why(record, target, position)`` says why a request waits, runs or ended and what its prefix hit or
missed, where a block's content came from, how a node came to be and what became of it. Every line
quotes an event or compares numbers and tokens that the state at that position holds; where the
record does not reach far enough back, the line says so.
"""

from collections.abc import Iterator, Sequence

from ..engine import events as ev
from ..engine.events import Position
from ..engine.policies import AGEING_STEPS
from ..engine.request import Status
from ..engine.snapshot import NodeState, RequestState, RowState
from ..engine.state import ROOT, EngineState
from ..engine.wording import agrees, plural
from .block_causes import BlockInquiry
from .figures import duration
from .inquiry import SHOWN_HOLDERS, Cause, Inquiry, TokenText, after
from .record import Record
from .selection import Target

SHOWN_TOKENS = 12  # of a run that is quoted
SHOWN_BEFORE = 8  # tokens that two prompts share, quoted in front of where they part


def why(record: Record, target: Target, position: Position, text: TokenText) -> list[Cause]:
    """The chain of causes of ``target`` being as it is at ``position``; ``text`` spells tokens."""
    if target.kind == "request":
        return list(RequestInquiry(record, position, text).request(target.id))
    inquiry = BlockInquiry(record, position, text)
    return list(inquiry.node(target.id) if target.kind == "node" else inquiry.block(target.id))


class RequestInquiry(Inquiry):
    """Questions about requests."""

    def request(self, id: int) -> Iterator[Cause]:
        state = self._state
        request = state.requests.get(id)
        me = Target("request", id)
        refused = self._record.refusal_of(id, self._here)
        if refused:
            yield from self._quote(0, refused, me)
            ended = self._last("request", id, ev.Finished)
            yield from self._quote(1, ended, me) if ended else ()
            return
        if request is None:
            gone = self._record.chronicle.came("request", id, self._here)
            last = self._record.chronicle.before("request", id, after(self._here))
            words = "ended long ago and is no longer kept" if gone else "has not come yet"
            yield Cause(0, f"#{id} {words}.", last)
            return
        if request.status is Status.FINISHED:
            yield from self._quote(0, self._last("request", id, ev.Finished), me)
            yield from self._last_preemption(request)
        elif request.status in (Status.WAITING, Status.PREEMPTED):
            yield from self._waiting(state, request)
        else:
            yield from self._running(state, request)
        yield from self._prefix(id)

    def _waiting(self, state: EngineState, request: RequestState) -> Iterator[Cause]:
        me = Target("request", request.id)
        if request.status is Status.PREEMPTED:
            lost = self._last("request", request.id, ev.Preempted, of=request.id)
            yield Cause(0, f"#{request.id} waits to be readmitted: it was preempted.", lost, me)
            yield from self._preemption(1, lost)
        else:
            steps = state.step - request.submitted_step
            since = f"since step {request.submitted_step}, for {plural(steps, 'step')}"
            came = self._first("request", request.id)
            yield Cause(0, f"#{request.id} waits {since}.", came, me)
        deferred = next((n for n in state.notes if isinstance(n, ev.Deferred)), None)
        if deferred and deferred.why == "preempting" and self._preempted_now(state, request):
            return
        if deferred is None:
            words = "No step has looked at it yet"
            if request.submitted_step < state.step:
                within = " so far" if _goes_on(state) else ""
                words = f"Nobody was deferred in this step{within}"
            yield Cause(1, f"{words}.")
            return
        at = self._last("request", deferred.req, ev.Deferred)
        first, depth = Target("request", deferred.req), 1
        if deferred.req != request.id:
            ahead = f"It is behind #{deferred.req}, {_why_ahead(state, deferred)}"
            yield Cause(1, f"{ahead}.", at, first)
            depth = 2
        yield from self._quote(depth, at, first)
        yield from self._behind_deferral(depth + 1, state, deferred, at)

    def _preempted_now(self, state: EngineState, request: RequestState) -> bool:
        return any(isinstance(n, ev.Preempted) and n.req == request.id for n in state.notes)

    def _behind_deferral(
        self, depth: int, state: EngineState, deferred: ev.Deferred, at: Position | None
    ) -> Iterator[Cause]:
        if deferred.why == "no_blocks":
            then = self._record.state_at(at) if at else state
            yield from self._holders(depth, then)
            own = then.evictable - deferred.evictable
            if at and own:
                of = f"{own} of the {then.evictable} evictable {agrees(own, 'is', 'are')}"
                text = f"{of} the cached prefix of #{deferred.req}, which it counts on already."
                yield Cause(depth + 1, text, at, Target("request", deferred.req))
            yield from self._earliest_end(depth, state)
        elif deferred.why == "no_budget":
            others = [row for row in state.rows if row.req != deferred.req]
            yield from self._spenders(depth, state, others)
        elif deferred.why == "max_running":
            running, config = len(state.running), state.config
            run = f"{plural(running, 'request')} {agrees(running, 'runs', 'run')}"
            lets = "--max-running-requests lets"
            if config.max_batch_tokens < config.max_running_requests:
                lets = "--max-batch-tokens has a token for"
            yield Cause(depth, f"{run}, as many as {lets}.")
        elif deferred.why == "preempting":
            for note in state.notes:
                if isinstance(note, ev.Preempted):
                    at = self._last("request", note.req, ev.Preempted, of=note.req)
                    yield from self._quote(depth, at, Target("request", note.req))

    def _spenders(self, depth: int, state: EngineState, rows: list[RowState]) -> Iterator[Cause]:
        """Who took most of the step's budget, of those in ``rows``."""
        budget = f"the {state.config.max_batch_tokens} that a step has"
        order = sorted(rows, key=lambda row: -row.count)
        for row in order[:SHOWN_HOLDERS]:
            what = "a decode" if row.decode else f"chunk {row.chunk} of its prefill"
            took = f"#{row.req} took {plural(row.count, 'token')} of {budget}"
            at = None if row.decode else self._last("request", row.req, ev.Scheduled)
            yield Cause(depth, f"{took}: {what}.", at, Target("request", row.req))
        rest = order[SHOWN_HOLDERS:]
        if rest:
            tokens = plural(sum(row.count for row in rest), "token")
            yield Cause(depth, f"{len(rest)} more took {tokens}.")

    def _running(self, state: EngineState, request: RequestState) -> Iterator[Cause]:
        me = Target("request", request.id)
        admitted = self._last("request", request.id, ev.Admitted)
        doing = "decodes" if request.status is Status.DECODING else "is being prefilled"
        made = len(request.tokens) - request.prompt_len
        so_far = f"{plural(made, 'token')} generated, {request.computed} computed"
        yield Cause(0, f"#{request.id} {doing}: {so_far}.", None, me)
        for note in state.notes:
            if isinstance(note, ev.Starved) and note.req == request.id:
                starved = self._last("request", request.id, ev.Starved)
                yield from self._quote(1, starved, me)
        yield from self._quote(1, admitted, me)
        yield from self._step_time(1, state)
        yield from self._last_preemption(request)

    def _step_time(self, depth: int, state: EngineState) -> Iterator[Cause]:
        """What the step took that has just ended, and for what; beside it the one before."""
        if not state.timings or _goes_on(state):
            return
        prefills = state.prefills
        yield Cause(depth, f"{_took(state)}.")
        yield from self._spenders(depth + 1, state, prefills)
        before = self._record.state_at_step_before(self._here)
        if prefills and before and before.rows:
            yield Cause(depth + 1, f"{_took(before)}.")

    def _last_preemption(self, request: RequestState) -> Iterator[Cause]:
        if request.preemptions:
            lost = self._last("request", request.id, ev.Preempted, of=request.id)
            yield from self._preemption(1, lost)

    def _preemption(self, depth: int, at: Position | None) -> Iterator[Cause]:
        """The preemption at ``at``, why that victim, and who had the blocks then."""
        if at is None:
            yield Cause(depth, "Its preemption lies before the beginning of this record.")
            return
        event = self._record.event_at(at)
        assert isinstance(event, ev.Preempted)
        yield from self._quote(depth, at, Target("request", event.for_req))
        released = self._record.chronicle.before("request", event.req, at)
        same_step = released is not None and released.step == at.step
        state = self._record.state_before(released if released and same_step else at)
        policy = state.config.preemption_policy
        chosen = "It was the only one that had no place in the step yet"
        if event.among > 1:
            chosen = f"It was chosen among {event.among} by the policy {policy}"
            chosen += f": {_VICTIMS[policy]}" if policy in _VICTIMS else ""
        yield Cause(depth + 1, f"{chosen}.")
        yield from self._holders(depth + 1, state, event.req)

    def _earliest_end(self, depth: int, state: EngineState) -> Iterator[Cause]:
        """The running request that its length limit ends first."""
        left: list[tuple[int, int]] = []
        for id in state.running:
            request = state.requests[id]
            room = min(request.params.max_tokens, state.config.max_model_len - request.prompt_len)
            made = len(request.tokens) - request.prompt_len
            left.append((room - made, id))
        if left:
            steps, id = min(left)
            first = f"#{id} is the next to reach its length limit"
            text = f"{first}, after {plural(steps, 'more token')}, unless it is preempted"
            text += "; a stop token can end any of them sooner."
            yield Cause(depth, text, None, Target("request", id))

    # --- what a prefix hit, and what it missed ---------------------------------------------------

    def _prefix(self, id: int) -> Iterator[Cause]:
        """What its admission found in the cache and why not more; after a preemption, what the
        latest one found again."""
        admissions = list(self._all("request", id, ev.Admitted))
        for at in dict.fromkeys(admissions[:1] + admissions[-1:]):
            yield from self._found(id, at)

    def _found(self, id: int, at: Position) -> Iterator[Cause]:
        event = self._record.event_at(at)
        assert isinstance(event, ev.Admitted)
        state = self._record.state_before(at)
        request, size = state.requests[id], state.config.block_size
        tokens, hit = request.tokens, event.cached_tokens
        could = (len(tokens) - 1) // size * size
        what = "prompt"
        if event.recompute:
            what = "prompt and answer, when it was readmitted,"
        me = Target("node", event.node) if hit else Target("request", id)
        share = f"{hit or 'None'} of the {plural(len(tokens), 'token')} of its {what}"
        yield Cause(0, f"{share} came from the cache.", at, me)
        if hit >= could:
            none = f"What is before its last token fills no block of {plural(size, 'token')}."
            yield Cause(1, _FULL_HIT if hit else none)
            return
        if request.params.prompt_logprobs is not None and not event.recompute:
            words = "Its prompt's log-probabilities are asked for, so all of it is computed."
            yield Cause(1, words)
            return
        yield from self._miss(state, event, request, at)

    def _miss(
        self, state: EngineState, event: ev.Admitted, request: RequestState, at: Position
    ) -> Iterator[Cause]:
        """Why the block after the hit was not there."""
        size, hit, tokens = state.config.block_size, event.cached_tokens, request.tokens
        lost = self._record.chronicle.eviction_of(tokens[: hit + size], at, request.salt)
        if lost is not None:
            where = f"Tokens {hit}–{hit + size - 1} were cached until {lost.position}"
            yield Cause(1, f"{where}, when they were evicted.", lost.position, None)
            yield from self._quote(2, lost.position, Target("request", lost.event.for_req))
            yield from self._behind_eviction(2, lost.position)
            return
        node = state.nodes[event.node]
        near, common = self._nearest(state, node, tokens[hit:], request.salt)
        if near is None:
            goes_on = f"goes on after token {hit - 1}" if hit else "begins with its first token"
            yield Cause(1, f"No cached prompt {goes_on}.")
        elif common >= size:
            text = "The same tokens are cached under another cache salt."
            yield Cause(1, text, None, Target("node", near.id))
        else:
            yield from self._divergence(state, near, tokens, hit, common)

    def _divergence(
        self, state: EngineState, near: NodeState, tokens: list[int], hit: int, common: int
    ) -> Iterator[Cause]:
        """The first token at which the nearest cached prefix differs."""
        first = hit + common
        mine, theirs = tokens[first : first + SHOWN_TOKENS], near.tokens[common:][:SHOWN_TOKENS]
        shared = tokens[max(0, first - SHOWN_BEFORE) : first]
        after = f"after “{self._text(shared)}” " if shared else ""
        yield Cause(
            1,
            f"The nearest cached prefix differs at token {first}: {after}this has "
            f"“{self._text(mine)}”, node {near.id} has “{self._text(theirs)}”.",
            self._first("node", near.id),
            Target("node", near.id),
        )
        size = state.config.block_size
        if common:
            block = f"The block of {size} tokens from {hit} on agrees in its first {common} only"
            yield Cause(2, f"{block}; blocks are shared whole.")
        rest = len(tokens) - first
        if rest > size:
            after = f"All {plural(rest, 'token')} from there on had to be computed"
            yield Cause(2, f"{after}, whatever follows: a prefix ends where it first differs.")

    def _nearest(
        self, state: EngineState, node: NodeState, tokens: Sequence[int], salt: str
    ) -> tuple[NodeState | None, int]:
        """The child of ``node`` that agrees longest with ``tokens``, and in how many. Children of
        the root under another salt count only if they agree in a whole block."""
        best: NodeState | None = None
        most = -1
        for id in node.children:
            child = state.nodes[id]
            pairs = enumerate(zip(child.tokens, tokens, strict=False))
            same = next((i for i, (a, b) in pairs if a != b), min(len(child.tokens), len(tokens)))
            other_salt = node.id == ROOT and child.salt != salt
            if other_salt and same < state.config.block_size:
                continue
            if same > most:
                best, most = child, same
        return best, most


def _why_ahead(state: EngineState, deferred: ev.Deferred) -> str:
    """Why the one that was deferred in the step in hand stands before all others that wait."""
    if not deferred.need:  # before anybody was looked at
        return "the head of the queue"
    policy, first = state.config.schedule_policy, state.requests[deferred.req]
    if first.status is Status.PREEMPTED:
        return f"which was preempted: those come before any that the policy {policy} orders"
    if first.queued_step <= state.step - AGEING_STEPS:
        waited = f"which has waited {AGEING_STEPS} steps or more"
        return f"{waited}: those come before any that the policy {policy} orders"
    return f"which comes first by the policy {policy}"


def _goes_on(state: EngineState) -> bool:
    """Whether there is more to come of the step that is looked at."""
    return state.now < state.out_at


def _took(state: EngineState) -> str:
    """How long the latest step took, and for what."""
    prefill = sum(row.count for row in state.prefills)
    decodes = len(state.rows) - len(state.prefills)
    parts = [plural(prefill, "prefill token")] if prefill else []
    parts += [plural(decodes, "decode")] if decodes else []
    load = " and ".join(parts) or "no tokens"
    return f"Step {state.step} took {duration(state.step_seconds)} for {load}"


_FULL_HIT = "All that can be: the last token is always computed, and with it its block."
_VICTIMS = {
    "newest": "the one that arrived last gives way",
    "least-output": "the one that has generated least gives way",
    "lowest-priority": "the least urgent one gives way",
}
