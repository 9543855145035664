"""A runner without weights: it models the KV pool as token ids and checks every read.

`SimulatedRunner` is the oracle of the test suite. Each step writes the scheduled tokens to their
slots, all of them before any read, then asserts for every row that the block table spells exactly
the request's own tokens. A cache that shares, frees or evicts a block wrongly is caught in the step
that reads it.
"""

import random
from collections.abc import Callable

from .plan import Plan, Row, Runner, StepOutput

UNWRITTEN = -1

NextToken = Callable[[Row], int]


class WrongRead(AssertionError):
    """A block table does not lead to the request's own tokens."""


def random_tokens(seed: int, vocab: int) -> NextToken:
    """Tokens in ``range(vocab)`` that depend on seed, request and position alone, as a model with
    a seed a request would give: a recompute after preemption says the same again."""

    def next_token(row: Row) -> int:
        return random.Random(f"{seed}:{row.request.id}:{row.end}").randrange(vocab)

    return next_token


class VirtualClock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class SimulatedRunner(Runner):
    """``kv[slot]`` is the id of the token whose KV would be there; time is virtual.

    A step costs ``fixed + per_token × tokens`` seconds on ``clock``, which the engine shares.
    """

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        next_token: NextToken,
        fixed: float = 5e-3,
        per_token: float = 1e-4,
    ) -> None:
        self.block_size = block_size
        self.kv = [UNWRITTEN] * (num_blocks * block_size)
        self.clock = VirtualClock()
        self.tokens_computed = 0
        self._next_token = next_token
        self._fixed = fixed
        self._per_token = per_token

    def execute(self, plan: Plan) -> StepOutput:
        for row in plan.rows:
            self._write(row)
        for row in plan.rows:
            self._check(row)
        self.tokens_computed += plan.num_tokens
        seconds = self._fixed + self._per_token * plan.num_tokens
        self.clock.advance(seconds)
        tokens = [self._next_token(row) for row in plan.rows if row.samples]
        return StepOutput(tokens, timings={"forward": seconds})

    def _slot(self, row: Row, position: int) -> int:
        block = row.request.block_table[position // self.block_size]
        return block * self.block_size + position % self.block_size

    def _write(self, row: Row) -> None:
        for position in range(row.start, row.end):
            self.kv[self._slot(row, position)] = row.request.tokens[position]

    def _check(self, row: Row) -> None:
        if row.count < 1 or row.samples != (row.end == len(row.request.tokens)):
            raise WrongRead(f"request {row.request.id}: {row.count} tokens from {row.start}, {row}")
        read = [self.kv[self._slot(row, position)] for position in range(row.end)]
        wanted = row.request.tokens[: row.end]
        if read != wanted:
            at = next(i for i in range(row.end) if read[i] != wanted[i])
            raise WrongRead(
                f"request {row.request.id} reads token {read[at]} at position {at}, slot "
                f"{self._slot(row, at)}; its own token there is {wanted[at]}"
            )
