"""What each policy is for, shown by what it does to a load."""

import random

import pytest
from helpers import Bench
from minisgl_tui.engine.events import Decoding, Preempted
from minisgl_tui.engine.policies import AGEING_STEPS, Optimistic
from minisgl_tui.engine.request import FinishReason, Request
from minisgl_tui.engine.sampling import SamplingParams


def order_of_first_tokens(bench: Bench) -> list[int]:
    """Request ids in the order in which they got their first token."""
    bench.finish()
    seen: dict[int, None] = {}
    for record in bench.records:
        for event in record.events:
            seen.update(dict.fromkeys(getattr(event, "reqs", [])))
    return list(seen)


def test_fcfs_keeps_the_order_of_arrival() -> None:
    bench = Bench(max_running_requests=1)
    for size in (9, 3, 6):
        bench.submit([size] * size, max_tokens=1)
    assert order_of_first_tokens(bench) == [0, 1, 2]


def test_sjf_runs_the_least_work_first() -> None:
    bench = Bench(max_running_requests=1, schedule_policy="sjf")
    for size in (9, 3, 6):
        bench.submit([size] * size, max_tokens=1)
    assert order_of_first_tokens(bench) == [1, 2, 0]


def test_priority_runs_the_lowest_number_first_and_equals_by_arrival() -> None:
    bench = Bench(max_running_requests=1, schedule_policy="priority")
    for priority in (5, 1, 5, 0):
        bench.engine.submit([priority], SamplingParams(max_tokens=1), priority=priority)
    assert order_of_first_tokens(bench) == [3, 1, 0, 2]


def test_lpm_runs_what_is_cached_first() -> None:
    bench = Bench(max_running_requests=1, schedule_policy="lpm")
    bench.submit([1] * 13, max_tokens=1)
    bench.finish()
    for prompt in ([2] * 13, [1] * 5 + [3], [1] * 13):
        bench.submit(prompt, max_tokens=1)
    assert order_of_first_tokens(bench)[1:] == [3, 2, 1]


def test_dfs_weight_goes_into_the_branch_with_most_waiting_first() -> None:
    bench = Bench(schedule_policy="dfs-weight")
    rare, common = [1] * 8, [2] * 8
    for head in (rare, common):
        bench.submit([*head, 0], max_tokens=1)
    bench.finish()
    for i, head in enumerate((rare, common, rare, common, common)):
        bench.submit([*head, 10 + i], max_tokens=1)
    assert order_of_first_tokens(bench)[2:] == [3, 5, 6, 2, 4]


def shared_prefix_load(policy: str) -> tuple[Bench, list[Request]]:
    """Sixteen groups of eight that share a head, arriving in random order, in a pool that holds a
    few heads only."""
    rng = random.Random(0)
    bench = Bench(
        schedule_policy=policy, num_blocks=48, max_batch_tokens=64, max_running_requests=4
    )
    prompts = [[1000 + g] * 32 + [g, i] for g in range(16) for i in range(8)]
    rng.shuffle(prompts)
    return bench, [bench.submit(prompt, max_tokens=2) for prompt in prompts]


@pytest.mark.parametrize("policy", ["lpm", "dfs-weight"])
def test_cache_aware_order_beats_fcfs_on_shared_prefixes_and_loses_nobody(policy: str) -> None:
    computed = {}
    for name in ("fcfs", policy):
        bench, requests = shared_prefix_load(name)
        bench.finish()
        assert all(r.finish_reason is FinishReason.LENGTH for r in requests)
        computed[name] = bench.runner.tokens_computed
    assert computed[policy] < 0.6 * computed["fcfs"], computed


@pytest.mark.parametrize("policy", ["sjf", "lpm", "priority", "dfs-weight"])
def test_nobody_starves_behind_a_stream_the_policy_prefers(policy: str) -> None:
    """A large, uncached, unimportant request under arrivals in every step gets in by its age."""
    bench = Bench(schedule_policy=policy, max_running_requests=2, max_batch_tokens=64)
    bench.engine.submit([1] * 5, SamplingParams(max_tokens=1))
    bench.step()
    unloved = bench.engine.submit([9] * 40, SamplingParams(max_tokens=4), priority=9)
    steps = 0
    while not unloved.finished:
        for _ in range(2):
            bench.submit([1] * 5, max_tokens=2)
        bench.engine.step()
        steps += 1
        assert steps < AGEING_STEPS + 300, "starved"
    assert steps > AGEING_STEPS  # the stream did hold it back, or this shows nothing


def test_decode_latency_stays_bounded_under_arrivals_in_every_step() -> None:
    """Steps between two tokens of a decode: always 1, while a prompt as large as the budget arrives
    in every step."""
    bench = Bench(num_blocks=400, max_batch_tokens=16, max_running_requests=8)
    decoding = bench.submit([1], max_tokens=200)
    bench.step()
    gaps, last = [], bench.engine.step_count
    for i in range(150):
        bench.submit([i + 2] * 16, max_tokens=4)
        bench.engine.step()
        if any(decoding.id in e.reqs for e in bench.last(Decoding)):
            gaps.append(bench.engine.step_count - last)
            last = bench.engine.step_count
    assert len(gaps) == 150
    assert max(gaps) == 1


