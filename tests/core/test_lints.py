"""Each lint says what it should, with the numbers, and says nothing when all is well."""

import time

import msgspec
import pytest
from helpers import Bench, counting
from minisgl_tui.engine.config import EngineConfig
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.events import (
    Admitted,
    AnyEvent,
    Decoding,
    Deferred,
    Evicted,
    Preempted,
    Scheduled,
    StepBegan,
    StepRecord,
)
from minisgl_tui.engine.lints import LINTS, MAX_FINDINGS, Finding, Lint, Lints
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.simulate import NextToken
from minisgl_tui.engine.state import EngineState
from test_oracle import Load


class Linted(Bench):
    """A bench with one lint on."""

    def __init__(self, lint: str, next_token: NextToken = counting, **settings: object) -> None:
        super().__init__(next_token, **settings)
        self.lints = Lints([lint])
        self.engine.log.listen(lambda r: self.lints.apply(r, self.state))

    def run(self, prompt: list[int], max_tokens: int = 1) -> None:
        """One request from start to end."""
        self.submit(prompt, max_tokens)
        self.finish()

    @property
    def found(self) -> list[tuple[str, str, int]]:
        return [(f.entity, f.sentence, f.count) for f in self.lints.findings()]


class Steps:
    """Steps made up by hand, for lints that look at a step and not at the run behind it."""

    def __init__(self, lint: str) -> None:
        self.state = EngineState(EngineConfig())
        self.lints = Lints([lint])
        self.step = 0

    def add(self, *events: AnyEvent, budget: int = 256, seconds: float = 3e-3) -> None:
        self.step += 1
        began = StepBegan(self.step, budget, 1, 7, 3, 0)
        record = StepRecord(
            seq=self.step,
            step=self.step,
            seconds=seconds,
            events=[began, *events],
            timings={"forward": seconds},
        )
        self.lints.apply(record, self.state)

    @property
    def found(self) -> list[Finding]:
        return self.lints.findings()


# --- preemption-thrash ---------------------------------------------------------------------------


def test_a_request_thrown_out_soon_after_it_was_let_in_is_thrashing() -> None:
    bench = Linted("preemption-thrash", num_blocks=8)
    bench.submit([1] * 12, 12)
    bench.submit([2] * 12, 12)
    bench.finish()
    assert bench.found == [
        (
            "request 1",
            "request 1 was preempted once, 5 steps after it was admitted, and lost 16 "
            "computed tokens, 8 of them found again in the cache: raise --num-blocks, lower "
            "--max-running-requests, or try --admission-policy reserve",
            1,
        )
    ]
    assert [e.cached_tokens for e in bench.events(Admitted) if e.recompute] == [8]


def test_a_request_thrown_out_again_counts_up_and_says_what_was_found_again() -> None:
    bench = Linted("preemption-thrash", num_blocks=8)
    for token in (1, 2, 3):
        bench.submit([token] * 8, 20)
    bench.finish()
    preemptions = {r.id: r.preemptions for r in bench.state.requests.values() if r.preemptions}
    counts = {entity: count for entity, _, count in bench.found}
    assert max(preemptions.values()) >= 2
    assert counts.keys() <= {f"request {i}" for i in preemptions}
    for i, preempted in preemptions.items():
        if preempted < 2:
            continue
        sentence = next(s for entity, s, _ in bench.found if entity == f"request {i}")
        lost = sum(e.lost_tokens for e in bench.events(Preempted) if e.req == i)
        assert f"preempted {preempted} times" in sentence
        assert f"lost {lost} computed tokens" in sentence
        again = sum(e.cached_tokens for e in bench.events(Admitted) if e.req == i and e.recompute)
        assert (f"{again} of them found again" in sentence) == bool(again)


def test_one_preemption_after_a_long_run_is_no_thrashing() -> None:
    bench = Linted("preemption-thrash", num_blocks=16)
    bench.submit([1] * 12, 40)
    bench.submit([2] * 12, 24)
    bench.finish()
    assert bench.state.requests[1].preemptions == 1
    assert bench.found == []


