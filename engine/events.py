"""The vocabulary: every decision and every change of the engine, as a small typed struct.

Scheduler, cache and engine emit these; recordings, the wire, the reducer (`state.py`) and the
screens speak nothing else. An event carries its reason and the numbers that were compared; clocks
live on the `StepRecord` around it, so the events of a run repeat exactly.

Not here: what an event does to the picture (`state.py`) and who emits it (`blocks.py`, `radix.py`,
`cache.py`, `scheduler.py`, `engine.py`).
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from .sampling import SamplingParams, TokenLogprobs


def _kind(class_name: str) -> str:
    """``StepBegan`` → ``step_began``: the tag of an event on the wire."""
    return "".join("_" + c.lower() if c.isupper() else c for c in class_name).lstrip("_")


class Event(msgspec.Struct, frozen=True, gc=False, tag_field="k", tag=_kind):
    """Base of all events; ``k`` on the wire is the class name in snake case."""


# --- the life of a request -----------------------------------------------------------------------


class Submitted(Event, frozen=True):
    """A request joined the tail of the waiting queue."""

    req: int
    prompt: list[int]
    params: SamplingParams
    priority: int = 0
    salt: str = ""
    group: int = -1  # samples of one prompt share the id of the first
    timeout: float | None = None  # seconds
    name: str = ""  # what its caller calls it, such as the id of a server's answer


class Refused(Event, frozen=True):
    """A request that can never run; `Finished` with ``error`` follows. Numbers are tokens."""

    req: int
    why: str  # "prompt_exceeds_pool" | "prompt_exceeds_context"
    need: int
    limit: int


class Deferred(Event, frozen=True):
    """The head of the waiting queue was not admitted, and ``behind`` others wait behind it.

    ``why`` is ``no_blocks`` (need > free + evictable - promised, in blocks), ``no_budget`` (the
    step's tokens are spent), ``max_running`` or ``preempting`` (this step took blocks back, so it
    hands none out). ``promised`` blocks are spoken for by prefills that are under way, or kept by
    the admission policy for what running requests may still generate.
    """

    req: int
    why: str
    need: int
    free: int
    evictable: int
    promised: int
    cached_tokens: int
    behind: int


class Admitted(Event, frozen=True):
    """A waiting request runs from now on. ``blocks`` of the tree, down to ``node``, are its first.

    ``recompute`` tells a hit after preemption from a real one.
    """

    req: int
    node: int
    blocks: list[int]
    cached_tokens: int
    need: int
    free: int
    evictable: int
    promised: int
    recompute: bool = False


class Scheduled(Event, frozen=True):
    """A prefill chunk: ``count`` tokens from ``start``; number ``chunk`` of about ``chunks``."""

    req: int
    start: int
    count: int
    chunk: int
    chunks: int


class Decoding(Event, frozen=True):
    """The requests that decode one token each in this step, in batch order."""

    reqs: list[int]


class Starved(Event, frozen=True):
    """A running request got nothing this step: ``why`` is ``no_budget``."""

    req: int
    why: str
    need: int


class Preempted(Event, frozen=True):
    """``req`` gave its blocks back, to be recomputed later from the head of the queue.

    ``for_req`` needed ``need`` blocks with ``free`` and ``evictable`` at hand; the KV of
    ``lost_tokens`` left the table (what is in the tree may be hit again). The preemption policy
    chose it ``among`` that many: those that run and had no place in this step yet.
    """

    req: int
    for_req: int
    need: int
    free: int
    evictable: int
    lost_tokens: int
    among: int = 1


class Sampled(Event, frozen=True):
    """One new token for each request whose row ended in this step."""

    reqs: list[int]
    tokens: list[int]
    logprobs: list[TokenLogprobs | None] = []


class Finished(Event, frozen=True):
    """The request ended: ``stop``, ``length``, ``abort``, or ``error`` with a ``message``."""

    req: int
    reason: str
    message: str = ""


# --- blocks --------------------------------------------------------------------------------------


class Allocated(Event, frozen=True):
    """``blocks`` went from the free list to the end of a block table; ``free`` are left."""

    req: int
    blocks: list[int]
    free: int


class Released(Event, frozen=True):
    """A request let go of its whole table: ``freed`` were its own, ``cached`` stay in the tree."""

    req: int
    freed: list[int]
    cached: int


# --- the radix tree ------------------------------------------------------------------------------


class Inserted(Event, frozen=True):
    """A new node under ``parent``: ``blocks`` of request ``req`` are shareable from now on."""

    req: int
    node: int
    parent: int
    tokens: list[int]
    blocks: list[int]
    salt: str = ""


class Extended(Event, frozen=True):
    """A leaf that only ``req`` holds grew by ``blocks``."""

    req: int
    node: int
    tokens: list[int]
    blocks: list[int]


class Split(Event, frozen=True):
    """The first ``tokens`` tokens of ``node`` moved to the new node ``upper`` above it."""

    node: int
    upper: int
    tokens: int


class Evicted(Event, frozen=True):
    """``blocks`` left the tail of the leaf ``node`` for the free list; a node left empty is gone.

    ``why`` is ``capacity`` (for request ``for_req``), ``withdrawn`` (the step that was to fill them
    failed) or ``reset``. ``last_used`` is the step that last touched the node.
    """

    node: int
    blocks: list[int]
    why: str
    for_req: int
    last_used: int


# --- the step ------------------------------------------------------------------------------------


class StepBegan(Event, frozen=True, omit_defaults=True):
    """The numbers the scheduler starts a step from. Blocks: ``free``, ``evictable``.

    ``ratio`` is the share of what running requests may still generate that the admission policy
    keeps room for, if it is one with a share that it adapts.
    """

    step: int
    budget: int
    waiting: int
    running: int
    free: int
    evictable: int
    ratio: float = 0.0


class StepFailed(Event, frozen=True):
    """The forward pass raised; the requests of this step end with ``error``, the rest go on."""

    error: str


AnyEvent = (
    Submitted
    | Refused
    | Deferred
    | Admitted
    | Scheduled
    | Decoding
    | Starved
    | Preempted
    | Sampled
    | Finished
    | Allocated
    | Released
    | Inserted
    | Extended
    | Split
    | Evicted
    | StepBegan
    | StepFailed
)


class Position(NamedTuple):
    """Where an event is in a run: the number of its step, and its own within the step from 0 on.

    Positions order as the events happened. What comes between two steps has the number of the step
    before. Written ``120:7``, and before the first event there is ``120:start``.
    """

    step: int
    event: int

    def __str__(self) -> str:
        return f"{self.step}:{self.event if self.event >= 0 else 'start'}"


PHASES = ("schedule", "prepare", "forward", "sample", "commit", "ahead")  # of a step, in order


class StepRecord(msgspec.Struct, gc=False, kw_only=True):
    """What happened, in order, from the end of the previous record to the end of this one.

    A step gives one record; so does a submission or an abort between steps, under the number of
    the step before it. ``first`` is the number of ``events[0]`` within the step, so that every
    event has a position ``step:event``. ``t`` is the engine clock at the start, ``seconds`` the
    time taken and ``timings`` its parts, by the names of `PHASES`; ``ahead`` only where steps
    overlap.
    """

    seq: int
    step: int
    first: int = 0
    t: float = 0.0
    seconds: float = 0.0
    events: list[AnyEvent] = []
    timings: dict[str, float] = {}

    def position(self, index: int) -> Position:
        """The position of ``events[index]``."""
        return Position(self.step, self.first + index)


Listener = Callable[[StepRecord], None]


class EventLog:
    """Where emission sites write. ``on`` is false when nobody listens: ``if log.on: log.add(…)``.

    One record is open at all times; `close` hands it to the listeners in the order they came.
    """

    __slots__ = (
        "_delivering",
        "_events",
        "_first",
        "_listeners",
        "_seq",
        "_undelivered",
        "add",
        "on",
        "step",
    )

    def __init__(self) -> None:
        self.on = False
        self.step = 0
        self._seq = 0
        self._first = 0
        self._listeners: list[Listener] = []
        self._undelivered: deque[StepRecord] = deque()
        self._delivering = False
        self._events: list[AnyEvent] = []
        self.add = self._events.append

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` with every record from now on; the result ends that."""
        self._listeners.append(listener)
        self.on = True

        def stop() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)
            self.on = bool(self._listeners)

        return stop

    def go_on_after(self, position: Position) -> None:
        """Number what follows as if the events up to ``position`` had been added here."""
        self.step, self._first = position.step, position.event + 1

    def begin_step(self, step: int) -> None:
        self.step = step
        self._first = 0

    def close(
        self, t: float, seconds: float = 0.0, timings: dict[str, float] | None = None
    ) -> None:
        """Hand over what has been added since the last close, if anything was."""
        events = self._events
        if not events:
            return
        record = StepRecord(
            seq=self._seq,
            step=self.step,
            first=self._first,
            t=t,
            seconds=seconds,
            events=events,
            timings=timings or {},
        )
        self._seq += 1
        self._first += len(events)
        self._events = []
        self.add = self._events.append
        self._undelivered.append(record)
        if not self._delivering:  # else a listener has made this one: the others come first
            self._deliver()

    def _deliver(self) -> None:
        failed: Exception | None = None
        self._delivering = True
        try:
            while self._undelivered:
                record = self._undelivered.popleft()
                for listener in tuple(self._listeners):
                    try:
                        listener(record)
                    except Exception as error:  # the others' pictures must not miss a record
                        failed = failed or error
        finally:
            self._delivering = False
        if failed:
            raise failed
