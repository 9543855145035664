"""What the scheduler hands the runner for one step, and what it gets back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import msgspec

from .errors import RequestRefused
from .request import Request
from .sampling import SamplingParams, TokenLogprobs


class Row(msgspec.Struct, frozen=True, gc=False):
    """``count`` tokens of one request, starting at position ``start``: a prefill chunk or a decode.

    ``samples`` is true when the row reaches the last known token, so that its logits give the next.
    """

    request: Request
    start: int
    count: int
    samples: bool

    @property
    def end(self) -> int:
        """Tokens of the request whose KV is valid once this row has run."""
        return self.start + self.count

    @property
    def table(self) -> list[int]:
        """The block table as it is now."""
        return self.request.block_table

    @property
    def scored(self) -> range:
        """Positions of the row whose logits give the log-probability of a prompt token."""
        unscored = self.request.unscored
        return range(max(unscored.start, self.start), min(unscored.stop, self.end))


@dataclass(slots=True, frozen=True)
class Foreseen:
    """A row of the next step, if its request is still there then: it decodes the token at position
    ``start``, and ``table`` is the block table that the request has by then."""

    request: Request
    start: int
    table: list[int]
    count: ClassVar[int] = 1
    samples: ClassVar[bool] = True

    @property
    def end(self) -> int:
        return self.start + 1

    def comes_true_in(self, row: Row) -> bool:
        """Whether ``row`` computes this and nothing else, so that it need not do so again."""
        return (
            row.request is self.request
            and (row.start, row.count) == (self.start, 1)
            and row.table == self.table
        )


@dataclass(slots=True, frozen=True)
class Plan:
    """The batch of one step, decodes first. Positions and block tables are in the requests."""

    step: int
    rows: Sequence[Row]

    @property
    def num_tokens(self) -> int:
        return sum(row.count for row in self.rows)


@dataclass(slots=True, frozen=True)
class StepOutput:
    """One token for each row that samples, in row order.

    ``logprobs`` is empty when nobody asked, else as long as ``tokens`` with None where not asked.
    ``prompt_logprobs``, by request id, are of the tokens that follow the positions ``Row.scored``.
    ``failed`` says, by request id, why a request that was to be given a token cannot be given one:
    it ends with that error, and its token is dropped. ``timings`` are seconds by phase
    (``prepare``, ``forward``, ``sample``).
    """

    tokens: Sequence[int]
    logprobs: Sequence[TokenLogprobs | None] = ()
    timings: dict[str, float] = field(default_factory=dict)
    prompt_logprobs: Mapping[int, list[TokenLogprobs]] = field(default_factory=dict)
    failed: Mapping[int, str] = field(default_factory=dict)


class Runner(Protocol):
    """Computes one step: writes the KV of every row's tokens and samples where a row ends.

    One that ``overlaps`` is told between two steps what the next will be, so that the device need
    not wait while the engine hands on the results of the last and schedules.
    """

    overlaps: bool = False

    def execute(self, plan: Plan) -> StepOutput: ...

    def begin(self, decodes: Sequence[Foreseen]) -> None:
        """Begin with what the next plan is likely to hold. It may hold less, more or other rows: a
        token that is computed in vain is written where nothing is read before it is overwritten."""

    def check(self, params: SamplingParams) -> None:
        """Raise RequestRefused for what this runner cannot do: grammars, unless it says more."""
        if params.grammar is not None:
            raise RequestRefused("this runner takes no grammar; it has no tokenizer to apply it to")