# --- evicted-then-recomputed ---------------------------------------------------------------------


def test_a_prefix_computed_again_after_its_eviction_is_told_with_tokens_and_steps() -> None:
    bench = Linted("evicted-then-recomputed", num_blocks=4)
    bench.run([1] * 13)  # step 1: leaves three full blocks behind
    bench.run([2] * 13)  # step 2: needs them all
    bench.run([1] * 13)  # step 3
    assert bench.found == [
        (
            "request 2",
            "request 2 computed 12 tokens again that had been evicted for capacity, as little as "
            "1 step before: raise --num-blocks (now 4), or try another --eviction-policy or "
            "--schedule-policy",
            1,
        )
    ]
    assert bench.lints.summaries() == {
        "evicted-then-recomputed": "1 request computed again what had been evicted for capacity"
    }


def test_what_is_evicted_in_parts_of_split_nodes_is_still_known_by_its_content() -> None:
    bench = Linted("evicted-then-recomputed", num_blocks=6)
    bench.run([1] * 8 + [2] * 4 + [7])
    bench.run([1] * 8 + [3] * 4 + [7])  # splits the first node after two blocks
    bench.run([9] * 23)  # takes all the pool
    bench.run([1] * 8 + [3] * 4 + [7])
    assert [(entity, "computed 12 tokens again" in s) for entity, s, _ in bench.found] == [
        ("request 3", True)
    ]


def test_the_same_tokens_elsewhere_or_under_another_salt_are_no_recomputation() -> None:
    bench = Linted("evicted-then-recomputed", num_blocks=4)
    bench.run([1] * 13)
    bench.run([2] * 13)
    bench.run([3] * 4 + [1] * 9)  # the same blocks behind another
    bench.run([4] * 13)
    bench.engine.submit([1] * 13, SamplingParams(max_tokens=1), salt="tenant")
    bench.finish()
    assert bench.found == []


def test_only_what_a_prefill_computes_counts_as_computed_again() -> None:
    bench = Linted("evicted-then-recomputed", num_blocks=6, next_token=lambda row: row.end)
    bench.run([1] * 5, 12)  # four full blocks, three of them with tokens of the answer
    bench.run([2] * 23)  # needs them all
    bench.run([1] * 5, 12)  # computes the prompt's again, and generates the same answer
    assert [s[:40] for _, s, _ in bench.found] == ["request 2 computed 4 tokens again that h"]


def test_what_a_readmission_computes_again_of_an_answer_counts() -> None:
    bench = Linted("evicted-then-recomputed", num_blocks=8)
    bench.submit([1] * 8, 20)
    bench.submit([2] * 8, 20)
    bench.finish()
    again = [e for e in bench.events(Admitted) if e.recompute]
    request = bench.state.requests[again[0].req]
    gone = [e for e in bench.events(Evicted) if e.why == "capacity"]
    assert again and gone and request.output
    assert any("again that had been evicted" in s for _, s, _ in bench.found)


def test_a_reset_cache_is_nobodys_fault() -> None:
    bench = Linted("evicted-then-recomputed", num_blocks=4)
    bench.run([1] * 13)
    bench.engine.reset_prefix_cache()
    bench.run([1] * 13)
    assert bench.found == []


# --- prefill-stalls-decode -----------------------------------------------------------------------


def test_a_prefill_that_makes_decodes_wait_is_told_with_both_times() -> None:
    steps = Steps("prefill-stalls-decode")
    for i in range(9):
        steps.add(Decoding([0, 1, 2]), seconds=3e-3 + i * 1e-5)  # median 3.04 ms
    steps.add(Scheduled(8, 0, 28, 1, 1), Scheduled(9, 0, 100, 1, 4), Decoding([0, 1]), seconds=0.02)
    assert [(f.entity, f.sentence, f.step) for f in steps.found] == [
        (
            "request 9",
            "128 prefill tokens in step 10, 100 of them of request 9, made 2 decodes wait 20.0 ms "
            "instead of 3.0 ms: lower --max-batch-tokens (now 512) for smaller chunks",
            10,
        )
    ]


