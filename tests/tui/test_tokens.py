"""The token inspector: probabilities, alternatives, bounds, and what it says when it has none."""

from dataclasses import replace
from math import exp, log

import pytest
from minisgl_tui.engine.plan import Plan, StepOutput
from minisgl_tui.engine.sampling import SamplingParams, TokenLogprobs
from minisgl_tui.engine.snapshot import RequestState
from minisgl_tui.tui.screens.tokens import TokensScreen
from minisgl_tui.tui.selection import Target
from minisgl_tui.tui.text import plain
from minisgl_tui.tui.views.tokens import (
    TokensView,
    entropy,
    percent,
    rank,
    sampler_words,
    share_bar,
)

from .pilot import NARROW, TINY, all_sizes, running
from .toy import ROOMY, Session, make_source


def with_logprobs(session: Session) -> None:
    """The toy's runner, giving every token 60 %, another 30 % and one more 5 %."""
    real = session.engine.runner.execute

    def execute(plan: Plan) -> StepOutput:
        output = real(plan)
        found = [
            TokenLogprobs(log(0.6), [(t, log(0.6)), ((t + 1) % 9, log(0.3)), ((t + 2) % 9, -3.0)])
            for t in output.tokens
        ]
        return replace(output, logprobs=found)

    session.engine.runner.execute = execute  # pyright: ignore[reportAttributeAccessIssue]


@all_sizes
async def test_t_shows_each_token_with_probability_alternatives_and_step(
    size: tuple[int, int],
) -> None:
    async with running(size, make_source(prepare=with_logprobs)) as on:
        await on.until(lambda: len(on.store.state.waiting) == 4)
        await on.step(6)
        await on.press("1", "t")
        assert isinstance(on.app.screen, TokensScreen)
        assert "greedy (temperature 0): the likeliest token is taken" in on.text()
        row = next(line for line in on.lines() if "▸" in line)
        assert row.split("▸")[1].split()[:2] == ["0", str(on.store.sampled.step_of(0, 0))]
        assert "60.0%" in row
        if size != TINY:
            assert "≥ " in row
            assert " entropy " in on.text() and "entropy ≥ " in on.text()
            assert "the model gave it 60.0 %; greedy takes the likeliest" in on.text()
            assert f"token 0, position {on.store.state.requests[0].prompt_len}" in on.text()
            await on.press("j")
            assert "token 1, position" in on.text()
        before = on.text()
        await on.press("s")
        await on.until(lambda: on.text() != before)
        await on.press("escape")
        assert on.app.screen is on.main


async def test_enter_on_a_request_in_the_zoomed_list_opens_it() -> None:
    async with running(NARROW, make_source(prepare=with_logprobs)) as on:
        await on.until(lambda: len(on.store.state.waiting) == 4)
        await on.step(4)
        await on.press("4", "enter")
        assert on.store.selected == Target("request", 0)
        await on.press("z", "enter")
        assert isinstance(on.app.screen, TokensScreen)


async def test_without_probabilities_it_says_how_to_get_them() -> None:
    async with running(NARROW) as on:
        await on.step(5)
        await on.press("t")
        assert "`minisgl-tui run --logprobs 5` records" in on.text()
        assert "“ tree”" in on.text() or "“A”" in on.text()


async def test_before_the_first_token_it_says_what_it_waits_for() -> None:
    async with running(NARROW) as on:
        await on.press("t")
        assert "no token yet: its prompt has to be computed first" in on.text()
        await on.press("escape", "2", "t")
        assert "put the cursor on a request first" in on.toasts()[-1]


@pytest.mark.parametrize("width", [40, 60, 76, 190])
async def test_no_line_is_wider_than_the_view(width: int) -> None:
    async with running(NARROW, make_source(ROOMY, prepare=with_logprobs)) as on:
        await on.until(lambda: len(on.store.state.waiting) == 4)
        await on.step(6)
        view = TokensView(0)
        view.update(on.store, width, 30)
        for line in [*view.header, *map(view.line, range(view.items)), *view.footer]:
            assert len(plain(line)) <= width


def test_entropy_is_exact_when_all_is_known_and_else_a_bound_below_the_truth() -> None:
    whole = [0.5, 0.25, 0.125, 0.125]
    top = [(i, log(p)) for i, p in enumerate(whole)]
    bits, exact = entropy(TokenLogprobs(top[0][1], top))
    assert exact and bits == pytest.approx(1.75)
    for known in (1, 2, 3):
        bits, exact = entropy(TokenLogprobs(top[0][1], top[:known]))
        assert not exact and bits <= 1.75 + 1e-9
        assert bits > -sum(exp(v) * v for _, v in top[:known]) / log(2)
    bits, exact = entropy(TokenLogprobs(log(0.5), []))
    assert not exact and bits == pytest.approx(1.0)


def test_rank_counts_the_likelier_ones_and_says_when_it_is_beyond_what_is_known() -> None:
    top = [(1, log(0.5)), (2, log(0.3))]
    assert rank(TokenLogprobs(log(0.5), top)) == "1"
    assert rank(TokenLogprobs(log(0.3), top)) == "2"
    assert rank(TokenLogprobs(log(0.01), top)) == ">2"
    assert rank(TokenLogprobs(log(0.01), [])) == "?"


def test_the_samplers_steps_are_told_in_its_order() -> None:
    params = SamplingParams(temperature=0.8, top_k=40, top_p=0.95, presence_penalty=0.5, seed=3)
    assert sampler_words(params) == (
        "presence penalty 0.5 → temperature 0.8 → top-k 40 → top-p 0.95 → drawn by seed 3"
    )
    assert sampler_words(SamplingParams()).endswith("drawn by the engine's seed and its id")


def test_a_drawn_token_says_among_how_many_it_was_and_its_share_there() -> None:
    view = TokensView(0)
    request = RequestState(0, [1, 2], 1, SamplingParams(top_k=3), 0, 0.0)
    found = TokenLogprobs(log(0.1), [(2, log(0.1))], 3, 0.25)
    assert view._drawn(request, 2, found) == (
        "the model gave it 10.0 %; drawn among 3 left, where it had 25.0 %"
    )


def test_a_greedy_token_says_whether_another_was_as_likely() -> None:
    view = TokensView(0)
    request = RequestState(0, [1, 2], 1, SamplingParams(temperature=0), 0, 0.0)
    tied = TokenLogprobs(log(0.2), [(5, log(0.2)), (2, log(0.2))])
    assert view._drawn(request, 2, tied).endswith("greedy takes the lowest id of the likeliest")
    alone = TokenLogprobs(log(0.2), [(2, log(0.2)), (5, log(0.1))])
    assert view._drawn(request, 2, alone).endswith("greedy takes the likeliest")


def test_bars_and_percentages_never_show_nothing_for_something() -> None:
    assert share_bar(1, 4) == "████" and share_bar(0.0001, 4) == "▏"
    assert percent(0.00001) == "<0.1 %"
