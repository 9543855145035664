"""One request: what was asked, what is known so far, and which KV blocks hold it.

The scheduler owns every field here; runners and screens only read them.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from .sampling import SamplingParams, TokenLogprobs

TIMED_OUT = "timed out"  # how the message of a request begins that had no more time


class Status(StrEnum):
    """``WAITING → PREFILLING → DECODING → FINISHED``, and ``PREEMPTED`` back to the queue."""

    WAITING = "waiting"
    PREFILLING = "prefilling"
    DECODING = "decoding"
    PREEMPTED = "preempted"
    FINISHED = "finished"


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"


@dataclass(slots=True, eq=False, weakref_slot=True)
class Request:
    """A prompt on its way to an answer.

    ``tokens`` is prompt + output, and the first ``computed`` of them have (or, in the step being
    executed, are getting) their KV in ``block_table``: token ``i`` lives in slot
    ``block_table[i // block_size] * block_size + i % block_size``. The table is append-only.
    """

    id: int
    tokens: list[int]
    params: SamplingParams
    priority: int = 0  # the lower, the sooner
    salt: str = ""  # cache namespace: prefixes are shared only under the same salt
    group: int = -1  # the first of the samples asked for together; its own id if alone
    prompt_len: int = 0
    max_len: int = 0  # tokens, prompt and output, at which it ends
    ends: frozenset[int] = frozenset()  # tokens that end it
    status: Status = Status.WAITING
    computed: int = 0
    block_table: list[int] = field(default_factory=list)
    cached_tokens: int = 0  # prefix hit of the first admission: KV that never had to be computed
    preemptions: int = 0
    queued_step: int = 0  # when it last joined the queue
    chunks_done: int = 0  # prefill chunks since the last admission
    logprobs: list[TokenLogprobs] = field(default_factory=list)  # one an output token, if asked for
    # If asked for, one a prompt token as far as they are known; None for the first.
    prompt_logprobs: list[TokenLogprobs | None] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    message: str = ""  # why it ended, for `error`

    def __post_init__(self) -> None:
        self.prompt_len = len(self.tokens)
        self.max_len = self.prompt_len + self.params.max_tokens
        if self.params.prompt_logprobs is not None:
            self.prompt_logprobs = [None]

    @property
    def output(self) -> list[int]:
        return self.tokens[self.prompt_len :]

    @property
    def remaining(self) -> int:
        """Known tokens whose KV is still to be computed; 1 for a request that decodes."""
        return len(self.tokens) - self.computed

    @property
    def unscored(self) -> range:
        """Positions whose logits are still to give the log-probability of the prompt's next token.

        Empty for a request that does not ask for those.
        """
        known = len(self.prompt_logprobs)
        return range(known - 1, self.prompt_len - 1) if known else range(0)

    @property
    def to_generate(self) -> int:
        """Tokens it may still be given."""
        return self.max_len - len(self.tokens)

    @property
    def finished(self) -> bool:
        return self.status is Status.FINISHED