def test_reserve_admits_less_and_so_preempts_less_than_optimistic() -> None:
    preempted = {}
    for policy in ("optimistic", "reserve"):
        bench = Bench(admission_policy=policy, num_blocks=16)
        requests = [bench.submit([i + 1] * 8, max_tokens=24) for i in range(8)]
        bench.finish()
        assert all(r.finish_reason is FinishReason.LENGTH for r in requests)
        preempted[policy] = len(bench.events(Preempted))
    assert preempted["reserve"] < preempted["optimistic"]


def test_a_limit_too_large_to_be_a_plan_does_not_make_reserve_careless() -> None:
    preempted = []
    for max_tokens in (60, 10**9):
        bench = Bench(admission_policy="reserve", num_blocks=40, max_model_len=70)
        for i in range(30):
            bench.submit([i] * 8, max_tokens=max_tokens)
        bench.finish()
        preempted.append(len(bench.events(Preempted)))
    assert preempted[0] == preempted[1]


class Hoarder(Optimistic):
    """Would keep more room than there is."""

    def held_for(self, running):
        return 1e9


def test_a_policy_that_holds_more_than_the_pool_runs_one_at_a_time() -> None:
    bench = Bench(admission_policy="test_policies:Hoarder")
    requests = [bench.submit([i] * 8) for i in range(3)]
    bench.finish()
    assert all(r.finish_reason is FinishReason.LENGTH for r in requests)


@pytest.mark.parametrize(
    ("policy", "victim"), [("newest", 2), ("least-output", 1), ("lowest-priority", 0)]
)
def test_the_victim_is_the_one_the_policy_names(policy: str, victim: int) -> None:
    bench = Bench(preemption_policy=policy, num_blocks=12, max_batch_tokens=64)
    for i, prompt_len in enumerate((8, 20, 8)):  # equal outputs, so the longest prompt is least
        prompt = [i + 1] * prompt_len
        bench.engine.submit(prompt, SamplingParams(max_tokens=60), priority=9 if i == 0 else 0)
    while not bench.events(Preempted):
        bench.step()
    assert bench.events(Preempted)[0].req == victim


def fill(bench: Bench, *prompts: list[int]) -> None:
    for prompt in prompts:
        bench.submit(prompt, max_tokens=1)
        bench.finish()


A, B, C = [1] * 9, [2] * 9, [3] * 9  # two cached blocks each


@pytest.mark.parametrize(
    ("policy", "loses"),
    [("lru", B), ("mru", A), ("fifo", A), ("lfu", B)],
)
def test_eviction_order(policy: str, loses: list[int]) -> None:
    """A is the oldest, used twice and last; B the second; C is what needs the room."""
    bench = Bench(eviction_policy=policy, num_blocks=6)
    fill(bench, A, B, A, [3] * 13)
    cached = {
        tuple(p): len(bench.engine.cache.match(Request(-1, p, SamplingParams())).blocks)
        for p in (A, B)
    }
    assert cached[tuple(loses)] < 2
    assert sum(cached.values()) == 2 + cached[tuple(loses)]


def test_priority_eviction_keeps_what_urgent_requests_used() -> None:
    bench = Bench(eviction_policy="priority", num_blocks=6)
    for prompt, priority in ((A, 0), (B, 5)):
        bench.engine.submit(prompt, SamplingParams(max_tokens=1), priority=priority)
        bench.finish()
    fill(bench, [3] * 13)
    assert len(bench.engine.cache.match(Request(-1, A, SamplingParams())).blocks) == 2


def test_prefixes_under_different_salts_never_meet() -> None:
    bench = Bench()
    requests = []
    for salt in ("", "a", "b", "a"):
        requests.append(bench.engine.submit(A, SamplingParams(max_tokens=1), salt=salt))
        bench.finish()
    assert [r.cached_tokens for r in requests] == [0, 0, 0, 8]


def test_samples_of_one_prompt_share_its_blocks_and_differ_in_seed() -> None:
    bench = Bench()
    samples = bench.engine.submit_samples([1] * 17, SamplingParams(max_tokens=3, seed=5), n=3)
    bench.step()
    assert {tuple(r.block_table[:4]) for r in samples} == {tuple(samples[0].block_table[:4])}
    assert bench.runner.tokens_computed == 17 + 1 + 1
    assert [r.params.seed for r in samples] == [5, 6, 7]
    assert {r.group for r in samples} == {samples[0].id}


def test_a_request_past_its_time_is_aborted_with_the_numbers() -> None:
    bench = Bench()
    request = bench.engine.submit([1] * 5, SamplingParams(max_tokens=50), timeout=0.02)
    waiting = bench.engine.submit([2] * 5, SamplingParams(max_tokens=2), timeout=50)
    bench.finish()
    assert request.finish_reason is FinishReason.ABORT
    assert request.message.startswith("timed out after 0.02 s with ")
    assert waiting.finish_reason is FinishReason.LENGTH
