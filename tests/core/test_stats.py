"""Statistics say what happened: against brute force, against the runner, and to the millisecond."""

import math
import random
import time
from itertools import pairwise

import msgspec
import pytest
from helpers import Bench
from minisgl_tui.engine.blocks import BlockState
from minisgl_tui.engine.errors import RequestRefused
from minisgl_tui.engine.events import Decoding, Sampled, StepBegan, StepRecord, Submitted
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.stats import EDGES, Histogram, Statistics
from test_oracle import Load

TOKEN, STEP = 1e-4, 5e-3  # what the simulated runner takes for a token and for a step


class Measured(Bench):
    """A bench with statistics."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        self.stats = Statistics(self.config.num_blocks, self.config.block_size)
        state = self.state
        self.engine.log.listen(lambda r: self.stats.apply(r, state.free, state.evictable))


class MeasuredLoad(Load):
    """A random load whose statistics are counted again after every step."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.stats = Statistics(self.config.num_blocks, self.config.block_size)
        state = self.state
        self.engine.log.listen(lambda r: self.stats.apply(r, state.free, state.evictable))

    def check(self) -> None:
        super().check()
        stats, size = self.stats, self.config.block_size
        running = self.engine.scheduler.running
        assert stats.submitted == stats.ended + len(self.engine.requests)
        assert set(stats.live) == set(self.engine.requests)
        assert stats.tail_slots == sum(len(r.block_table) * size - r.computed for r in running)
        for request in self.engine.requests.values():
            assert stats.live[request.id].outputs == len(request.output)


# --- histograms ----------------------------------------------------------------------------------


def histogram(*samples: float) -> Histogram:
    h = Histogram()
    for sample in samples:
        h.add(sample)
    return h


def test_edges_go_from_100_microseconds_to_1000_seconds_ten_a_decade() -> None:
    assert (EDGES[0], EDGES[10], EDGES[-1], len(EDGES)) == (1e-4, 1e-3, 1e3, 71)
    assert all(1.24 < b / a < 1.28 for a, b in pairwise(EDGES))


@pytest.mark.parametrize("seed", range(20))
def test_the_true_quantile_lies_within_the_bounds_and_so_does_the_estimate(seed: int) -> None:
    rng = random.Random(seed)
    samples = sorted(10 ** rng.uniform(-6, 4) for _ in range(rng.randint(1, 300)))
    h = histogram(*rng.sample(samples, len(samples)))
    for q in (0, 0.01, 0.5, 0.9, 0.99, 1):
        low, high = h.bounds(q)
        assert low <= samples[max(1, math.ceil(q * len(samples))) - 1] <= high
        assert low <= h.quantile(q) <= high
        assert high <= low * 1.28 or high <= EDGES[0] or high > EDGES[-1]
    assert (h.quantile(0), h.quantile(1)) == (samples[0], samples[-1])
    assert h.mean == pytest.approx(sum(samples) / len(samples))


def test_one_value_many_times_is_known_exactly() -> None:
    h = Histogram()
    h.add(0.0301, times=1000)
    assert h.bounds(0.5) == (0.0301, 0.0301)
    assert (h.count, h.mean) == (1000, pytest.approx(0.0301))


def test_an_empty_histogram_knows_no_quantile() -> None:
    assert math.isnan(Histogram().quantile(0.5))
    assert math.isnan(Histogram().mean)
    with pytest.raises(ValueError, match=r"1\.5 is not between 0 and 1"):
        Histogram().quantile(1.5)


def test_merged_histograms_equal_one_of_all_samples() -> None:
    first, second, empty = histogram(0.5, 0.001), histogram(2000.0, 0.25), Histogram()
    first.merge(second)
    first.merge(empty)
    assert first == histogram(0.5, 0.001, 2000.0, 0.25)
    empty.merge(second)
    assert empty == second


def test_cumulative_buckets_count_what_is_at_most_the_edge() -> None:
    buckets = dict(histogram(1e-4, 0.01, 0.0101, 5000.0).cumulative())
    assert (buckets[1e-4], buckets[0.00794], buckets[0.01], buckets[0.0126]) == (1, 1, 2, 3)
    assert (buckets[1e3], buckets[math.inf]) == (3, 4)


# --- a run, to the millisecond -------------------------------------------------------------------


def test_a_lone_request_has_the_times_of_the_simulated_clock() -> None:
    bench = Measured()
    bench.runner.clock.advance(2.0)
    bench.submit([1] * 10, max_tokens=3)
    bench.runner.clock.advance(0.5)  # it waits half a second for the first step
    bench.finish()
    stats = bench.stats
    first, gap = STEP + 10 * TOKEN, STEP + TOKEN
    assert stats.queue.mean == pytest.approx(0.5)
    assert stats.ttft.mean == pytest.approx(0.5 + first)
    assert (stats.itl.count, stats.itl.mean) == (2, pytest.approx(gap))
    assert (stats.tpot.count, stats.tpot.mean) == (1, pytest.approx(gap))
    assert stats.e2e.mean == pytest.approx(0.5 + first + 2 * gap)
    assert (stats.step_time.count, stats.steps) == (3, 3)
    assert (stats.prefill_tokens, stats.decode_tokens, stats.sampled_tokens) == (10, 2, 3)


