"""What a step takes, learnt from the steps that were recorded.

Time is taken to be a sum: so much a step, a prefill token, a decode, and a token of context that is
read, each at least 0. The shares are fitted to the recorded steps by least absolute relative error
(by iterated weighted least squares), so that a stall now and then counts for little, and scaled
until the sum over the recorded steps is right. `StepCosts.error` says how well that works.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from statistics import median
from typing import NamedTuple

ROUNDS = 8
MOST = 4096  # steps that are fitted
STALL = 4.0  # a step that takes so many times as long as it should is left out of the sum


class StepLoad(NamedTuple):
    """What there is to do in a step, in tokens: ``prefill`` to compute, reading ``prefill_reads``
    of context (each chunk's tokens × its end), and ``decodes`` that read ``decode_reads``."""

    prefill: int = 0
    prefill_reads: int = 0
    decodes: int = 0
    decode_reads: int = 0

    def chunk(self, start: int, count: int) -> "StepLoad":
        """With a prefill chunk more."""
        reads = self.prefill_reads + count * (start + count)
        return self._replace(prefill=self.prefill + count, prefill_reads=reads)

    def decode(self, start: int) -> "StepLoad":
        """With a decode more."""
        return self._replace(decodes=self.decodes + 1, decode_reads=self.decode_reads + start + 1)


class StepCosts(NamedTuple):
    """Seconds a step, and for each unit of a `StepLoad`.

    ``error`` is the median relative error over the ``steps`` that were fitted; ``stalls`` of them
    took over `STALL` times what they should.
    """

    shares: tuple[float, ...]
    error: float = 0.0
    steps: int = 0
    stalls: int = 0

    def __str__(self) -> str:
        return f"the median error is {self.error:.1%} on {self.steps:,} recorded steps"

    def seconds(self, load: StepLoad) -> float:
        return sum(a * b for a, b in zip(self.shares, (1, *load), strict=True))


FREE = StepCosts((0.0,) * 5)


def fit(samples: Sequence[tuple[StepLoad, float]]) -> StepCosts:
    """The costs of steps that took that many seconds, at least one of them more than 0."""
    stride = -(-len(samples) // MOST)
    rows = [((1.0, *load), seconds) for load, seconds in samples[::stride] if seconds > 0]
    shares = (0.0,) * 5
    weights = [1 / y for _, y in rows]  # of relative errors
    for _ in range(ROUNDS):
        shares = _least_squares(rows, weights)
        weights = [1 / y / max(abs(_dot(shares, x) / y - 1), 1e-3) ** 0.5 for x, y in rows]
    expected = [_dot(shares, x) for x, _ in rows]
    kept = [(e, y) for e, (_, y) in zip(expected, rows, strict=True) if y <= STALL * e]
    scale = sum(y for _, y in kept) / sum(e for e, _ in kept) if kept else 1.0
    errors = [abs(scale * e / y - 1) for e, (_, y) in zip(expected, rows, strict=True)]
    return StepCosts(
        tuple(scale * share for share in shares), median(errors), len(rows), len(rows) - len(kept)
    )


Matrix = list[list[float]]


def _least_squares(
    rows: Sequence[tuple[tuple[float, ...], float]], weights: Sequence[float]
) -> tuple[float, ...]:
    """Shares, none below 0, with the least weighted sum of squares.

    With so few of them the best set of those above 0 is found by trying each (five: 31 sets).
    """
    n = len(rows[0][0])
    square: Matrix = [[0.0] * n for _ in range(n)]
    right = [0.0] * n
    for (x, y), weight in zip(rows, weights, strict=True):
        weighted = [weight * a for a in x]
        for i, a in enumerate(weighted):
            right[i] += a * weight * y
            line = square[i]
            for j in range(i, n):
                line[j] += a * weighted[j]
    for i in range(n):
        for j in range(i):
            square[i][j] = square[j][i]
    best, least = (0.0,) * n, 0.0
    for chosen in _subsets(n):
        found = _solve([[square[i][j] for j in chosen] + [right[i]] for i in chosen])
        if found is None or min(found) < 0:
            continue
        gain = -sum(a * right[i] for a, i in zip(found, chosen, strict=True))
        if gain < least:  # the sum of squares, less what is the same for all
            least = gain
            shares = dict(zip(chosen, found, strict=True))
            best = tuple(shares.get(i, 0.0) for i in range(n))
    return best


def _subsets(n: int) -> Iterator[tuple[int, ...]]:
    for size in range(1, n + 1):
        yield from combinations(range(n), size)


def _solve(matrix: Matrix) -> list[float] | None:
    """Gauss-Jordan with pivots, on a matrix with its right side; None if it is singular."""
    n = len(matrix)
    scale = [max(abs(a) for a in row[:-1]) or 1.0 for row in matrix]
    for i in range(n):
        pivot = max(range(i, n), key=lambda r: abs(matrix[r][i]) / scale[r])
        if abs(matrix[pivot][i]) <= 1e-9 * scale[pivot]:
            return None
        matrix[i], matrix[pivot] = matrix[pivot], matrix[i]
        scale[i], scale[pivot] = scale[pivot], scale[i]
        matrix[i] = [a / matrix[i][i] for a in matrix[i]]
        for r in range(n):
            if r != i:
                factor = matrix[r][i]
                matrix[r] = [a - factor * b for a, b in zip(matrix[r], matrix[i], strict=True)]
    return [row[-1] for row in matrix]


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))
