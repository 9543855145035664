"""Every prompt token is scored once, whatever chunks, caches and preemption do."""

from helpers import Bench
from minisgl_tui.engine.events import Preempted
from minisgl_tui.engine.plan import Plan, StepOutput
from minisgl_tui.engine.request import Request
from minisgl_tui.engine.sampling import SamplingParams, TokenLogprobs
from minisgl_tui.engine.simulate import SimulatedRunner


class ScoringRunner(SimulatedRunner):
    """Gives the token after position ``p`` the log-probability ``-p``."""

    def execute(self, plan: Plan) -> StepOutput:
        output = super().execute(plan)
        scores = {
            row.request.id: [TokenLogprobs(-float(position)) for position in row.scored]
            for row in plan.rows
        }
        return StepOutput(output.tokens, timings=output.timings, prompt_logprobs=scores)


def bench(**settings: object) -> Bench:
    made = Bench(**settings)
    made.runner.__class__ = ScoringRunner
    return made


def ask(made: Bench, prompt: list[int], max_tokens: int = 4) -> Request:
    return made.engine.submit(prompt, SamplingParams(max_tokens=max_tokens, prompt_logprobs=0))


def scores(request: Request) -> list[float | None]:
    return [entry and entry.logprob for entry in request.prompt_logprobs]


def expected(length: int) -> list[float | None]:
    return [None, *(-float(position) for position in range(length - 1))]


def test_chunks_add_up_to_the_prompt() -> None:
    made = bench(max_batch_tokens=3)
    request = ask(made, list(range(11)))
    made.step()
    assert scores(request) == expected(4)  # the third position says how likely the fourth token is
    made.finish()
    assert scores(request) == expected(11)


def test_nobody_else_is_scored() -> None:
    made = bench()
    plain, asking, one = made.submit([1, 2, 3]), ask(made, [4, 5, 6]), ask(made, [7])
    made.finish()
    assert scores(plain) == []
    assert scores(asking) == expected(3)
    assert scores(one) == [None]


def test_a_cached_prompt_is_computed_again_and_then_shared_as_ever() -> None:
    made = bench()
    prompt = list(range(21))
    made.submit(prompt)
    made.finish()
    asking = ask(made, prompt)
    made.finish()
    assert asking.cached_tokens == 0
    assert scores(asking) == expected(21)
    again = made.submit(prompt)
    made.finish()
    assert again.cached_tokens == 20


def test_after_preemption_only_what_is_not_yet_known_is_scored() -> None:
    within_prompt = within_output = 0
    for seed in range(6):
        made = bench(num_blocks=14, max_batch_tokens=5 + seed)
        requests = [ask(made, [100 * i + j for j in range(9 + 5 * i)], 16) for i in range(5)]
        made.finish()
        assert [scores(r) for r in requests] == [expected(r.prompt_len) for r in requests]
        for event in made.events(Preempted):
            cut = event.lost_tokens < requests[event.req].prompt_len
            within_prompt, within_output = within_prompt + cut, within_output + (not cut)
    assert within_prompt and within_output
