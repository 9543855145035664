"""Our own engine under a workload, driven as `LLM.generate` drives it.

Owns loading, the warm-up, one cold run and the check that every request got its tokens. What is
timed runs from the first submission to the last text: scheduling, forward passes, sampling and
detokenizing. Events are on, as the figures are taken from them; that costs under 1 % of a step.
"""

import gc
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from ..errors import UserError
from ..events import StepRecord
from ..llm import LLM
from ..models.base import Checkpoint
from ..request import Request
from ..runner.device import DTYPES
from ..tokenizer import has_tokenizer
from .contention import Others
from .costs import Limits, ModelCost
from .machine import Machine, describe_machine, measure_limits
from .measures import Run, RunFailed, measure_run
from .workloads import BenchRequest, BenchWorkload

Progress = Callable[[str, float | None], None]


class OfflineEngine:
    """The model in a directory, loaded; ``settings`` are keyword arguments of `LLM`.

    Raises UserError for what cannot be loaded.
    """

    def __init__(self, model: Path, settings: dict[str, Any], progress: Progress) -> None:
        self.settings = settings
        self._llm = LLM(
            model, skip_tokenizer=not has_tokenizer(model), progress=progress, **settings
        )
        self._cost: ModelCost | None = None
        self._limits: Limits | None = None
        # A full collection would walk what loading left behind, again and again.
        gc.collect()
        gc.freeze()

    def measure_machine(self, checkpoint: Checkpoint) -> Machine:
        """Measure the machine's limits, which later runs are compared with, and describe it."""
        info = self._llm.model_info
        device, dtype = torch.device(info.device), DTYPES[info.dtype]
        self._limits = measure_limits(device, dtype)
        self._cost = ModelCost.of(
            info.path, checkpoint.vocab_size, checkpoint.attention, dtype.itemsize
        )
        return describe_machine(device, dtype, self._limits)

    def warm_up(self, workload: BenchWorkload) -> None:
        """One short request, then four together, none of them cached. Raises UserError where a
        request of ``workload`` cannot fit."""
        self._check(workload)
        short = workload.warm_up
        for count in (1, 4):
            self._llm.reset_prefix_cache()
            self._llm.generate([short.prompt] * count, short.params)

    def run(self, workload: BenchWorkload) -> Run:
        """Run ``workload`` once with an empty prefix cache.

        Raises UserError where a request cannot fit, and `RunFailed` where one got less than it
        asked for.
        """
        llm, engine = self._llm, self._llm.engine
        self._check(workload)
        llm.reset_prefix_cache()
        records: list[StepRecord] = []
        stop = engine.log.listen(records.append)
        try:
            others = Others()
            began = perf_counter()
            requests = self._drive(workload.requests)
            stepped = perf_counter()
            if llm.tokenizer is not None:
                for request in requests:
                    detokenizer = llm.tokenizer.detokenizer(request.tokens[: request.prompt_len])
                    detokenizer.feed(*request.output)
                    detokenizer.flush()
            ended = perf_counter()
            taken = others.cores()
        finally:
            stop()
            for request in list(engine.requests.values()):  # after an interrupt
                engine.abort(request.id)
        _check_answers(workload, requests)
        run = measure_run(
            records,
            seconds=ended - began,
            detokenize=ended - stepped,
            block_size=engine.config.block_size,
            cost=self._cost,
            limits=self._limits,
        )
        run.others = taken
        return run

    def _check(self, workload: BenchWorkload) -> None:
        for number, request in enumerate(workload.requests, start=1):
            try:
                self._llm.engine.check(request.prompt, request.params)
            except UserError as error:
                raise UserError(f"workload {workload.name}, request {number}: {error}") from error

    def _drive(self, load: list[BenchRequest]) -> list[Request]:
        """Submit each request when it is due and step until all have ended."""
        engine, requests = self._llm.engine, list[Request]()
        zero = engine.step_count
        while len(requests) < len(load) or engine.has_work():
            if not engine.has_work():  # no step is counted without work, so go to the next arrival
                zero = min(zero, engine.step_count - load[len(requests)].at_step)
            while len(requests) < len(load):
                due = load[len(requests)]
                if due.at_step > engine.step_count - zero:
                    break
                requests.append(engine.submit(due.prompt, due.params, priority=due.priority))
            engine.step()
        return requests


def _check_answers(workload: BenchWorkload, requests: list[Request]) -> None:
    for number, (asked, got) in enumerate(zip(workload.requests, requests, strict=True), start=1):
        if got.finish_reason == "error":
            raise RunFailed(f"workload {workload.name}, request {number}: {got.message}")
        if asked.params.ignore_eos and len(got.output) != asked.params.max_tokens:
            raise RunFailed(
                f"workload {workload.name}, request {number} got {len(got.output)} of "
                f"{asked.params.max_tokens} tokens; it ended with {got.finish_reason}"
            )
