"""What a step takes, learnt from the steps that were recorded.

Time is taken to be a sum: so much a step, a prefill token, a decode, and a token of context that is
read, each at least 0. The shares are fitted to the recorded steps by least absolute relative error
(by iterated weighted least squares), so that a stall now and then counts for little, and scaled
until the sum over the recorded steps is right. `StepCosts` says how well that works.

A machine is not always as fast. `Pace` knows how much slower or faster than that the recorded steps
were, moment by moment: a fork runs through the same good and bad moments, or what it is compared
with would have all the stalls and it none.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from statistics import median
from typing import NamedTuple

ROUNDS = 8
MOST = 4096  # steps that are fitted
STALL = 4.0  # a step that takes so many times as long as it should was held up by something else


class StepLoad(NamedTuple):
    """What there is to do in a step, in tokens: ``prefill`` to compute, reading ``prefill_reads``
    of context (each chunk's tokens × its end), and ``decodes`` that read ``decode_reads``."""

    prefill: int
    prefill_reads: int
    decodes: int
    decode_reads: int


def load_of(chunks: Sequence[tuple[int, int]], decodes: Sequence[int]) -> StepLoad:
    """That of ``(start, count)`` prefill chunks, and of decodes at these positions."""
    return StepLoad(
        prefill=sum(count for _, count in chunks),
        prefill_reads=sum(count * (start + count) for start, count in chunks),
        decodes=len(decodes),
        decode_reads=sum(decodes) + len(decodes),
    )


class StepCosts(NamedTuple):
    """Seconds a step, and for each unit of a `StepLoad`.

    ``error`` is the median relative error over the ``steps`` that were fitted; ``drift`` that of
    the sum over every other step, with the costs fitted to the rest.
    """

    shares: tuple[float, ...]
    error: float = 0.0
    drift: float = 0.0
    steps: int = 0

    def __str__(self) -> str:
        return (
            f"of {self.steps:,} recorded steps the median one is {self.error:.1%} off, "
            f"the sum of every other one {self.drift:.1%}"
        )

    def seconds(self, load: StepLoad) -> float:
        return sum(a * b for a, b in zip(self.shares, (1, *load), strict=True))


FREE = StepCosts((0.0,) * 5)


def fit(samples: Sequence[tuple[StepLoad, float]]) -> StepCosts:
    """The costs of steps that took that many seconds, at least one of them more than 0."""
    stride = -(-len(samples) // MOST)
    rows = [((1.0, *load), seconds) for load, seconds in samples[::stride] if seconds > 0]
    shares = _fit(rows)
    errors = [abs(_dot(shares, x) / y - 1) for x, y in rows]
    learnt, asked = _fit(rows[::2]), rows[1::2]
    took = sum(y for _, y in asked)
    drift = abs(sum(_dot(learnt, x) for x, _ in asked) / took - 1) if asked else 0.0
    return StepCosts(shares, median(errors), drift, len(rows))


class Pace:
    """How much slower or faster than ``costs`` say the recorded steps were: ``(start, load,
    seconds)`` in order of time."""

    def __init__(self, costs: StepCosts, steps: Iterable[tuple[float, StepLoad, float]]) -> None:
        self._costs = costs
        self._starts, self._took, self._expected = array("d"), array("d"), array("d")
        for start, load, seconds in steps:
            self._starts.append(start)
            self._took.append(seconds)
            self._expected.append(costs.seconds(load))

    def seconds(self, load: StepLoad, now: float) -> float:
        """What a step takes that begins ``now``.

        As many times longer as the recorded step of that moment took, or if something held that up,
        longer by as much. At moments when no step was recorded, neither.
        """
        expected = self._costs.seconds(load)
        i = bisect_right(self._starts, now) - 1
        if i < 0 or now > self._starts[i] + self._took[i] or not self._expected[i]:
            return expected
        if self._took[i] > STALL * self._expected[i]:
            return expected + self._took[i] - self._expected[i]
        return expected * self._took[i] / self._expected[i]


Row = tuple[tuple[float, ...], float]


def _fit(rows: Sequence[Row]) -> tuple[float, ...]:
    shares = (0.0,) * 5
    weights = [1 / y for _, y in rows]  # of relative errors
    for _ in range(ROUNDS):
        shares = _least_squares(rows, weights)
        weights = [1 / y / max(abs(_dot(shares, x) / y - 1), 1e-3) ** 0.5 for x, y in rows]
    pairs = [(_dot(shares, x), y) for x, y in rows]
    kept = [(expected, y) for expected, y in pairs if y <= STALL * expected]
    scale = sum(y for _, y in kept) / sum(e for e, _ in kept) if kept else 1.0
    return tuple(scale * share for share in shares)


Matrix = list[list[float]]


def _least_squares(rows: Sequence[Row], weights: Sequence[float]) -> tuple[float, ...]:
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
