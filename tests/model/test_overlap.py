"""Decode steps that have begun before they are scheduled give what they give otherwise.

On a CPU the work is done at once, so nothing is gained here; but the code is what a GPU runs.
"""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from minisgl_tui.engine.config import EngineConfig
from minisgl_tui.engine.engine import Engine
from minisgl_tui.engine.events import AnyEvent, Sampled
from minisgl_tui.engine.runner.graphs import DecodeGraphs
from minisgl_tui.engine.runner.model_runner import ModelRunner
from minisgl_tui.engine.sampling import SamplingParams

from .harness import make_checkpoint, make_runner, random_tokens
from .test_graphs import Direct

CHOICES = (
    SamplingParams(temperature=0, max_tokens=20),
    SamplingParams(temperature=0, max_tokens=20, stop_token_ids=tuple(range(0, 199, 9))),
    SamplingParams(temperature=1.5, top_k=20, seed=3, max_tokens=15, logprobs=2),
    SamplingParams(temperature=0, max_tokens=12, repetition_penalty=1.7, logit_bias={5: 2.0}),
    SamplingParams(temperature=0, max_tokens=3, prompt_logprobs=1),
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("overlap")
    make_checkpoint("llama", path)
    return path


def run(runner: ModelRunner, seed: int, num_blocks: int) -> tuple[list[AnyEvent], list[list[int]]]:
    """What happens, and what is answered, where requests come and go at random."""
    rng = random.Random(seed)
    config = EngineConfig(
        block_size=runner.cache.block_size,
        num_blocks=num_blocks,
        max_batch_tokens=64,
        eos_token_ids=(2,),
        vocab_size=199,
    )
    engine = Engine(config, runner)
    events: list[AnyEvent] = []
    engine.log.listen(lambda record: events.extend(record.events))
    requests = []
    while len(requests) < 14 or engine.has_work():
        if len(requests) < 14 and rng.random() < 0.3:
            prompt = random_tokens(rng.randint(1, 60), seed=rng.randint(0, 3))
            requests.append(engine.submit(prompt, rng.choice(CHOICES)))
        if engine.requests and rng.random() < 0.03:
            engine.abort(rng.choice(sorted(engine.requests)))
        engine.step()
    return events, [request.output for request in requests]


def without_scores(events: list[AnyEvent]) -> list[AnyEvent]:
    """Log-probabilities differ in the last digits by what else is in the batch."""
    return [Sampled(e.reqs, e.tokens) if isinstance(e, Sampled) else e for e in events]


@pytest.mark.parametrize("num_blocks", [20, 200])
@pytest.mark.parametrize("graphs", [False, True])
def test_overlap_gives_what_there_is_without(
    checkpoint: Path, num_blocks: int, graphs: bool
) -> None:
    ran = 0
    for seed in range(8):
        found = []
        for overlap in (False, True):
            runner = make_runner(checkpoint, block_size=5, num_blocks=num_blocks, poison=True)
            runner.overlaps = overlap
            if graphs:
                runner.graphs = DecodeGraphs(runner.model, runner.cache, Direct())
            forwards = count_forwards(runner)
            events, answers = run(runner, seed, num_blocks)
            found.append((without_scores(events), answers))
            ran += forwards[0] if overlap else -forwards[0]
        assert found[0] == found[1]
    assert ran > 0  # some of what was begun with was in vain, so that was tried


def count_forwards(runner: ModelRunner) -> list[int]:
    count, prepare = [0], runner._prepare

    def counted(*args: Any) -> Any:
        count[0] += 1
        return prepare(*args)

    vars(runner)["_prepare"] = counted
    return count


def test_a_step_that_has_begun_is_not_run_again(checkpoint: Path) -> None:
    runner = make_runner(checkpoint)
    runner.overlaps = True
    forwards = count_forwards(runner)
    engine = Engine(EngineConfig(num_blocks=200, vocab_size=199), runner)
    for index in range(3):
        engine.submit(random_tokens(9, index), SamplingParams(temperature=0, max_tokens=10))
    steps = 0
    while engine.has_work():
        engine.step()
        steps += 1
    assert forwards == [steps] == [10]


def test_what_fails_ahead_of_its_step_fails_in_its_step_or_not_at_all(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = make_runner(checkpoint)
    runner.overlaps = True
    model, fails = runner.model, iter([False, False, True, False, True, True])

    def forward(*args: object) -> torch.Tensor:
        if next(fails, False):
            raise RuntimeError("out of memory")
        return model(*args)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(runner, "model", forward)
    engine = Engine(EngineConfig(num_blocks=200, vocab_size=199), runner)
    request = engine.submit(random_tokens(9), SamplingParams(temperature=0, max_tokens=30))
    while engine.has_work():
        engine.step()
    # Forward 3 was begun ahead, and done again in its step; 5 and 6 are one that failed both times.
    assert request.message == "the step failed: RuntimeError: out of memory"
    assert len(request.output) == 3
    again = engine.submit(random_tokens(9), SamplingParams(temperature=0, max_tokens=4))
    while engine.has_work():
        engine.step()
    assert len(again.output) == 4
