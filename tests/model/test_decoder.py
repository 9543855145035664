"""The native decoder computes what transformers computes, however the work is cut up."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from minisgl_tui.engine.models.decoder import RMSNorm
from minisgl_tui.engine.plan import Plan
from minisgl_tui.engine.request import Request

from .harness import (
    FEATURES,
    GREEDY,
    TINY,
    Tables,
    chunk,
    greedy,
    make_checkpoint,
    make_runner,
    prefill_logits,
    random_tokens,
    reference_greedy,
    reference_logits,
)

BACKENDS = ("reference", "sdpa", "grouped")
BLOCK_SIZES = (1, 5, 16)


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@dataclass
class Checkpoint:
    path: Path
    model: Any


@pytest.fixture(scope="module", params=list(TINY))
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp(request.param)
    return Checkpoint(path, make_checkpoint(request.param, path))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("llama")
    return Checkpoint(path, make_checkpoint("llama", path))


@pytest.mark.parametrize("attention", BACKENDS)
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("chunk_size", [1, 7, 64, 150])
def test_last_logits_of_a_prompt_match_transformers_in_any_chunks(
    checkpoint: Checkpoint, attention: str, block_size: int, chunk_size: int
):
    tokens = random_tokens(150 if chunk_size > 1 else 20)
    runner = make_runner(checkpoint.path, block_size=block_size, attention=attention)
    expected = reference_logits(checkpoint.model, tokens)[-1]
    assert_close(prefill_logits(runner, tokens, chunk_size), expected)


@pytest.mark.parametrize("attention", BACKENDS)
def test_logits_of_a_mixed_batch_match_transformers(checkpoint: Checkpoint, attention: str):
    """Two decodes of different lengths, a first chunk and a later chunk, in one step."""
    runner = make_runner(checkpoint.path, block_size=5, attention=attention, poison=True)
    tables = Tables(runner)
    lengths = [33, 3, 20, 40]
    prompts = [random_tokens(length, seed) for seed, length in enumerate(lengths)]
    requests = [Request(i, list(prompt), GREEDY) for i, prompt in enumerate(prompts)]
    before = [requests[0], requests[1], requests[3]]
    runner.logits(Plan(0, [chunk(tables, r, c) for r, c in zip(before, (32, 2, 11), strict=True)]))
    logits = runner.logits(Plan(1, [chunk(tables, request, 99) for request in requests]))
    for prompt, row in zip(prompts, logits, strict=True):
        assert_close(row, reference_logits(checkpoint.model, prompt)[-1])


@pytest.mark.parametrize("attention", BACKENDS)
def test_greedy_tokens_equal_transformers_alone_and_batched(checkpoint: Checkpoint, attention: str):
    prompts = [random_tokens(length, length) for length in (5, 31, 64, 90)]
    expected = [reference_greedy(checkpoint.model, prompt, 12) for prompt in prompts]
    runner = make_runner(checkpoint.path, attention=attention)
    assert [greedy(runner, [prompt], 12, 512)[0] for prompt in prompts] == expected
    for budget in (7, 64):
        assert greedy(runner, prompts, 12, budget) == expected


@pytest.mark.parametrize("name", FEATURES)
def test_what_a_family_adds_is_computed_as_in_transformers(name: str, tmp_path: Path):
    """Whole, in chunks, and batched: rope kinds, layers without rope, experts."""
    model = make_checkpoint(name, tmp_path)
    runner = make_runner(tmp_path, block_size=5)
    tokens = random_tokens(150)
    expected = reference_logits(model, tokens)[-1]
    for size in (7, 150):
        assert_close(prefill_logits(runner, tokens, size), expected)
    prompts = [random_tokens(length, length) for length in (5, 31, 90)]
    expected_tokens = [reference_greedy(model, prompt, 6) for prompt in prompts]
    assert greedy(runner, prompts, 6, 40) == expected_tokens
    assert greedy(runner, prompts[:1], 6, 40) == expected_tokens[:1]


@pytest.mark.parametrize("attention", BACKENDS)
def test_requests_of_one_length_with_common_beginnings_keep_their_own_tokens(
    llama: Checkpoint, attention: str
):
    """Rows of one shape are run together, in whatever order they share their beginnings."""
    heads = [random_tokens(8, seed) for seed in (1, 2, 1, 3, 2, 1)]
    prompts = [[*head, *random_tokens(23, 10 + i)] for i, head in enumerate(heads)]
    expected = [reference_greedy(llama.model, prompt, 8) for prompt in prompts]
    runner = make_runner(llama.path, block_size=4, attention=attention)
    tables = Tables(runner)
    requests = [Request(i, list(prompt), GREEDY) for i, prompt in enumerate(prompts)]
    first: dict[tuple[int, ...], Request] = {}
    for request, head in zip(requests, heads, strict=True):
        writer = first.setdefault(tuple(head), request)
        tables.grow(writer, 8)
        if writer is not request:
            request.block_table, request.computed = list(writer.block_table), 8
    for step in range(8):
        rows = [chunk(tables, request, 99) for request in requests]
        for request, token in zip(requests, runner.execute(Plan(step, rows)).tokens, strict=True):
            request.tokens.append(token)
    assert [request.output for request in requests] == expected


@pytest.mark.parametrize("attention", BACKENDS)
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_a_request_may_read_blocks_that_another_writes_in_the_same_step(
    llama: Checkpoint, attention: str, block_size: int
):
    runner = make_runner(llama.path, block_size=block_size, attention=attention, poison=True)
    tables = Tables(runner)
    shared = random_tokens(45)
    writer = Request(0, shared + random_tokens(9, 1), GREEDY)
    reader = Request(1, shared + random_tokens(4, 2), GREEDY)
    decoder = Request(2, [*shared, 77], GREEDY)  # one token of its own: a decode-shaped row
    first = chunk(tables, writer, 99)
    full = 45 // block_size
    rows = [first]
    for request in (reader, decoder):
        request.block_table = writer.block_table[:full]
        request.computed = full * block_size
        rows.append(chunk(tables, request, 99))
    logits = runner.logits(Plan(0, list(reversed(rows))))
    for request, row in zip((decoder, reader, writer), logits, strict=True):
        expected = reference_logits(llama.model, request.tokens)[-1]
        assert_close(row, expected)


def test_a_cached_prefix_gives_the_logits_of_a_cold_start(llama: Checkpoint):
    runner = make_runner(llama.path, block_size=5)
    tables = Tables(runner)
    tokens = random_tokens(52)
    first = Request(0, list(tokens), GREEDY)
    cold = runner.logits(Plan(0, [chunk(tables, first, 99)]))
    second = Request(1, list(tokens), GREEDY, block_table=first.block_table[:10], computed=50)
    warm = runner.logits(Plan(1, [chunk(tables, second, 99)]))
    assert_close(warm, cold)


def test_logits_are_float32_and_only_for_rows_that_sample(llama: Checkpoint):
    runner = make_runner(llama.path)
    tables = Tables(runner)
    whole, part = Request(0, random_tokens(9), GREEDY), Request(1, random_tokens(30), GREEDY)
    rows = [chunk(tables, whole, 99), chunk(tables, part, 10)]
    logits = runner.logits(Plan(0, rows))
    assert (logits.shape, logits.dtype) == ((1, 199), torch.float32)


def test_a_step_in_which_no_row_samples_returns_no_tokens(llama: Checkpoint):
    runner = make_runner(llama.path)
    output = runner.execute(Plan(0, [chunk(Tables(runner), Request(0, [5] * 9, GREEDY), 4)]))
    assert list(output.tokens) == []
    assert set(output.timings) == {"prepare", "forward", "sample"}


@pytest.mark.parametrize("shape", [(1, 48), (1, 3, 16)])
@pytest.mark.parametrize("size", [1e-4, 1.0, 300.0])
def test_one_row_is_normalized_like_many(shape: tuple[int, ...], size: float):
    torch.manual_seed(0)
    norm = RMSNorm(shape[-1], 1e-5)
    norm.weight = torch.nn.Parameter(torch.randn(shape[-1]), requires_grad=False)
    x = (torch.randn(shape) * size + size).bfloat16()
    one, exact = norm.bfloat16()(x), norm.float()(x.float())
    assert one.shape == shape and one.dtype == torch.bfloat16
    torch.testing.assert_close(one.float(), exact, rtol=0.02, atol=1e-6)
    torch.testing.assert_close(one, norm.bfloat16()(x.expand(2, *shape[1:]))[:1], rtol=0.01, atol=0)
