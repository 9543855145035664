"""Who runs, who waits and who gives way, with the reasons."""

import pytest
from helpers import Bench, chunks
from minisgl_tui.engine.errors import RequestRefused, UserError
from minisgl_tui.engine.events import (
    Admitted,
    Decoding,
    Deferred,
    Finished,
    Preempted,
    Refused,
    Scheduled,
    StepFailed,
)
from minisgl_tui.engine.request import FinishReason, Status
from minisgl_tui.engine.sampling import SamplingParams


def test_a_long_prompt_is_cut_into_chunks_of_the_budget() -> None:
    bench = Bench(max_batch_tokens=8)
    bench.submit(list(range(20)))
    bench.step(3)
    assert [(e.start, e.count, e.chunk, e.chunks) for e in bench.events(Scheduled)] == [
        (0, 8, 1, 3),
        (8, 8, 2, 3),
        (16, 4, 3, 3),
    ]


def test_decodes_run_in_every_step_while_others_prefill() -> None:
    """A stream of prompts as large as the budget never stops a decode."""
    bench = Bench(max_batch_tokens=8, num_blocks=200, max_running_requests=6)
    first = bench.submit([1, 2, 3], max_tokens=40)
    bench.step()
    for i in range(20):
        bench.submit([100 + i] * 16, max_tokens=3)
        bench.step()
        assert any(first.id in e.reqs for e in bench.last(Decoding))
    assert len(first.output) == 21


def test_a_step_is_packed_with_decodes_first_then_chunks_then_admissions() -> None:
    bench = Bench(max_batch_tokens=8)
    a = bench.submit([1, 2, 3])
    bench.step()
    b = bench.submit([5] * 12)
    bench.step()
    c = bench.submit([7, 8])
    plan = bench.step()
    assert chunks(plan) == [(a.id, 1), (b.id, 5), (c.id, 2)]


def test_the_head_of_the_queue_waits_with_the_numbers_and_others_wait_behind_it() -> None:
    bench = Bench(num_blocks=6)
    bench.submit([1] * 15, max_tokens=8)
    bench.step()
    big = bench.submit([2] * 12)
    bench.submit([3])
    bench.step()
    (deferred,) = bench.last(Deferred)
    assert deferred == Deferred(
        req=big.id,
        why="no_blocks",
        need=4,
        free=2,
        evictable=0,
        promised=0,
        cached_tokens=0,
        behind=1,
    )


def test_admission_counts_blocks_not_tokens() -> None:
    """Seven prompts of nine tokens in eight blocks of eight: each needs two blocks."""
    bench = Bench(block_size=8, num_blocks=8, max_batch_tokens=100)
    requests = [bench.submit([i] * 9, max_tokens=2) for i in range(7)]
    bench.step()
    assert [r.status for r in requests].count(Status.WAITING) == 3
    bench.finish()
    assert all(r.finish_reason is FinishReason.LENGTH for r in requests)


def test_admission_leaves_the_blocks_that_prefills_under_way_still_need() -> None:
    bench = Bench(num_blocks=10, max_batch_tokens=8)
    bench.submit(list(range(32)))
    bench.step()
    late = bench.submit([50] * 12)
    bench.step(2)
    assert late.status is Status.WAITING
    bench.finish()
    assert bench.events(Preempted) == []


def test_the_latest_arrival_gives_way_and_its_rehit_is_no_real_hit() -> None:
    bench = Bench(num_blocks=8)
    old = bench.submit([1] * 12, max_tokens=16)
    new = bench.submit([2] * 12, max_tokens=16)
    while not bench.events(Preempted):
        bench.step()
    (preempted,) = bench.events(Preempted)
    assert (preempted.req, preempted.for_req) == (new.id, old.id)
    assert preempted.free + preempted.evictable == 0
    assert preempted.lost_tokens > 12
    assert new.status is Status.PREEMPTED
    assert bench.last(Admitted) == []
    bench.finish()
    again = [e for e in bench.events(Admitted) if e.req == new.id and e.recompute]
    assert again
    assert new.cached_tokens == 0
    assert bench.state.stats.cached_tokens == 0
    assert old.finish_reason is new.finish_reason is FinishReason.LENGTH


def test_a_recompute_says_the_same_again() -> None:
    tight, roomy = Bench(num_blocks=8), Bench(num_blocks=64)
    outputs = []
    for bench in (tight, roomy):
        requests = [bench.submit([i] * 12, max_tokens=16) for i in (1, 2)]
        bench.finish()
        outputs.append([r.output for r in requests])
    assert tight.events(Preempted)
    assert outputs[0] == outputs[1]


def test_a_lone_request_that_outgrows_the_pool_ends_with_the_numbers() -> None:
    bench = Bench(num_blocks=4)
    request = bench.submit([1] * 10, max_tokens=100)
    bench.finish()
    assert request.finish_reason is FinishReason.ERROR
    assert "17 tokens need 5 blocks of 4, the pool has 4" in request.message
    assert len(request.output) == 7


def test_a_prompt_that_can_never_fit_is_refused_at_once_with_the_numbers() -> None:
    bench = Bench(num_blocks=4)
    with pytest.raises(RequestRefused, match="17 tokens; the KV pool holds 16"):
        bench.submit([1] * 17)
    assert bench.events(Refused) == [Refused(0, "prompt_exceeds_pool", 17, 16)]
    assert bench.state.requests[0].status is Status.FINISHED
    assert not bench.engine.has_work()


def test_a_prompt_that_fills_the_pool_runs() -> None:
    bench = Bench(num_blocks=4)
    request = bench.submit([1] * 16, max_tokens=1)
    bench.finish()
    assert request.finish_reason is FinishReason.LENGTH


