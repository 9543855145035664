"""Figures are what the records say: latencies, hits and the work of each step, counted by hand or
by asking the plan."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import Bench
from minisgl_tui.engine.bench.contention import Others
from minisgl_tui.engine.bench.costs import Limits, ModelCost, StepWork, roof, step_works
from minisgl_tui.engine.bench.measures import Run, measure_run, percentile, report
from minisgl_tui.engine.events import Preempted

COST = ModelCost(body=1000, head=100, kv=8, attend=4, itemsize=2)


def measure(bench: Bench, seconds: float = 1.0) -> Run:
    return measure_run(bench.records, seconds=seconds, detokenize=0.25, block_size=4)


def test_the_first_token_counts_from_submission_and_the_others_from_the_one_before() -> None:
    bench = Bench()
    bench.submit([1] * 9, max_tokens=3)
    bench.finish()
    steps = [record for record in bench.records if record.timings]
    ends = [record.t + record.seconds for record in steps]
    run = measure(bench)
    assert run.ttft == pytest.approx([ends[0] - bench.records[0].t])
    assert run.itl == pytest.approx([ends[1] - ends[0], ends[2] - ends[1]])
    assert (run.steps, run.prompt_tokens, run.output_tokens) == (3, 9, 3)
    assert run.phases["detokenize"] == 0.25
    assert sum(run.phases.values()) == pytest.approx(1.0)


def test_only_hits_of_a_first_admission_count() -> None:
    bench = Bench(num_blocks=12, max_batch_tokens=32)
    requests = [bench.submit([i] * 8, max_tokens=24) for i in range(1, 4)]
    bench.submit([1] * 8, max_tokens=1)
    bench.finish()
    assert bench.events(Preempted)
    assert measure(bench).cached_tokens == sum(one.cached_tokens for one in requests) + 4


def test_the_work_of_each_step_is_that_of_its_plan() -> None:
    """Random loads of shared prefixes, chunks and preemption, against the plan itself."""
    rng = random.Random(0)
    bench = Bench(num_blocks=14, max_batch_tokens=16)
    heads = [[1] * 12, [1] * 8 + [2] * 6]
    asked: list[StepWork] = []
    left = 40
    while left or bench.engine.has_work():
        if left and rng.random() < 0.5:
            prompt = [*rng.choice(heads), *(rng.randrange(9) for _ in range(rng.randint(1, 9)))]
            bench.submit(prompt, max_tokens=rng.randint(1, 12))
            left -= 1
        execute = bench.runner.execute

        def spy(plan, execute=execute):
            rows = plan.rows
            slots = {
                (row.request.block_table[i // 4], i % 4) for row in rows for i in range(row.end)
            }
            asked.append(
                StepWork(
                    tokens=sum(row.count for row in rows),
                    sampled=sum(row.samples for row in rows),
                    attended=sum(sum(range(row.start + 1, row.end + 1)) for row in rows),
                    positions=len(slots),
                )
            )
            return execute(plan)

        bench.runner.execute = spy
        bench.step()
        bench.runner.execute = execute
    assert bench.events(Preempted)
    assert len(asked) > 50
    assert list(step_works(bench.records, 4)) == asked


def test_a_step_costs_its_weights_its_keys_and_its_products() -> None:
    chunk = StepWork(tokens=3, sampled=0, attended=6, positions=3)
    assert COST.bytes(chunk) == 2 * (1000 + 8 * 3)
    assert COST.flops(chunk) == 2 * 1000 * 3 + 4 * 6
    decode = StepWork(tokens=2, sampled=2, attended=20, positions=16)
    assert COST.bytes(decode) == 2 * (1000 + 100 + 8 * 16)
    assert COST.flops(decode) == 2 * (1000 * 2 + 100 * 2) + 4 * 20


def test_the_roof_takes_the_larger_limit_step_by_step() -> None:
    works = [StepWork(1, 0, 0, 0), StepWork(10, 0, 0, 0)]  # 2000 bytes each; 2000, 20000 FLOPs
    found = roof(works, COST, Limits(read_bandwidth=1000, peak=4000), seconds=10)
    assert found.memory == pytest.approx((2 + 2) / 10)
    assert found.compute == pytest.approx((0.5 + 5) / 10)
    assert found.fraction == pytest.approx((2 + 5) / 10)


def test_percentiles_are_samples_by_nearest_rank() -> None:
    samples = [float(n) for n in range(1, 101)]
    random.Random(1).shuffle(samples)
    assert [percentile(samples, q) for q in (0, 0.5, 0.95, 0.99, 1)] == [1, 50, 95, 99, 100]
    assert percentile([3.0], 0.99) == 3
    assert percentile([], 0.5) is None


def test_a_report_has_the_median_of_each_figure() -> None:
    runs = [
        Run(
            seconds=seconds,
            prompt_tokens=10,
            output_tokens=20,
            cached_tokens=5,
            ttft=[seconds],
            itl=[],
            errors={"lost": 1},
        )
        for seconds in (4.0, 1.0, 2.0)
    ]
    made = report("w", 1, runs)
    assert (made.seconds, made.repeats) == (2, [4, 1, 2])
    assert (made.output_tokens_per_s, made.total_tokens_per_s) == (10, 15)
    assert (made.ttft.p50, made.itl.p99, made.hit_rate, made.steps) == (2, None, 0.5, None)
    assert made.errors == {"lost": 3}


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="known on Linux only")
def test_other_programs_are_noticed_and_we_are_not_one_of_them() -> None:
    spin = "import time; until = time.time() + 0.6\nwhile time.time() < until: pass"
    others = Others()
    subprocess.run([sys.executable, "-c", spin], check=True)
    noticed = others.cores()
    assert noticed is not None and noticed > 0.5
    until = time.process_time() + 0.5
    others, began = Others(), time.perf_counter()
    while time.process_time() < until:
        pass
    own = 0.5 / (time.perf_counter() - began)
    total = len(list(Path("/sys/devices/system/cpu").glob("cpu[0-9]*")))
    assert (others.cores() or 0) <= total - own + 0.1
