"""The offline benchmark: our engine on every workload, beside its peers where some were named.

Owns the order of things. All take turns repeat by repeat, so that a machine that gets slower or
faster meanwhile does so for everybody; whoever does not run is idle.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import torch

from ..models.base import Checkpoint
from ..tokenizer import has_tokenizer
from .machine import Machine
from .measures import Report, Run, report
from .offline import OfflineEngine
from .peer import Peer, PeerChoice
from .workloads import BenchWorkload

Progress = Callable[[str, float | None], None]

OURS = "minisgl-tui"
_SETTLE = 0.2  # seconds until the threads of the last forward pass have gone to sleep


class PeerReport(msgspec.Struct):
    """A peer's reports, and by workload how many times faster than it we are: in output tokens a
    second, as answers that end by themselves need not be equally long."""

    name: str
    workloads: list[Report]
    ratios: dict[str, float]


class OfflineResults(msgspec.Struct):
    """Everything that a run found. ``engine`` are the settings that were given."""

    machine: Machine
    model: str
    engine: dict[str, Any]
    workloads: list[Report]
    peers: list[PeerReport]
    notes: list[str] = []


def run_offline(
    model: Path,
    checkpoint: Checkpoint,
    workloads: Sequence[BenchWorkload],
    flags: dict[str, Any],
    *,
    repeats: int,
    threads: int,
    peers: Sequence[PeerChoice] = (),
    progress: Progress = lambda stage, fraction: None,
) -> OfflineResults:
    """Measure ``workloads`` on the model in the directory ``model``, ``repeats`` times each;
    ``checkpoint`` is what is in there.

    ``flags`` are keyword arguments of `LLM` and win over what workloads ask for. Raises UserError
    for what cannot be run and `RunFailed` for what did not do as asked.
    """
    torch.set_num_threads(threads)
    turns = 0
    total = len(workloads) * repeats * (1 + len(peers))
    with ExitStack() as stack:
        engine = _engine(model, workloads[0], flags, progress)
        progress("measuring the machine", None)
        machine = engine.measure_machine(checkpoint)
        others: list[Peer] = []
        for choice in peers:
            progress(f"starting {choice.name}, which may take minutes", None)
            others.append(
                stack.enter_context(
                    Peer(
                        choice,
                        model,
                        workloads,
                        dtype=machine.dtype,
                        threads=threads,
                        max_model_len=checkpoint.max_context,
                        skip_tokenizer=not has_tokenizer(model),
                    )
                )
            )
        names = [OURS, *(peer.name for peer in others)]
        runs: dict[str, dict[str, list[Run]]] = {name: {} for name in names}
        for workload in workloads:
            if engine.settings != workload.settings(flags):
                del engine
                engine = _engine(model, workload, flags, progress)
                engine.measure_machine(checkpoint)
            for repeat in range(1, repeats + 1):
                for name, runner in zip(names, [engine, *others], strict=True):
                    stage = f"{workload.name}, repeat {repeat} of {repeats}"
                    progress(f"{stage}: {name}" if others else stage, turns / total)
                    time.sleep(_SETTLE)
                    runs[name].setdefault(workload.name, []).append(runner.run(workload))
                    turns += 1
    reports = {
        name: [report(w.name, len(w.requests), runs[name][w.name]) for w in workloads]
        for name in names
    }
    return OfflineResults(
        machine=machine,
        model=str(model),
        engine=flags,
        workloads=reports[OURS],
        peers=[_beside(name, reports[name], reports[OURS]) for name in names[1:]],
        notes=[
            f"{workload.name}: {peer.name} does not heed {', '.join(ignored)} of every request, "
            "so it did other work"
            for peer in others
            for workload in workloads
            if (ignored := peer.ignores(workload))
        ],
    )


def _engine(
    model: Path, workload: BenchWorkload, flags: dict[str, Any], progress: Progress
) -> OfflineEngine:
    engine = OfflineEngine(model, workload.settings(flags), progress)
    progress("warming up", None)
    engine.warm_up(workload)
    return engine


def _beside(name: str, theirs: list[Report], ours: list[Report]) -> PeerReport:
    pairs = zip(ours, theirs, strict=True)
    ratios = {a.workload: a.output_tokens_per_s / b.output_tokens_per_s for a, b in pairs}
    return PeerReport(name, theirs, ratios)
