"""Bias, least length and penalties: what they do to logits, and that a request's are its own."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from minisgl_tui.engine import LLM, SamplingParams
from minisgl_tui.engine.events import Preempted
from minisgl_tui.engine.request import Request
from minisgl_tui.engine.runner.adjuster import Adjuster

from .harness import make_checkpoint, random_tokens, reference_logits

VOCAB = 20
LOGITS = torch.randn(VOCAB, generator=torch.manual_seed(0)) * 4
PROMPT, OUTPUT = [3, 5, 5, 7, 11], [5, 2, 2, 2, 19]
ENDS = frozenset({2, 4, 999})  # an end of sequence may lie outside a cut-down vocabulary


def request(prompt: list[int] = PROMPT, output: list[int] = OUTPUT, **settings: Any) -> Request:
    made = Request(0, list(prompt), SamplingParams(**settings), ends=ENDS)
    made.tokens += output
    return made


def adjusted(one: Request) -> torch.Tensor:
    return Adjuster().adjust(LOGITS[None], [one])[0]


def by_hand(one: Request) -> torch.Tensor:
    """The documented formulas, one vocabulary entry at a time."""
    params, output, expected = one.params, Counter(one.output), []
    for token, logit in enumerate(LOGITS.tolist()):
        if len(one.output) < params.min_tokens and token in one.ends:
            logit = -torch.inf
        logit += params.logit_bias.get(token, 0)
        if token in one.tokens:
            penalty = params.repetition_penalty
            logit = logit / penalty if logit > 0 else logit * penalty
        logit -= params.frequency_penalty * output[token]
        logit -= params.presence_penalty * (output[token] > 0)
        expected.append(logit)
    return torch.tensor(expected)


@pytest.mark.parametrize("penalty", [0.5, 1.3])
def test_the_repetition_penalty_is_that_of_transformers(penalty: float):
    from transformers import RepetitionPenaltyLogitsProcessor

    one = request(repetition_penalty=penalty)
    theirs: Any = RepetitionPenaltyLogitsProcessor(penalty)
    assert torch.equal(adjusted(one), theirs(torch.tensor([one.tokens]), LOGITS[None].clone())[0])


@pytest.mark.parametrize(
    "settings",
    [
        {"presence_penalty": 1.5},
        {"presence_penalty": -2.0},
        {"frequency_penalty": 0.7},
        {"frequency_penalty": -0.3, "presence_penalty": 0.4},
        {"logit_bias": {0: 100, 5: -100, 19: 2.5}},
        {"min_tokens": len(OUTPUT) + 1},
        {"min_tokens": len(OUTPUT)},
        {
            "repetition_penalty": 1.7,
            "frequency_penalty": 0.2,
            "presence_penalty": -0.1,
            "logit_bias": {5: 3, 2: 50},
            "min_tokens": 9,
        },
    ],
)
def test_each_setting_does_what_is_documented(settings: dict[str, Any]):
    one = request(**settings)
    torch.testing.assert_close(adjusted(one), by_hand(one))


def test_the_penalties_on_generated_tokens_leave_the_prompt_alone():
    one = request(output=[], presence_penalty=2, frequency_penalty=2)
    assert torch.equal(adjusted(one), LOGITS)


def test_an_end_of_sequence_that_is_ignored_is_not_barred_either():
    one = request(output=[], min_tokens=3)
    one.ends = frozenset()
    assert torch.equal(adjusted(one), LOGITS)


@pytest.mark.parametrize("penalty", [1e-300, 1e300])
def test_an_absurd_repetition_penalty_gives_no_nan(penalty: float):
    assert not adjusted(request(repetition_penalty=penalty)).isnan().any()


def test_a_batch_that_asks_for_nothing_is_not_even_copied():
    logits = LOGITS.repeat(2, 1)
    assert Adjuster().adjust(logits, [request(), request(temperature=0)]) is logits
    none = torch.empty(0, VOCAB)
    assert Adjuster().adjust(none, []) is none


def test_the_models_logits_stay_as_they_were():
    logits = LOGITS[None].clone()
    Adjuster().adjust(logits, [request(logit_bias={1: 9}, frequency_penalty=1)])
    assert torch.equal(logits[0], LOGITS)


def test_what_is_remembered_keeps_up_with_the_request_and_goes_with_it():
    adjuster, one = Adjuster(), request(output=[], frequency_penalty=0.5, repetition_penalty=1.1)
    for token in OUTPUT:
        torch.testing.assert_close(adjuster.adjust(LOGITS[None], [one])[0], by_hand(one))
        one.tokens.append(token)
    one.tokens += OUTPUT  # several at once
    torch.testing.assert_close(adjuster.adjust(LOGITS[None], [one])[0], by_hand(one))
    assert len(adjuster._histories) == 1
    del one
    assert not adjuster._histories


KINDS: list[dict[str, Any]] = [
    {},
    {"logit_bias": {1: 5.0, 2: -3.0}},
    {"min_tokens": 100},
    {"presence_penalty": 1.0},
    {"repetition_penalty": 1.3, "frequency_penalty": 0.7, "logit_bias": {4: 2.0}},
]


@given(st.lists(st.sampled_from(KINDS), max_size=5), st.sampled_from(KINDS), st.integers(0, 5))
def test_a_row_is_the_same_alone_and_in_any_company(
    others: list[dict[str, Any]], mine: dict[str, Any], place: int
):
    company = [request([1, 2, 3], [4, 4], **settings) for settings in others]
    place = min(place, len(company))
    company.insert(place, request(**mine))
    together = Adjuster().adjust(LOGITS.repeat(len(company), 1), company)
    assert torch.equal(together[place], adjusted(request(**mine)))


# --- through a whole engine ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("llama")
    return path, make_checkpoint("llama", path)


def make(checkpoint: tuple[Path, Any], **settings: Any) -> LLM:
    defaults: dict[str, Any] = {"dtype": "float32", "device": "cpu", "num_blocks": 64}
    return LLM(str(checkpoint[0]), skip_tokenizer=True, **{**defaults, **settings})


ALL = {
    "repetition_penalty": 1.2,
    "frequency_penalty": 0.6,
    "presence_penalty": 0.4,
    "logit_bias": {9: 2.0, 30: -4.0},
    "min_tokens": 15,
}


def test_greedy_follows_transformers_with_a_repetition_penalty(checkpoint: tuple[Path, Any]):
    model = checkpoint[1]
    prompt = random_tokens(12)
    model.generation_config.eos_token_id = None
    theirs = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        max_new_tokens=24,
        do_sample=False,
        repetition_penalty=1.8,
        pad_token_id=0,
    )[0, len(prompt) :].tolist()
    params = SamplingParams(temperature=0, repetition_penalty=1.8, max_tokens=24, ignore_eos=True)
    [answer] = make(checkpoint).generate([prompt], params)
    assert answer.token_ids == theirs
    [plain] = make(checkpoint).generate(
        [prompt], SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
    )
    assert plain.token_ids != theirs


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_preemption_chunks_and_company_change_no_token(
    checkpoint: tuple[Path, Any], temperature: float
):
    prompts = [random_tokens(length, length) for length in (20, 21, 22, 23)]
    params = [
        SamplingParams(temperature=temperature, max_tokens=30, seed=i, **(ALL if i % 2 else {}))
        for i in range(4)
    ]
    alone = [
        make(checkpoint).generate([prompt], one)[0]
        for prompt, one in zip(prompts, params, strict=True)
    ]
    tight = make(checkpoint, block_size=4, num_blocks=18, max_batch_tokens=7)
    preempted: list[int] = []
    tight.engine.log.listen(
        lambda record: preempted.extend(
            event.req for event in record.events if isinstance(event, Preempted)
        )
    )
    together = tight.generate(prompts, params)
    assert {1, 3} & set(preempted)
    assert [answer.token_ids for answer in together] == [answer.token_ids for answer in alone]


def test_samples_of_one_prompt_are_penalised_each_for_its_own(checkpoint: tuple[Path, Any]):
    params = SamplingParams(seed=5, max_tokens=20, ignore_eos=True, frequency_penalty=2)
    llm = make(checkpoint)
    samples = llm.engine.submit_samples([5, 6, 7], params, 3)
    while llm.engine.has_work():
        llm.engine.step()
    singly = [llm.generate([[5, 6, 7]], params.sample(i))[0].token_ids for i in range(3)]
    assert [sample.output for sample in samples] == singly


def test_bias_forces_and_bans(checkpoint: tuple[Path, Any]):
    settings: dict[str, Any] = {"max_tokens": 6, "ignore_eos": True, "seed": 1}
    forced = SamplingParams(logit_bias={42: 100}, **settings)
    assert make(checkpoint).generate([[5, 6]], forced)[0].token_ids == [42] * 6
    free = make(checkpoint).generate([[5, 6]], SamplingParams(**settings))[0].token_ids
    banned = SamplingParams(logit_bias=dict.fromkeys(free, -100), **settings)
    assert not set(make(checkpoint).generate([[5, 6]], banned)[0].token_ids) & set(free)


def test_a_request_does_not_end_before_its_least_length(checkpoint: tuple[Path, Any]):
    eager = {"logit_bias": {2: 100, 17: 90}, "stop_token_ids": (17,), "max_tokens": 12}
    llm = make(checkpoint)
    [early] = llm.generate([[5, 6]], SamplingParams(**eager))
    [late] = llm.generate([[5, 6]], SamplingParams(min_tokens=4, **eager))
    assert early.token_ids == [2]
    assert not {2, 17} & set(late.token_ids[:4])
    assert (late.token_ids[4:], late.finish_reason) == ([2], "stop")


def test_logprobs_are_those_before_bias_and_penalties(checkpoint: tuple[Path, Any]):
    params = SamplingParams(temperature=0, max_tokens=1, logprobs=2, logit_bias={42: 100})
    [answer] = make(checkpoint).generate([[5, 6]], params)
    expected = reference_logits(checkpoint[1], [5, 6])[-1].log_softmax(-1)
    assert answer.token_ids == [42]
    assert answer.logprobs[0].logprob == pytest.approx(float(expected[42]), abs=1e-4)
    assert [token for token, _ in answer.logprobs[0].top] == expected.topk(2).indices.tolist()
