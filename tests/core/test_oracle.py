"""Random loads on the real scheduler and cache, every read checked and every step audited."""

import random

import msgspec
import pytest
from minisgl_tui.engine.audit import audit, compare
from minisgl_tui.engine.config import EngineConfig
from minisgl_tui.engine.engine import Engine
from minisgl_tui.engine.errors import RequestRefused
from minisgl_tui.engine.events import StepFailed, StepRecord
from minisgl_tui.engine.plan import Plan, StepOutput
from minisgl_tui.engine.policies import (
    ADMISSION_POLICIES,
    EVICTION_POLICIES,
    PREEMPTION_POLICIES,
    SCHEDULE_POLICIES,
)
from minisgl_tui.engine.request import Request
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.simulate import SimulatedRunner, random_tokens
from minisgl_tui.engine.state import EngineState

LOADS, NIGHTLY = 3000, 20_000
CHUNK = 100


class FlakyRunner(SimulatedRunner):
    """Raises now and then, before or after it wrote, and has requests aborted meanwhile."""

    engine: Engine

    def __init__(self, config: EngineConfig, seed: int, vocab: int, failures: float) -> None:
        super().__init__(config.num_blocks, config.block_size, random_tokens(seed, vocab))
        self._rng = random.Random(seed)
        self.failures = failures

    def execute(self, plan: Plan) -> StepOutput:
        if self._rng.random() < self.failures:
            raise RuntimeError("injected before the forward")
        output = super().execute(plan)
        if self._rng.random() < 0.02:
            self.engine.abort(self._rng.choice(plan.rows).request.id)
        if self._rng.random() < self.failures:
            raise RuntimeError("injected after the forward")
        return output


class Load:
    """One random load: a small vocabulary, shared prefixes, a tight pool, arrivals, aborts and
    failing steps."""

    def __init__(self, seed: int, runner: type[FlakyRunner] = FlakyRunner) -> None:
        self.rng = rng = random.Random(seed)
        block_size = rng.randint(1, 16)
        self.config = EngineConfig(
            block_size=block_size,
            num_blocks=rng.randint(2, 24),
            max_batch_tokens=rng.choice([1, 2, 3, 5, 8, 16, 64]),
            max_running_requests=rng.choice([1, 4, 16, 16]),
            max_model_len=rng.choice([24, 1000, 1000]),
            eos_token_ids=rng.choice([(), (0,)]),
            schedule_policy=rng.choice(list(SCHEDULE_POLICIES)),
            admission_policy=rng.choice(list(ADMISSION_POLICIES)),
            preemption_policy=rng.choice(list(PREEMPTION_POLICIES)),
            eviction_policy=rng.choice(list(EVICTION_POLICIES)),
        )
        self.vocab = rng.choice([2, 2, 3, 50])
        self.runner = runner(self.config, seed, self.vocab, rng.choice([0, 0, 0.02]))
        self.engine = self.runner.engine = Engine(self.config, self.runner, self.runner.clock)
        self.records: list[StepRecord] = []
        self.state = EngineState(self.config)
        self.engine.log.listen(self.records.append)
        self.engine.log.listen(self.state.apply)
        self.prefixes = [self.ids(rng.randint(0, self.config.capacity // 2)) for _ in range(3)]
        self.submitted: list[Request] = []

    def ids(self, count: int) -> list[int]:
        return [self.rng.randrange(self.vocab) for _ in range(count)]

    def submit_one(self) -> None:
        prefix = self.rng.choice(self.prefixes)
        prompt = prefix[: self.rng.randint(0, len(prefix))] + self.ids(self.rng.randint(1, 12))
        params = SamplingParams(
            max_tokens=self.rng.choice([1, 5, 20, 60]), ignore_eos=self.rng.random() < 0.8
        )
        priority = self.rng.choice([0, 0, 1, 2])
        salt = self.rng.choice(["", "", "tenant"])
        timeout = self.rng.choice([None, None, None, 0.05])
        n = self.rng.choice([1, 1, 1, 3])
        try:
            self.submitted += self.engine.submit_samples(
                prompt, params, n, priority=priority, salt=salt, timeout=timeout
            )
        except RequestRefused:
            assert len(prompt) > self.config.capacity or len(prompt) >= self.config.max_model_len

    def run(self) -> None:
        to_come = self.rng.randint(1, 14)
        for _ in range(5000):
            while to_come and self.rng.random() < 0.4:
                self.submit_one()
                to_come -= 1
            if self.engine.requests and self.rng.random() < 0.01:
                self.engine.abort(self.rng.choice(list(self.engine.requests)))
                self.check()
            if not to_come and not self.engine.has_work():
                return
            self.engine.step()
            self.check()
        pytest.fail(f"stuck with {list(self.engine.requests.values())}")

    def check(self) -> None:
        failed = [e.error for e in self.state.notes if isinstance(e, StepFailed)]
        assert all("injected" in error for error in failed), failed
        assert audit(self.engine) == []
        assert compare(self.engine, self.state) == []


def run_load(seed: int) -> Load:
    load = Load(seed)
    load.run()
    return load


@pytest.mark.parametrize("first", range(0, LOADS, CHUNK))
def test_random_loads_read_right_leak_nothing_and_end(first: int) -> None:
    run_chunk(first)


@pytest.mark.long
@pytest.mark.parametrize("first", range(LOADS, NIGHTLY, CHUNK))
def test_many_more_random_loads(first: int) -> None:
    run_chunk(first)


def run_chunk(first: int) -> None:
    for seed in range(first, first + CHUNK):
        load = run_load(seed)
        engine = load.engine
        assert engine.cache.free + engine.cache.evictable == load.config.num_blocks
        for request in load.submitted:
            assert request.finished, f"seed {seed}: {request}"


@pytest.mark.parametrize("seed", range(20))
def test_the_same_seed_gives_the_same_event_log(seed: int) -> None:
    first, second = run_load(seed), run_load(seed)
    encode = msgspec.json.encode
    assert [encode(r) for r in first.records] == [encode(r) for r in second.records]


def test_events_survive_the_wire() -> None:
    for record in run_load(3).records:
        wire = msgspec.json.encode(record)
        assert msgspec.json.encode(msgspec.json.decode(wire, type=StepRecord)) == wire
