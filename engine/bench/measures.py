"""From one run's records to its figures, and from several runs to a report.

Everything is computed afterwards from the engine's own step records, so that a run pays for nothing
but a list append a step. No torch.
"""

from collections.abc import Iterable, Sequence
from statistics import median

import msgspec

from .. import events as ev
from ..stats import percentile
from .costs import Limits, ModelCost, Roof, roof, step_works


class RunFailed(Exception):
    """A run that began and did not do what was asked; ``str(error)`` is one line."""


class Run(msgspec.Struct, kw_only=True):
    """One repeat of a workload. Times are in seconds.

    ``ttft`` has one entry per request, ``itl`` one per token after its request's first.
    ``cached_tokens`` is None where a server does not tell. ``phases`` are the parts of all
    steps together, with ``detokenize`` and what is left, ``other``. ``others`` is the cores that
    other programs took meanwhile.
    """

    seconds: float
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int | None
    ttft: list[float]
    itl: list[float]
    steps: int | None = None
    phases: dict[str, float] = {}
    roof: Roof | None = None
    others: float | None = None
    errors: dict[str, int] = {}


class Latency(msgspec.Struct):
    """Percentiles in seconds, each the median over the repeats; None without samples."""

    p50: float | None
    p95: float | None
    p99: float | None


class Report(msgspec.Struct, kw_only=True):
    """A workload's figures: the median of each over the repeats, ``repeats`` being their seconds.

    Rates are tokens per second of a whole run, from the first submission to the last text.
    """

    workload: str
    requests: int
    prompt_tokens: int
    output_tokens: int
    repeats: list[float]
    seconds: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    ttft: Latency
    itl: Latency
    hit_rate: float | None
    steps: float | None
    phases: dict[str, float]
    roof: Roof | None
    others: float | None
    errors: dict[str, int]


def measure_run(
    records: Sequence[ev.StepRecord],
    *,
    seconds: float,
    detokenize: float,
    block_size: int,
    cost: ModelCost | None = None,
    limits: Limits | None = None,
) -> Run:
    """The figures of the run that ``records`` tell of from its first submission to its end.

    A token is out at the end of its step. ``limits`` and ``cost`` give the roof.
    """
    submitted: dict[int, float] = {}
    last: dict[int, float] = {}
    ttft: list[float] = []
    itl: list[float] = []
    prompt_tokens = cached_tokens = output_tokens = 0
    for record in records:
        out = record.t + record.seconds
        for event in record.events:
            if isinstance(event, ev.Submitted):
                submitted[event.req] = record.t
                prompt_tokens += len(event.prompt)
            elif isinstance(event, ev.Admitted) and not event.recompute:
                cached_tokens += event.cached_tokens
            elif isinstance(event, ev.Sampled):
                output_tokens += len(event.reqs)
                for req in event.reqs:
                    if req in last:
                        itl.append(out - last[req])
                    else:
                        ttft.append(out - submitted[req])
                    last[req] = out
    steps = [record for record in records if record.timings]
    phases = {name: sum(step.timings.get(name, 0.0) for step in steps) for name in ev.PHASES}
    phases["detokenize"] = detokenize
    phases["other"] = max(0.0, seconds - sum(phases.values()))
    return Run(
        seconds=seconds,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        cached_tokens=cached_tokens,
        ttft=ttft,
        itl=itl,
        steps=len(steps),
        phases=phases,
        roof=roof(step_works(records, block_size), cost, limits, seconds)
        if cost and limits
        else None,
    )


class Spread(msgspec.Struct, frozen=True):
    """How samples lie, in their own unit: nearest ranks, and the most. ``count`` of them."""

    count: int
    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Spread":
        """Of at least one sample."""
        ranks = (percentile(samples, q) or 0.0 for q in (0.5, 0.95, 0.99, 1.0))
        return cls(len(samples), *ranks)

    @staticmethod
    def heads() -> str:
        """What stands above `cells`."""
        return f"{'p50':>7} {'p95':>7} {'p99':>7} {'max':>7}"

    def cells(self) -> str:
        return f"{self.p50:7.2f} {self.p95:7.2f} {self.p99:7.2f} {self.max:7.2f}"

    def verdict(self, target: float) -> str:
        """How far up the samples keep to ``target``."""
        if self.max <= target:
            return f"all under {target:g}"
        kept = [name for name in ("p50", "p95", "p99") if getattr(self, name) <= target]
        return f"{kept[-1]} under {target:g}" if kept else f"over {target:g}"


def report(workload: str, requests: int, runs: Sequence[Run]) -> Report:
    """The medians over ``runs``, of which there is at least one."""
    roofs = [run.roof for run in runs if run.roof is not None]
    return Report(
        workload=workload,
        requests=requests,
        prompt_tokens=runs[0].prompt_tokens,
        output_tokens=runs[0].output_tokens,
        repeats=[run.seconds for run in runs],
        seconds=median(run.seconds for run in runs),
        output_tokens_per_s=median(run.output_tokens / run.seconds for run in runs),
        total_tokens_per_s=median(
            (run.prompt_tokens + run.output_tokens) / run.seconds for run in runs
        ),
        ttft=_latency([run.ttft for run in runs]),
        itl=_latency([run.itl for run in runs]),
        hit_rate=_median(_hit_rate(run) for run in runs),
        steps=_median(run.steps for run in runs),
        phases={name: median(run.phases[name] for run in runs) for name in runs[0].phases},
        roof=Roof(
            memory=median(one.memory for one in roofs),
            compute=median(one.compute for one in roofs),
            fraction=median(one.fraction for one in roofs),
        )
        if roofs
        else None,
        others=_median(run.others for run in runs),
        errors=_total(run.errors for run in runs),
    )


def _latency(samples: Sequence[Sequence[float]]) -> Latency:
    return Latency(*(_median(percentile(one, q) for one in samples) for q in (0.5, 0.95, 0.99)))


def _hit_rate(run: Run) -> float | None:
    if run.cached_tokens is None or not run.prompt_tokens:
        return None
    return run.cached_tokens / run.prompt_tokens


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _total(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for count in counts:
        for name, times in count.items():
            total[name] = total.get(name, 0) + times
    return total
