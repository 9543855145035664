"""What the sampler draws from, and that a request's draws are its own."""

import math

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from minisgl_tui.engine.runner.sampler import (
    NO_NUMBERS,
    Choice,
    SampleRow,
    choose,
    distribution,
    request_seed,
    sample,
    token_logprobs,
    uniform,
)
from minisgl_tui.engine.sampling import SamplingParams

VOCAB = 12
LOGITS = torch.linspace(2.0, -2.0, VOCAB)[torch.randperm(VOCAB, generator=torch.manual_seed(0))]
DRAWS = 20_000


def rows(params: SamplingParams, count: int, seed: int = 1) -> list[SampleRow]:
    return [SampleRow(params, seed, position) for position in range(count)]


def draw(params: SamplingParams, count: int = DRAWS, seed: int = 1) -> torch.Tensor:
    """How often each token comes, over ``count`` positions of one request."""
    tokens = sample(LOGITS.repeat(count, 1), rows(params, count, seed))
    return torch.bincount(torch.tensor(tokens), minlength=VOCAB)


def assert_follows(counts: torch.Tensor, expected: torch.Tensor) -> None:
    """A chi-square bound that an honest sampler exceeds less than once in 10⁶ runs."""
    assert torch.all(counts[expected == 0] == 0)
    kept = expected > 0
    wanted = expected[kept] / expected.sum() * counts.sum()
    statistic = float(((counts[kept] - wanted) ** 2 / wanted).sum())
    freedom = int(kept.sum()) - 1
    assert statistic < freedom + 5 * math.sqrt(2 * freedom) + 20


def test_temperature_one_draws_from_the_softmax():
    assert_follows(draw(SamplingParams()), LOGITS.softmax(-1))


@pytest.mark.parametrize("temperature", [0.3, 0.7, 2.5])
def test_temperature_divides_the_logits(temperature: float):
    counts = draw(SamplingParams(temperature=temperature))
    assert_follows(counts, (LOGITS / temperature).softmax(-1))


@pytest.mark.parametrize("k", [1, 3, 12, 500])
def test_top_k_draws_only_the_k_likeliest(k: int):
    kept = LOGITS.ge(LOGITS.topk(min(k, VOCAB)).values[-1])
    assert_follows(draw(SamplingParams(top_k=k)), LOGITS.softmax(-1) * kept)


def test_a_top_k_beyond_64_bits_keeps_every_token():
    huge = SamplingParams()
    msgspec.structs.force_setattr(huge, "top_k", 2**63)  # more than may be asked for
    plain = SamplingParams()
    assert torch.equal(distribution(LOGITS[None], [huge]), distribution(LOGITS[None], [plain]))


@pytest.mark.parametrize("p", [0.01, 0.5, 0.9])
def test_top_p_draws_from_the_smallest_set_that_reaches_p(p: float):
    ranked, order = LOGITS.softmax(-1).sort(descending=True)
    size = int((ranked.cumsum(-1) < p).sum()) + 1
    kept = torch.zeros(VOCAB).scatter(0, order[:size], 1.0)
    assert_follows(draw(SamplingParams(top_p=p)), LOGITS.softmax(-1) * kept)


@pytest.mark.parametrize("p", [0.05, 0.4, 1.0])
def test_min_p_drops_what_is_too_unlikely_beside_the_likeliest(p: float):
    probabilities = LOGITS.softmax(-1)
    kept = probabilities >= p * probabilities.max()
    assert_follows(draw(SamplingParams(min_p=p)), probabilities * kept)


def test_filters_apply_in_the_order_top_k_top_p_min_p():
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    params = SamplingParams(top_k=3, top_p=0.7, min_p=0.1)
    # Of 0.4, 0.3, 0.2 (renormalised 0.44, 0.33, 0.22) the first two reach 0.7.
    assert (distribution(logits, [params])[0] > 0).tolist() == [True, True, False, False]


def test_equal_logits_do_not_let_top_k_keep_more_than_k():
    weights = distribution(torch.zeros(1, 9), [SamplingParams(top_k=4)])
    assert int((weights > 0).sum()) == 4


def test_temperature_zero_is_the_argmax_whatever_the_filters_say():
    params = SamplingParams(temperature=0, top_p=0.3, top_k=2, min_p=0.5)
    assert sample(LOGITS[None], rows(params, 1)) == [int(LOGITS.argmax())]


def test_greedy_rows_are_exact_in_a_mixed_batch():
    logits = torch.randn(40, 997, generator=torch.manual_seed(3))
    hot, cold = SamplingParams(temperature=5.0), SamplingParams(temperature=0)
    tokens = sample(logits, [SampleRow(hot if i % 2 else cold, i, i) for i in range(40)])
    assert tokens[::2] == logits[::2].argmax(-1).tolist()


