"""Log-probabilities of prompt tokens against transformers, however the prompt is computed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from minisgl_tui.engine import LLM, SamplingParams
from minisgl_tui.engine.llm import Completion
from minisgl_tui.engine.models import base

from .harness import make_checkpoint, random_tokens, reference_logits

ASKING = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True, logprobs=2, prompt_logprobs=3)
PROMPTS = [random_tokens(length, length) for length in (1, 2, 90, 33)]


@pytest.fixture(scope="module", params=["native", "transformers"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp(request.param)
    return path, request.param, make_checkpoint("llama", path)


def make(loaded: tuple[Path, str, Any], **settings: Any) -> LLM:
    path, impl, _ = loaded
    defaults: dict[str, Any] = {"dtype": "float32", "device": "cpu", "num_blocks": 64}
    return LLM(path, model_impl=impl, skip_tokenizer=True, **{**defaults, **settings})


def assert_right(loaded: tuple[Path, str, Any], prompt: list[int], answer: Completion) -> None:
    scores = reference_logits(loaded[2], prompt).log_softmax(-1)
    first, *rest = answer.prompt_logprobs
    assert first is None
    assert len(rest) == len(prompt) - 1
    for position, entry in enumerate(rest):
        assert entry is not None
        assert entry.logprob == pytest.approx(
            float(scores[position, prompt[position + 1]]), abs=1e-3
        )
        likeliest = scores[position].topk(3)
        assert [token for token, _ in entry.top] == likeliest.indices.tolist()
        values = [value for _, value in entry.top]
        assert values == pytest.approx(likeliest.values.tolist(), abs=1e-3)


@pytest.mark.parametrize("budget", [7, 512])
def test_prompt_tokens_are_as_likely_as_transformers_says(
    loaded: tuple[Path, str, Any], budget: int
):
    llm = make(loaded, max_batch_tokens=budget)
    plain = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
    *answers, other = llm.generate([*PROMPTS, PROMPTS[2]], [*[ASKING] * len(PROMPTS), plain])
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert_right(loaded, prompt, answer)
    assert other.prompt_logprobs == []
    assert other.token_ids == answers[2].token_ids


def test_a_cached_prompt_gives_them_too(loaded: tuple[Path, str, Any]):
    llm = make(loaded, block_size=4)
    llm.generate([PROMPTS[2]], SamplingParams(max_tokens=1))
    [answer] = llm.generate([PROMPTS[2]], ASKING)
    assert answer.cached_tokens == 0
    assert_right(loaded, PROMPTS[2], answer)


def test_asking_changes_neither_the_answer_nor_its_logprobs(loaded: tuple[Path, str, Any]):
    plain = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True, logprobs=2)
    [asked], [free] = (make(loaded).generate([PROMPTS[3]], p) for p in (ASKING, plain))
    assert asked.token_ids == free.token_ids
    for one, other in zip(asked.logprobs, free.logprobs, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)


def test_the_logits_come_a_few_rows_at_a_time():
    rows, seen = torch.arange(150), []
    base.Scoring(rows, lambda logits: seen.append(len(logits))).feed(
        torch.zeros(150, 2), lambda part: part.new_zeros(len(part), 9)
    )
    assert sum(seen) == 150 and max(seen) <= 64