def test_a_prefill_alone_or_a_small_one_stalls_nobody() -> None:
    steps = Steps("prefill-stalls-decode")
    steps.add(Scheduled(9, 0, 100, 1, 1), Decoding([0]), seconds=0.02)  # nothing to compare with
    for _ in range(9):
        steps.add(Decoding([0, 1, 2]))
    steps.add(Scheduled(9, 0, 100, 1, 1), seconds=0.02)
    steps.add(Scheduled(9, 0, 100, 1, 1), Decoding([0, 1]), seconds=5.9e-3)
    assert steps.found == []


# --- budget-unused -------------------------------------------------------------------------------


def deferred(why: str) -> Deferred:
    return Deferred(11, why, 5, 3, 0, 1, 0, behind=2)


def test_budget_left_over_step_after_step_is_told_with_the_reason() -> None:
    steps = Steps("budget-unused")
    for _ in range(8):
        steps.add(Scheduled(9, 0, 150, 1, 1), Decoding([0, 1, 2, 3, 4, 5]), deferred("no_blocks"))
    assert [(f.entity, f.sentence, f.count) for f in steps.found] == [
        (
            "no_blocks",
            "for 8 steps in a row 800 of 2048 budget tokens (39%) stayed unused while 3 requests "
            "waited, because of no_blocks (request 11 needs 5 blocks; free 3 + evictable 0 - "
            "promised 1): raise --num-blocks, or ask for shorter answers",
            1,
        )
    ]
    for _ in range(8):
        steps.add(Decoding([0]), deferred("no_blocks"))
    assert steps.found[0].count == 2
    assert steps.found[0].sentence.startswith("for 16 steps in a row 2840 of 4096 budget tokens")


def test_budget_used_up_or_unused_for_a_moment_is_fine() -> None:
    steps = Steps("budget-unused")
    for i in range(40):
        steps.add(Scheduled(9, 0, 200 if i % 8 == 0 else 100, 1, 1), deferred("max_running"))
    for _ in range(20):
        steps.add(Scheduled(9, 0, 10, 1, 1))  # nobody waits
    for i in range(20):
        steps.add(Decoding([0]), deferred("max_running" if i % 5 else "no_blocks"))
    assert steps.found == []


# --- tail-waste ----------------------------------------------------------------------------------


def test_large_blocks_with_empty_ends_are_told_with_a_better_size() -> None:
    bench = Linted("tail-waste", block_size=64, num_blocks=4)
    for i in range(4):
        bench.submit([i + 1] * 10, 50)
    bench.step(32)
    # Looks at steps 4, 8 … 32, when 10 + step - 1 of 64 slots are taken: 27 on average.
    assert bench.found == [
        (
            "engine",
            "over the last 32 steps 58% of the held KV slots (148 of 256) were empty ends of "
            "blocks of 64 tokens: try --block-size 8",
            1,
        )
    ]


@pytest.mark.parametrize(
    "settings", [{"block_size": 4, "num_blocks": 40}, {"block_size": 64, "num_blocks": 16}]
)
def test_small_ends_and_ends_in_a_pool_with_plenty_left_are_fine(settings: dict) -> None:
    bench = Linted("tail-waste", **settings)
    for i in range(4):
        bench.submit([i + 1] * 10, 50)
    bench.step(40)
    assert bench.found == []


# --- never-reused --------------------------------------------------------------------------------


def test_a_cache_that_evicts_what_nobody_asked_for_is_told() -> None:
    bench = Linted("never-reused", num_blocks=8)
    for i in range(9):
        bench.run([i + 1] * 32)
    assert bench.found == [
        (
            "evicted blocks",
            "64 of the last 64 evicted blocks (100%) never had a hit: prompts share little, or the "
            "cache is too small to hold them until they are asked for again; put what prompts "
            "share first, raise --num-blocks, or try another --eviction-policy",
            1,
        )
    ]