@pytest.mark.parametrize("spoiled", [slice(None), slice(3, 4)])
def test_nothing_is_chosen_where_a_logit_is_no_number(spoiled: slice):
    logits = LOGITS.repeat(6, 1)
    logits[::2, spoiled] = math.nan
    kinds = [SamplingParams(temperature=0)] * 2 + [SamplingParams(), SamplingParams(top_k=2)] * 2
    chosen = choose(logits, [SampleRow(params, 1, 5) for params in kinds])
    assert [choice is NO_NUMBERS for choice in chosen] == [True, False] * 3


def test_a_tiny_temperature_is_the_argmax_and_not_nan():
    params = SamplingParams(temperature=1e-30)
    assert sample(LOGITS[None] * 1e4, rows(params, 1)) == [int(LOGITS.argmax())]


@given(st.lists(st.sampled_from(["greedy", "plain", "top_k", "top_p", "min_p"]), max_size=6))
def test_a_request_draws_the_same_whatever_is_in_the_batch(others: list[str]):
    kinds = {
        "greedy": SamplingParams(temperature=0),
        "plain": SamplingParams(),
        "top_k": SamplingParams(top_k=3),
        "top_p": SamplingParams(top_p=0.8),
        "min_p": SamplingParams(min_p=0.2),
    }
    mine = SampleRow(SamplingParams(top_p=0.95, temperature=1.3), seed=77, position=5)
    alone = sample(LOGITS[None], [mine])
    company = [SampleRow(kinds[kind], 3, index) for index, kind in enumerate(others)]
    batch = [*company, mine]
    assert sample(LOGITS.repeat(len(batch), 1), batch)[-1:] == alone


def test_seeds_differ_and_repeat():
    params = SamplingParams()
    assert torch.equal(draw(params, 200, seed=5), draw(params, 200, seed=5))
    assert not torch.equal(draw(params, 200, seed=5), draw(params, 200, seed=6))


def test_without_a_seed_the_engine_and_the_request_decide():
    unseeded, seeded = SamplingParams(), SamplingParams(seed=9)
    derived = {request_seed(unseeded, engine, request) for engine in (0, 1) for request in (0, 1)}
    assert len(derived) == 4
    assert request_seed(seeded, 0, 1) == request_seed(seeded, 1, 2)


@given(st.integers(), st.integers(0, 1 << 40))
def test_random_numbers_lie_in_the_unit_interval(seed: int, position: int):
    assert 0 <= uniform(seed, position) < 1


def test_neighbouring_seeds_and_positions_are_uncorrelated():
    table = torch.tensor([[uniform(seed, place) for place in range(64)] for seed in range(64)])
    assert abs(float(table.mean()) - 0.5) < 0.025
    for shifted in (table.roll(1, 0), table.roll(1, 1)):
        correlation = torch.corrcoef(torch.stack((table.flatten(), shifted.flatten())))[0, 1]
        assert abs(float(correlation)) < 0.08


def test_logprobs_are_of_the_models_own_distribution_and_only_where_asked():
    asking = SamplingParams(logprobs=3, temperature=0.5, top_k=1)
    batch = [SampleRow(SamplingParams(), 0, 0), SampleRow(asking, 0, 0)]
    logits = LOGITS.repeat(2, 1)
    tokens = sample(logits, batch)
    nothing, found = token_logprobs(logits, batch, [Choice(token) for token in tokens])
    expected = LOGITS.log_softmax(-1)
    assert nothing is None and found is not None
    assert found.logprob == pytest.approx(float(expected[tokens[1]]))
    assert [token for token, _ in found.top] == expected.topk(3).indices.tolist()
    assert [value for _, value in found.top] == pytest.approx(expected.topk(3).values.tolist())


def test_logprobs_zero_gives_the_chosen_token_alone():
    batch = [SampleRow(SamplingParams(logprobs=0), 0, 0)]
    [found] = token_logprobs(LOGITS[None], batch, [Choice(4)])
    assert found is not None and found.top == []
    assert token_logprobs(LOGITS[None], [SampleRow(SamplingParams(), 0, 0)], [Choice(4)]) == []


def test_what_the_filters_left_is_recorded_with_the_share_of_the_chosen():
    asking = SamplingParams(logprobs=2, temperature=0.5, top_k=3)
    unasked, greedy = SamplingParams(top_k=3), SamplingParams(logprobs=2, temperature=0)
    batch = [SampleRow(params, 7, 3) for params in (asking, unasked, greedy)]
    first, second, third = choose(LOGITS.repeat(3, 1), batch)
    weights = distribution(LOGITS[None], [asking])[0]
    assert first.left == 3
    assert first.share == pytest.approx(float(weights[first.token] / weights.sum()))
    assert (second.left, third.left) == (0, 0)
    found, _, known = token_logprobs(LOGITS.repeat(3, 1), batch, [first, second, third])
    assert found is not None and (found.left, found.share) == (first.left, first.share)
    assert known is not None and known.left == 0
