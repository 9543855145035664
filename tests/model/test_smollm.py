"""The default model says, token for token, what it says under transformers.

Float32 and greedy, for prompts of 5 to 600 tokens: alone and batched, in chunks of any size, with
any block size, from a cold and from a warm cache.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from minisgl_tui.engine import LLM, SamplingParams

from .harness import reference_greedy

LENGTHS = (5, 8, 13, 21, 34, 55, 89, 120, 160, 250, 400, 600)
NEW_TOKENS = 24
GREEDY = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, ignore_eos=True)
PROSE = Path(__file__).parents[2] / "LICENSE"


@dataclass(frozen=True)
class Answers:
    """Prompts of every length, and how transformers continues them."""

    prompts: list[list[int]]
    expected: list[list[int]]


@pytest.fixture(scope="module")
def answers(smollm: Path) -> Answers:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm, local_files_only=True)
    tokens = tokenizer.encode(PROSE.read_text())
    prompts = [tokens[100 * i : 100 * i + length] for i, length in enumerate(LENGTHS)]
    model = transformers.AutoModelForCausalLM.from_pretrained(smollm, dtype=torch.float32).eval()
    expected = [reference_greedy(model, prompt, NEW_TOKENS) for prompt in prompts]
    return Answers(prompts, expected)


@cache
def engine(block_size: int, max_batch_tokens: int, attention: str = "auto") -> LLM:
    return LLM(
        "smollm2-135m",
        dtype="float32",
        device="cpu",
        block_size=block_size,
        num_blocks=-(-4096 // block_size),
        max_batch_tokens=max_batch_tokens,
        attention=attention,
        skip_tokenizer=True,
    )


@pytest.fixture(scope="module", autouse=True)
def forget_engines():
    yield
    engine.cache_clear()


def assert_batch_equals(llm: LLM, answers: Answers) -> None:
    """Together, cold and then warm."""
    llm.reset_prefix_cache()
    cold = llm.generate(answers.prompts, GREEDY)
    assert [answer.token_ids for answer in cold] == answers.expected
    warm = llm.generate(answers.prompts, GREEDY)
    assert [answer.token_ids for answer in warm] == answers.expected
    size = llm.engine.config.block_size
    for answer, prompt in zip(warm, answers.prompts, strict=True):
        assert answer.cached_tokens == (len(prompt) - 1) // size * size


def assert_each_alone_equals(llm: LLM, answers: Answers) -> None:
    llm.reset_prefix_cache()
    alone = [llm.generate([prompt], GREEDY)[0].token_ids for prompt in answers.prompts]
    assert alone == answers.expected


def test_alone_in_whole_prompts(answers: Answers):
    assert_each_alone_equals(engine(16, 1024), answers)


@pytest.mark.parametrize(("block_size", "max_batch_tokens"), [(16, 32), (5, 64), (1, 512)])
def test_batched_in_chunks_cold_and_warm(answers: Answers, block_size: int, max_batch_tokens: int):
    assert_batch_equals(engine(block_size, max_batch_tokens), answers)


def test_the_reference_attention_agrees(answers: Answers):
    short = Answers(answers.prompts[:6], answers.expected[:6])
    assert_batch_equals(engine(16, 64, "reference"), short)


@pytest.mark.long
@pytest.mark.parametrize("block_size", [1, 5, 16])
@pytest.mark.parametrize("max_batch_tokens", [7, 64, 512])
def test_every_combination(answers: Answers, block_size: int, max_batch_tokens: int):
    llm = engine(block_size, max_batch_tokens)
    assert_each_alone_equals(llm, answers)
    assert_batch_equals(llm, answers)
    engine.cache_clear()


def test_bfloat16_stays_close_to_float32(answers: Answers):
    """Not equal, but alike: most first tokens agree, and their probabilities nearly."""
    params = SamplingParams(temperature=0, max_tokens=1, logprobs=1, ignore_eos=True)
    llm = LLM("smollm2-135m", dtype="bfloat16", device="cpu", num_blocks=512, skip_tokenizer=True)
    exact = engine(16, 1024).generate(answers.prompts, params)
    rough = llm.generate(answers.prompts, params)
    same = [a.token_ids == b.token_ids for a, b in zip(exact, rough, strict=True)]
    assert sum(same) >= len(same) - 2
    gaps = [
        abs(a.logprobs[0].logprob - b.logprobs[0].logprob)
        for a, b in zip(exact, rough, strict=True)
        if a.token_ids == b.token_ids
    ]
    assert max(gaps) < 0.2
