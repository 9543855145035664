"""The roof: what a step must at least read and multiply, and how long that takes on a machine.

A step cannot be faster than either of

    (weights + keys and values, in bytes) / read bandwidth        and
    floating-point operations / the peak of a matrix product,

so its *roof time* is the larger one (Williams, Waterman, Patterson: "Roofline", 2009). A fraction
of the roof is roof time over time taken: 100 % means that only other hardware would be faster.
Decoding a few streams is bound by memory, prefill by arithmetic.

Counted per step: every weight matrix once, the output matrix only if something is sampled, and the
keys and values of every position that the batch attends to, read or just written, once even where
requests share it. Not counted: activations, norms, and the few rows read of the input embedding.
No torch.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from .. import events as ev
from ..models.files import weight_files, weight_header

if TYPE_CHECKING:
    from ..models.base import AttentionSpec


class Limits(msgspec.Struct, frozen=True):
    """What the machine can do: ``read_bandwidth`` in bytes/s, ``peak`` in FLOP/s of a product."""

    read_bandwidth: float
    peak: float


class Roof(msgspec.Struct, frozen=True):
    """Fractions of the time taken: reading alone, multiplying alone, and the larger of the two
    step by step."""

    memory: float
    compute: float
    fraction: float


@dataclass(frozen=True, slots=True)
class ModelCost:
    """What a token costs in a model. ``body`` is every matrix but the embeddings, ``head`` the
    output matrix, both counted in weights; ``kv`` is elements a token stores over all layers;
    ``attend`` is FLOPs for one token to attend to one position; ``itemsize`` is bytes an element.
    """

    body: int
    head: int
    kv: int
    attend: int
    itemsize: int

    @classmethod
    def of(
        cls, directory: Path, vocab_size: int, attention: "Sequence[AttentionSpec]", itemsize: int
    ) -> "ModelCost | None":
        """Read from the headers of a checkpoint's weights, and each layer's ``attention``.

        None where a token does not use every weight (experts) or not every position (windows):
        what is needed then depends on the tokens.
        """
        shapes = _shapes(directory)
        if any("expert" in name for name in shapes) or any(one.window for one in attention):
            return None
        matrices = [(shape[0], shape[1]) for shape in shapes.values() if len(shape) == 2]
        dims = [(one, one.head_dim + one.value_dim) for one in attention]
        return cls(
            body=sum(rows * columns for rows, columns in matrices if rows != vocab_size),
            head=max(
                (rows * columns for rows, columns in matrices if rows == vocab_size), default=0
            ),
            kv=sum(one.num_kv_heads * dim for one, dim in dims),
            attend=sum(2 * one.num_heads * dim for one, dim in dims),
            itemsize=itemsize,
        )

    def bytes(self, work: "StepWork") -> int:
        weights = self.body + (self.head if work.sampled else 0)
        return self.itemsize * (weights + self.kv * work.positions)

    def flops(self, work: "StepWork") -> int:
        products = self.body * work.tokens + self.head * work.sampled
        return 2 * products + self.attend * work.attended


def _shapes(directory: Path) -> dict[str, list[int]]:
    return {
        name: entry["shape"]
        for file in weight_files(directory)
        for name, entry in weight_header(file).items()
        if name != "__metadata__"
    }


@dataclass(frozen=True, slots=True)
class StepWork:
    """One step's batch: ``tokens`` computed, ``sampled`` rows, ``attended`` pairs of a token and a
    position before it or its own, and distinct ``positions`` attended to."""

    tokens: int
    sampled: int
    attended: int
    positions: int


def step_works(records: Iterable[ev.StepRecord], block_size: int) -> Iterator[StepWork]:
    """What each step of ``records`` computed. They must begin where no request is running."""
    tables: dict[int, list[int]] = {}
    computed: dict[int, int] = {}
    for record in records:
        rows: list[tuple[int, int]] = []  # request, tokens
        sampled = 0
        for event in record.events:
            if isinstance(event, ev.Admitted):
                tables[event.req] = list(event.blocks)
                computed[event.req] = event.cached_tokens
            elif isinstance(event, ev.Allocated):
                tables[event.req] += event.blocks
            elif isinstance(event, ev.Scheduled):
                rows.append((event.req, event.count))
            elif isinstance(event, ev.Decoding):
                rows += [(req, 1) for req in event.reqs]
            elif isinstance(event, ev.Sampled):
                sampled = len(event.reqs)
        if rows:
            yield _work(rows, sampled, tables, computed, block_size)


def _work(
    rows: Sequence[tuple[int, int]],
    sampled: int,
    tables: dict[int, list[int]],
    computed: dict[int, int],
    block_size: int,
) -> StepWork:
    attended = positions = 0
    for req, count in rows:
        start = computed[req]
        attended += count * start + count * (count + 1) // 2
        computed[req] = start + count
        positions += start + count
    held = [tables[req] for req, _ in rows]
    shared = sum(map(len, held)) - len(set().union(*held))  # only full blocks are ever shared
    return StepWork(
        tokens=sum(count for _, count in rows),
        sampled=sampled,
        attended=attended,
        positions=positions - shared * block_size,
    )


def roof(works: Iterable[StepWork], cost: ModelCost, limits: Limits, seconds: float) -> Roof:
    """The roof of a run of those steps that took ``seconds``."""
    times = [
        (cost.bytes(work) / limits.read_bandwidth, cost.flops(work) / limits.peak) for work in works
    ]
    return Roof(
        memory=sum(memory for memory, _ in times) / seconds,
        compute=sum(compute for _, compute in times) / seconds,
        fraction=sum(map(max, times)) / seconds,
    )
