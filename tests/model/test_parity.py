"""Every architecture computes what transformers computes, however the work is cut up.

Tiny random models in float32, in our own decoder where that has them and through transformers' code
for all: logits and greedy tokens, by every attention backend.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from minisgl_tui.engine.loader import open_checkpoint
from minisgl_tui.engine.models.base import CausalLM, Checkpoint
from minisgl_tui.engine.models.bridge import TransformersCheckpoint
from minisgl_tui.engine.models.native import NativeCheckpoint
from minisgl_tui.engine.plan import Plan
from minisgl_tui.engine.request import Request
from minisgl_tui.engine.runner.model_runner import ModelRunner

from .harness import (
    CPU,
    GREEDY,
    Tables,
    chunk,
    greedy,
    make_checkpoint,
    prefill_logits,
    random_tokens,
    reference_greedy,
    reference_logits,
    runner_of,
)
from .zoo import BRIDGED

BACKENDS = ("reference", "sdpa", "grouped")  # those that run on CPUs
NATIVE = (
    "llama-tied-llama3-rope",
    "mistral-window",
    "mixtral",
    "qwen2-some-layers-slide",
    "qwen3",
    "qwen3-moe",
    "smollm3",
)
SERVED = [
    *((name, "native") for name in NATIVE),
    *((name, "transformers") for name in NATIVE),
    *((name, "auto") for name in BRIDGED),
]
LENGTHS = (33, 3, 20, 40)  # the windows are of 20 and 24 tokens


@dataclass(frozen=True)
class Served:
    """A loaded model and what transformers computes of it."""

    checkpoint: Checkpoint
    model: CausalLM
    original: Any

    def runner(self, **settings: Any) -> ModelRunner:
        return runner_of(self.checkpoint, self.model, **settings)

    def expected(self, tokens: list[int]) -> torch.Tensor:
        return reference_logits(self.original, tokens)[-1]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Such small tensors are not worth waking a second one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=SERVED, ids="-".join)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    name, impl = request.param
    path: Path = tmp_path_factory.mktemp(name)
    original = make_checkpoint(name, path)
    checkpoint = open_checkpoint(path, impl)
    kind = NativeCheckpoint if impl == "native" else TransformersCheckpoint
    assert isinstance(checkpoint, kind)
    yield Served(checkpoint, checkpoint.load(dtype=torch.float32, device=CPU), original)


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_a_prompt_in_one_step_in_chunks_and_token_by_token(served: Served):
    tokens = random_tokens(60)
    runner = served.runner(attention="auto", block_size=5)
    assert_close(prefill_logits(runner, tokens, 99), served.expected(tokens))
    assert_close(prefill_logits(runner, tokens, 7), served.expected(tokens))
    request, tables = Request(0, tokens[:50], GREEDY), Tables(runner)
    runner.logits(Plan(0, [chunk(tables, request, 49)]))
    logits = torch.empty(0)
    for token in tokens[50:]:
        (logits,) = runner.logits(Plan(1, [chunk(tables, request, 1)]))
        request.tokens.append(token)
    assert_close(logits, served.expected(tokens[:-1]))


@pytest.mark.parametrize("attention", BACKENDS)
def test_a_mixed_batch_and_a_cached_prefix(served: Served, attention: str):
    """Two decodes, a first and a later chunk in one step; then a prompt that is mostly cached."""
    runner = served.runner(block_size=5, attention=attention, poison=True)
    tables = Tables(runner)
    prompts = [random_tokens(length, seed) for seed, length in enumerate(LENGTHS)]
    requests = [Request(i, list(prompt), GREEDY) for i, prompt in enumerate(prompts)]
    before = [requests[0], requests[1], requests[3]]
    runner.logits(Plan(0, [chunk(tables, r, c) for r, c in zip(before, (32, 2, 11), strict=True)]))
    logits = runner.logits(Plan(1, [chunk(tables, request, 99) for request in requests]))
    for prompt, row in zip(prompts, logits, strict=True):
        assert_close(row, served.expected(prompt))

    longer = [*prompts[3], *random_tokens(4, 9)]
    warm = Request(4, longer, GREEDY, block_table=requests[3].block_table[:7], computed=35)
    (last,) = runner.logits(Plan(2, [chunk(tables, warm, 99)]))
    assert_close(last, served.expected(longer))


def test_greedy_tokens_alone_and_batched(served: Served):
    prompts = [random_tokens(length, length) for length in (5, 31, 44)]
    expected = [reference_greedy(served.original, prompt, 8) for prompt in prompts]
    runner = served.runner(attention="auto")
    assert [greedy(runner, [prompt], 8, 512)[0] for prompt in prompts] == expected
    assert greedy(runner, prompts, 8, 11) == expected