def test_a_cache_full_of_old_blocks_without_a_hit_is_told() -> None:
    bench = Linted("never-reused", num_blocks=16)
    bench.run([1] * 33)
    for _ in range(300):
        bench.run([7])
    bench.step()
    for _ in range(90):
        bench.run([7])
    assert bench.found == [
        (
            "cached blocks",
            "8 of 16 blocks (50%) hold prefixes that have had no hit and no holder for 256 steps: "
            "a smaller --num-blocks would do for this load",
            1,
        )
    ]


def test_a_cache_that_pays_is_not_blamed() -> None:
    bench = Linted("never-reused", num_blocks=8)
    for i in range(30):
        bench.run([i // 3 + 1] * 32)  # each prompt three times
    assert sum(len(e.blocks) for e in bench.events(Evicted)) > 64
    assert bench.found == []


# --- near-miss -----------------------------------------------------------------------------------

SYSTEM = list(range(100, 300))
GREETING = list(range(10, 20))


def test_a_date_in_the_system_prompt_is_told_with_its_place_and_its_price() -> None:
    bench = Linted("near-miss", num_blocks=256, max_batch_tokens=1024)
    bench.run([*GREETING, 31, 12, *SYSTEM, 1, 1, 1, 1])
    bench.run([*GREETING, 1, 1, 7, *SYSTEM, 2, 2, 2, 2])  # a token longer, so all is shifted
    bench.run([*GREETING, 1, 1, 7, *SYSTEM, 3, 3, 3, 3])  # a hit
    assert bench.found == [
        (
            "request 0",
            "requests 0 and 1 differ at position 10 (token 31, then 1) and are equal again for 200 "
            "tokens from position 13: 200 of them were computed again, 200 in all for prompts like "
            "that of request 0; move what varies, such as a date, behind what does not",
            1,
        )
    ]
    bench.run([*GREETING, 2, 1, 7, *SYSTEM, 4])
    assert bench.found[0][2] == 2
    assert bench.lints.findings()[0].req == 3  # who missed it, not who was first
    assert "requests 2 and 3 differ at position 10 (token 1, then 2)" in bench.found[0][1]
    assert "202 of them were computed again, 402 in all" in bench.found[0][1]


def test_a_divergence_of_equal_length_is_found_behind_a_long_shared_prefix() -> None:
    bench = Linted("near-miss", num_blocks=512, max_batch_tokens=2048)
    bench.run([*SYSTEM, 5, *range(1000, 1300), 8])
    bench.run([*SYSTEM, 6, *range(1000, 1300), 9])
    assert [(entity, count) for entity, _, count in bench.found] == [("request 0", 1)]
    assert "at position 200 (token 5, then 6)" in bench.found[0][1]
    assert "equal again for 300 tokens from position 201: 300 of them" in bench.found[0][1]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([*SYSTEM, 1, 2, 3], [*SYSTEM, 4, 5, 6]),  # a shared prefix, as it should be
        ([*SYSTEM], [*SYSTEM, 4, 5, 6]),
        ([*range(300, 400), *SYSTEM], [*range(500, 600), *SYSTEM]),  # far apart: another text
        ([1, *SYSTEM[:60], 7], [2, *SYSTEM[:60], 8]),  # too short to matter
        ([7] * 200, [7] * 150),
        ([1, *SYSTEM], [2, *range(1000, 1200)]),
    ],
)
def test_prompts_that_share_well_or_not_at_all_miss_nothing(
    first: list[int], second: list[int]
) -> None:
    bench = Linted("near-miss", num_blocks=256, max_batch_tokens=1024)
    bench.run(first)
    bench.run(second)
    assert bench.found == []


