"""What an `EngineState` is made of, as plain data: requests, tree nodes, the rows of a batch.

A `Snapshot` is all of it at one moment, to be sent, stored and compared. It shares what it holds
with the state it was taken from: neither changes a request or a node before it has its own
(`state.py`).
"""

from copy import copy

import msgspec

from . import events as ev
from .config import EngineConfig
from .request import Request, Status
from .sampling import SamplingParams, TokenLogprobs
from .stats import Statistics

NOBODY = -1


class RequestState(msgspec.Struct):
    """One request as the screens see it. Times are on the engine's clock, in seconds."""

    id: int
    tokens: list[int]
    prompt_len: int
    params: SamplingParams
    submitted_step: int
    submitted_at: float
    status: Status = Status.WAITING
    computed: int = 0
    block_table: list[int] = []
    cached_tokens: int = 0
    recomputed_hits: int = 0  # tokens found again after a preemption: no real hits
    preemptions: int = 0
    chunk: int = 0
    chunks: int = 0
    first_token_at: float | None = None
    finished_at: float | None = None
    finished_step: int | None = None
    finish_reason: str = ""
    message: str = ""
    logprobs: list[TokenLogprobs | None] = []
    priority: int = 0
    salt: str = ""
    group: int = NOBODY  # samples of one prompt share the id of the first
    name: str = ""  # what its caller calls it, such as the id of a server's answer
    queued_step: int = 0  # when it last joined the queue
    timeout: float | None = None  # seconds after `submitted_at` at which it is aborted

    @property
    def output(self) -> list[int]:
        return self.tokens[self.prompt_len :]

    @property
    def live(self) -> bool:
        return self.status is not Status.FINISHED

    def copy(self) -> "RequestState":
        """One that goes on by itself. What has ended never changes again and stays the same."""
        if not self.live:
            return self
        other = copy(self)
        other.tokens = self.tokens[:]
        other.block_table = self.block_table[:]
        other.logprobs = self.logprobs[:]
        return other

    def request(self) -> Request:
        """The live request that this is the picture of; it shares nothing with it."""
        prompt = self.tokens[: self.prompt_len]
        request = Request(self.id, prompt, self.params, self.priority, self.salt, self.group)
        request.tokens = self.tokens[:]
        request.status, request.computed = self.status, self.computed
        request.block_table = self.block_table[:]
        request.cached_tokens, request.preemptions = self.cached_tokens, self.preemptions
        request.queued_step, request.chunks_done = self.queued_step, self.chunk
        if request.prompt_logprobs:  # not in the picture; what counts is how many there are
            scored = self.prompt_len if self.output else 1 + self.computed
            request.prompt_logprobs = [None] * min(scored, self.prompt_len)
        return request


class NodeState(msgspec.Struct):
    """A node of the radix tree; ``start`` is the position of its first token in the prefix."""

    id: int
    parent: int
    start: int
    created: int
    tokens: list[int] = []
    blocks: list[int] = []
    children: list[int] = []
    refs: int = 0
    pinned_children: int = 0
    hits: int = 0
    last_used: int = 0
    salt: str = ""
    priority: int = 0  # the most urgent (lowest) of the requests that used it

    @property
    def pinned(self) -> bool:
        return self.refs > 0 or self.pinned_children > 0

    def copy(self) -> "NodeState":
        other = copy(self)
        other.tokens = self.tokens[:]
        other.blocks = self.blocks[:]
        other.children = self.children[:]
        return other


class RowState(msgspec.Struct, frozen=True, gc=False):
    """One line of the current batch; ``chunk`` of ``chunks`` is 0 of 0 for a decode."""

    req: int
    start: int
    count: int
    chunk: int = 0
    chunks: int = 0

    @property
    def decode(self) -> bool:
        return self.chunks == 0


class Snapshot(msgspec.Struct, kw_only=True):
    """An `EngineState` after a whole record, as plain data; the fields are those of the state.

    ``block_state`` has a byte a block, ``block_owner`` four, the lowest first.
    """

    config: EngineConfig
    step: int
    now: float
    out_at: float
    requests: dict[int, RequestState]
    waiting: list[int]
    running: list[int]
    finished: list[int]
    block_state: bytes
    block_owner: bytes
    nodes: dict[int, NodeState]
    free: int
    cached: int
    evictable: int
    rows: list[RowState]
    notes: list[ev.AnyEvent]
    began: ev.StepBegan | None
    step_seconds: float
    timings: dict[str, float]
    stats: Statistics
    next_node: int = 0  # 0: not told