def test_requests_are_counted_by_how_they_end_and_refused_ones_apart() -> None:
    bench = Measured(max_model_len=20)
    bench.submit([1] * 5, max_tokens=2)
    aborted = bench.submit([2] * 5, max_tokens=9)
    with pytest.raises(RequestRefused):
        bench.submit([3] * 30)
    bench.step()
    bench.engine.abort(aborted.id)
    bench.finish()
    stats = bench.stats
    assert (stats.submitted, stats.refused, stats.finished) == (3, 1, {"length": 1, "abort": 1})
    assert stats.ended == 3
    assert (stats.e2e.count, stats.tpot.count, stats.ttft.count) == (1, 1, 2)


def test_hits_after_a_preemption_are_not_counted_as_hits() -> None:
    bench = Measured(num_blocks=8, max_batch_tokens=64)
    bench.submit([1] * 12, max_tokens=12)
    bench.submit([2] * 12, max_tokens=12)
    bench.finish()
    stats = bench.stats
    assert stats.preemptions == bench.state.requests[1].preemptions == 1
    assert stats.rehit_tokens == bench.state.requests[1].recomputed_hits > 0
    assert (stats.prompt_tokens, stats.cached_tokens, stats.hit_rate) == (24, 0, 0.0)
    assert stats.lost_tokens == 16  # both had filled four of the eight blocks
    bench.submit([1] * 12, max_tokens=1)
    bench.finish()
    assert (stats.prompt_tokens, stats.cached_tokens) == (36, 8)


def test_fragmentation_is_the_empty_end_of_the_last_block() -> None:
    bench = Measured(block_size=16, num_blocks=8)
    bench.submit([1] * 20, max_tokens=5)
    bench.step()
    stats = bench.stats
    assert (stats.held_blocks, stats.free_blocks, stats.evictable_blocks) == (2, 6, 0)
    assert (stats.tail_slots, stats.fragmentation) == (12, 12 / 32)
    bench.finish()
    assert (stats.held_blocks, stats.free_blocks, stats.evictable_blocks) == (0, 7, 1)
    assert (stats.tail_slots, stats.fragmentation) == (0, 0.0)


def test_evictions_are_counted_in_blocks_by_why() -> None:
    bench = Measured(block_size=4, num_blocks=4)
    bench.submit([1] * 12, max_tokens=1)
    bench.finish()
    bench.submit([2] * 8, max_tokens=1)
    bench.finish()
    bench.engine.reset_prefix_cache()
    assert bench.stats.evicted == {"capacity": 1, "reset": 4}
    assert bench.stats.evicted_blocks == 5


# --- any run -------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_statistics_of_random_loads_equal_a_count_from_scratch(first: int) -> None:
    for seed in range(first, first + 50):
        load = MeasuredLoad(seed)
        load.run()
        stats, events = load.stats, [e for r in load.records for e in r.events]
        assert stats.submitted == sum(isinstance(e, Submitted) for e in events)
        assert stats.sampled_tokens == sum(len(e.reqs) for e in events if isinstance(e, Sampled))
        if not stats.failed_steps:
            assert stats.scheduled_tokens == load.runner.tokens_computed
        cached = sum(state == BlockState.CACHED for state in load.state.block_state)
        assert (stats.evictable_blocks, stats.held_blocks) == (cached, 0)
        assert (stats.live, stats.unsampled, stats.tail_slots) == ({}, [], 0)
        assert stats.itl.count == stats.sampled_tokens - stats.ttft.count


def test_the_same_events_give_the_same_statistics_and_they_survive_the_wire() -> None:
    first, second = MeasuredLoad(5), MeasuredLoad(5)
    first.run()
    second.run()
    assert first.stats == second.stats
    wire = msgspec.json.encode(first.stats)
    assert msgspec.json.decode(wire, type=Statistics) == first.stats


def test_a_summary_is_plain_numbers_even_of_nothing() -> None:
    load = MeasuredLoad(5)
    for stats in (load.stats, Statistics(8, 16)):
        assert msgspec.json.decode(msgspec.json.encode(stats.summary())) == stats.summary()
    load.run()
    summary = load.stats.summary()
    assert all(type(n) in (int, float) and math.isfinite(n) for n in summary.values())
    assert 0 < summary["ttft_p50"] <= summary["ttft_p99"] <= summary["ttft_max"]


def test_statistics_of_events_joined_in_the_middle_leave_out_what_is_not_known() -> None:
    load = MeasuredLoad(5)
    load.run()
    late = Statistics(load.config.num_blocks, load.config.block_size)
    for record in load.records[len(load.records) // 2 :]:
        late.apply(record, 0, 0)
    assert late.ttft.count <= load.stats.ttft.count


def test_a_step_of_1000_decodes_costs_little() -> None:
    stats = Statistics(100_000, 16)
    ids = list(range(1000))
    joined = [Submitted(i, [1, 2, 3], SamplingParams()) for i in ids]
    stats.apply(StepRecord(seq=0, step=0, events=[*joined]), 0, 0)
    best = math.inf
    for step in range(1, 50):
        events = [StepBegan(step, 1000, 0, 1000, 0, 0), Decoding(ids), Sampled(ids, ids)]
        record = StepRecord(
            seq=step, step=step, t=step * 0.01, seconds=0.009, events=events, timings={"x": 1.0}
        )
        began = time.perf_counter()
        stats.apply(record, 0, 0)
        best = min(best, time.perf_counter() - began)
    assert best < 2e-3  # 0.1 ms on a quiet machine