def test_a_near_miss_with_one_prompt_and_a_hit_on_another_costs_nothing() -> None:
    bench = Linted("near-miss", num_blocks=512, max_batch_tokens=1024)
    bench.run([1, *SYSTEM])
    bench.run([2, *SYSTEM])
    bench.run([1, *SYSTEM])  # closest in memory is the second, but the first is in the cache
    assert [count for _, _, count in bench.found] == [1]


def test_prompts_under_different_salts_are_not_compared() -> None:
    bench = Linted("near-miss", num_blocks=256, max_batch_tokens=1024)
    bench.run([1, *SYSTEM])
    bench.engine.submit([2, *SYSTEM], SamplingParams(max_tokens=1), salt="tenant")
    bench.finish()
    assert bench.found == []


# --- all of them ---------------------------------------------------------------------------------


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"'near-hit' is not known; choose from: .*near-miss"):
        Lints(["tail-waste", "near-hit"])


def test_lints_are_chosen_by_name_and_all_are_on_if_none_is_named() -> None:
    assert [lint.name for lint in Lints(["near-miss", "tail-waste"]).lints] == [
        "tail-waste",
        "near-miss",
    ]
    assert [lint.name for lint in Lints().lints] == list(LINTS)
    assert Lints([]).lints == []


@pytest.mark.parametrize("name", LINTS)
def test_a_summary_is_one_line_for_one_and_for_many(name: str) -> None:
    lint = LINTS[name]()
    for count in (1, 12):
        assert lint.summary(count) and "\n" not in lint.summary(count)
        assert "requests make " not in lint.summary(count)  # it is the prefill that makes


def test_findings_are_bounded_and_the_one_not_raised_for_longest_makes_room() -> None:
    lint = Lint()
    lint.name = "test"  # pyright: ignore[reportAttributeAccessIssue]
    for i in range(MAX_FINDINGS):
        lint.warn(f"request {i}", "once", step=1)
    lint.warn("request 0", "twice", step=2)
    lint.warn("request 100", "once", step=3)
    assert len(lint.found) == MAX_FINDINGS
    assert "request 1" not in lint.found
    assert lint.found["request 0"] == Finding("test", "request 0", "twice", 2, count=2)
    assert lint.entities == MAX_FINDINGS + 1


def linted_load(seed: int) -> Lints:
    load, lints = Load(seed), Lints()
    load.engine.log.listen(lambda r: lints.apply(r, load.state))
    load.run()
    return lints


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_lints_of_random_loads_run_through_and_are_the_same_again(first: int) -> None:
    raised = set()
    for seed in range(first, first + 50):
        lints = linted_load(seed)
        findings = lints.findings()
        raised |= {f.lint for f in findings}
        assert msgspec.json.encode(findings) == msgspec.json.encode(linted_load(seed).findings())
        assert lints.summaries().keys() == {f.lint for f in findings}
        assert not any("\n" in f.sentence for f in findings)
    assert raised >= {"preemption-thrash", "evicted-then-recomputed", "budget-unused"}


def test_lints_that_join_in_the_middle_say_less_but_run() -> None:
    for seed in range(20):
        load, lints = Load(seed), Lints()
        seen = []

        def late(record: StepRecord, load=load, lints=lints, seen=seen) -> None:
            seen.append(record)
            if len(seen) > 15:
                lints.apply(record, load.state)

        load.engine.log.listen(late)
        load.run()


def test_a_step_of_1000_decodes_costs_little() -> None:
    bench = Bench(block_size=16, num_blocks=4000, max_batch_tokens=8000, max_running_requests=1000)
    lints, seconds = Lints(), []

    def timed(record: StepRecord) -> None:
        began = time.perf_counter()
        lints.apply(record, bench.state)
        seconds.append(time.perf_counter() - began)

    for i in range(1000):
        bench.submit([i] * (4 + i % 5), max_tokens=100)
    bench.engine.step()
    bench.engine.log.listen(timed)
    for _ in range(32):
        bench.engine.step()
    assert all(len(d.reqs) == 1000 for d in bench.events(Decoding))
    assert sorted(seconds)[16] < 2e-3  # 0.1 ms on a quiet machine