def test_a_prompt_longer_than_the_context_is_refused_with_the_numbers() -> None:
    bench = Bench(max_model_len=8)
    with pytest.raises(RequestRefused, match="8 tokens; with room for one more the context takes"):
        bench.submit([1] * 8)


def test_the_context_ends_a_request_with_length() -> None:
    bench = Bench(max_model_len=8)
    request = bench.submit([1] * 5, max_tokens=50)
    bench.finish()
    assert (request.finish_reason, len(request.tokens)) == (FinishReason.LENGTH, 8)


@pytest.mark.parametrize("prompt", [[], [-1], [5, 100], [1.0], ["a"], [True]])
def test_malformed_prompts_are_refused(prompt: list[int]) -> None:
    with pytest.raises(RequestRefused):
        Bench(vocab_size=100).submit(prompt)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("top_k", 2.5),
        ("top_k", 2**40),
        ("max_tokens", 2.5),
        ("temperature", "hot"),
        ("temperature", float("nan")),
        ("logprobs", True),
        ("seed", "x"),
        ("stop_token_ids", 5),
        ("ignore_eos", 1),
    ],
)
def test_a_parameter_of_the_wrong_kind_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(RequestRefused, match=f"{name} is "):
        SamplingParams(**{name: value})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 0),
        ("n", 1.0),
        ("priority", "high"),
        ("salt", ["x"]),
        ("timeout", 0),
        ("timeout", float("nan")),
        ("name", 7),
    ],
)
def test_an_option_of_the_wrong_kind_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(RequestRefused, match=f"{name} is "):
        Bench().engine.submit_samples([1], **{name: value})  # pyright: ignore[reportArgumentType]


def test_deadlines_of_ended_requests_are_forgotten() -> None:
    bench = Bench()
    for i in range(300):
        bench.engine.submit([i], SamplingParams(max_tokens=1), timeout=1e6)
        bench.finish()
    assert len(bench.engine._deadlines) < 100


def test_any_of_several_eos_ids_stops_unless_ignored() -> None:
    bench = Bench(next_token=lambda row: 9, eos_token_ids=(8, 9))
    stops = bench.submit([1], max_tokens=5)
    ignores = bench.engine.submit([1], SamplingParams(max_tokens=5, ignore_eos=True))
    bench.finish()
    assert (stops.finish_reason, len(stops.output)) == (FinishReason.STOP, 1)
    assert (ignores.finish_reason, len(ignores.output)) == (FinishReason.LENGTH, 5)


def test_aborts_in_every_state_free_everything_and_twice_is_no_error() -> None:
    bench = Bench(max_batch_tokens=8, num_blocks=16)
    between_chunks = bench.submit(list(range(20)))
    queued = bench.submit([50] * 9)
    bench.step()
    for request in (between_chunks, queued):
        assert bench.engine.abort(request.id)
        assert not bench.engine.abort(request.id)
    assert not bench.engine.abort(12345)
    decoding = bench.submit([60] * 3, max_tokens=50)
    bench.step(3)
    bench.engine.abort(decoding.id)
    bench.check()
    assert [e.reason for e in bench.events(Finished)] == ["abort"] * 3
    assert bench.engine.cache.free + bench.engine.cache.evictable == 16


def test_nothing_is_sampled_for_a_request_after_it_finished() -> None:
    bench = Bench()
    short, long = bench.submit([1], max_tokens=2), bench.submit([2], max_tokens=9)
    bench.finish()
    assert (len(short.output), len(long.output)) == (2, 9)


def test_no_more_requests_run_than_fit_one_token_each_into_a_step() -> None:
    bench = Bench(max_batch_tokens=3)
    requests = [bench.submit([i + 1], max_tokens=3) for i in range(5)]
    bench.step()
    assert [e.why for e in bench.last(Deferred)] == ["max_running"]
    bench.finish()
    assert all(r.finish_reason is FinishReason.LENGTH for r in requests)


def test_a_failing_step_ends_its_requests_alone_and_withdraws_their_blocks() -> None:
    bench = Bench(max_batch_tokens=8, max_running_requests=2)
    done = bench.submit([9] * 8, max_tokens=1)
    bench.finish()
    doomed = [bench.submit([1] * 6, max_tokens=5), bench.submit([9] * 8 + [2], max_tokens=5)]
    waiting = bench.submit([3] * 4, max_tokens=2)
    execute = bench.runner.execute

    def fail(plan: object) -> None:
        raise RuntimeError("out of memory")

    bench.runner.execute = fail  # pyright: ignore[reportAttributeAccessIssue]
    bench.step()
    bench.runner.execute = execute
    assert [r.finish_reason for r in doomed] == [FinishReason.ERROR] * 2
    assert "RuntimeError: out of memory" in doomed[0].message
    assert bench.events(StepFailed)
    assert len(bench.engine.cache.match(done).blocks) == 2  # computed before: it stays
    assert not bench.engine.cache.match(doomed[0]).blocks
    bench.finish()
    assert waiting.finish_reason is FinishReason.LENGTH


def test_without_listeners_no_events_are_made() -> None:
    bench = Bench()
    silent = type(bench.engine)(bench.config, bench.runner)
    silent.submit([1] * 9, SamplingParams(max_tokens=3))
    while silent.has_work():
        silent.step()
    assert silent.log.on is False
    assert bench.records == []


@pytest.mark.parametrize("name", ["block_size", "num_blocks", "max_batch_tokens", "max_model_len"])
def test_settings_below_one_are_refused_by_name(name: str) -> None:
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} is 0; it must be at least 1"):
        Bench(**{name: 0})


def test_an_unknown_policy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="'lifo' is not known; choose one of: fcfs"):
        Bench(schedule_policy="lifo")
