"""Replayed decode steps give what ordinary ones give. The recording itself is CUDA's; all else here
is the code that runs there."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from minisgl_tui.engine.runner.graphs import DecodeGraphs, Forward

from .harness import TINY, greedy, make_checkpoint, make_runner, random_tokens

PROMPTS = [random_tokens(length, length) for length in (5, 31, 64, 90, 33)]


class Direct:
    """Records nothing, but like a CUDA graph gives every time the same tensor."""

    def __init__(self) -> None:
        self.recorded = 0
        self.replayed = 0

    def record(self, forward: Forward) -> Forward:
        self.recorded += 1
        logits = forward()

        def replay() -> torch.Tensor:
            self.replayed += 1
            logits.copy_(forward())
            return logits

        return replay


@pytest.mark.parametrize("name", ["llama", "mistral-window", "qwen2-some-layers-slide", "qwen3"])
@pytest.mark.parametrize("block_size", [5, 16])
def test_replayed_steps_give_the_same_tokens(name: str, block_size: int, tmp_path: Path):
    assert name in TINY
    make_checkpoint(name, tmp_path)
    plain = make_runner(tmp_path, block_size=block_size, poison=True)
    expected = greedy(plain, PROMPTS, 12, 512)
    runner = make_runner(tmp_path, block_size=block_size, poison=True)
    recorder = Direct()
    runner.graphs = DecodeGraphs(runner.model, runner.cache, recorder)
    assert greedy(runner, PROMPTS, 12, 512) == expected
    assert recorder.replayed >= 10
    assert recorder.recorded <= 3  # a batch of 8, and blocks up to a power of two or its double


def test_rows_that_only_pad_the_batch_disturb_nobody(tmp_path: Path):
    """The block of zeros stays zero, and no block of a request is written."""
    make_checkpoint("llama", tmp_path)
    runner = make_runner(tmp_path)
    runner.graphs = DecodeGraphs(runner.model, runner.cache, Direct())
    greedy(runner, PROMPTS[:3], 6, 512)
    for tensor in (*runner.cache.keys, *runner.cache.values):
        assert not tensor[:, runner.cache.padding_block].any()
        assert tensor[:, runner.cache.scratch_block].any()


class Unrecordable:
    def record(self, forward: Callable[[], torch.Tensor]) -> Forward:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")


def test_a_model_that_cannot_be_recorded_runs_as_it_is(tmp_path: Path):
    make_checkpoint("llama", tmp_path)
    expected = greedy(make_runner(tmp_path), PROMPTS, 5, 512)
    runner = make_runner(tmp_path)
    runner.graphs = DecodeGraphs(runner.model, runner.cache, Unrecordable())
    assert greedy(runner, PROMPTS, 5, 512) == expected
    assert runner.graphs.disabled == "operation not permitted when stream is capturing"
