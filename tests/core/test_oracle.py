"""Random loads on the real scheduler and cache, every read checked and every step audited."""

import random

import msgspec
import pytest
from minisgl_tui.engine.audit import audit, compare
from minisgl_tui.engine.config import EngineConfig
from minisgl_tui.engine.engine import Engine
from minisgl_tui.engine.errors import RequestRefused
from minisgl_tui.engine.events import StepRecord
from minisgl_tui.engine.request import FinishReason, Request
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.simulate import SimulatedRunner, random_tokens
from minisgl_tui.engine.state import EngineState

LOADS = 2000
CHUNK = 100


class Load:
    """One random load: a small vocabulary, shared prefixes, a tight pool, arrivals and aborts."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        block_size = rng.randint(1, 16)
        self.config = EngineConfig(
            block_size=block_size,
            num_blocks=rng.randint(2, 24),
            max_batch_tokens=rng.choice([1, 2, 3, 5, 8, 16, 64]),
            max_running_requests=rng.choice([1, 2, 4, 16]),
            max_model_len=rng.choice([24, 1000]),
            eos_token_ids=rng.choice([(), (0,)]),
        )
        self.vocab = rng.choice([2, 2, 3, 50])
        runner = SimulatedRunner(
            self.config.num_blocks, block_size, random_tokens(seed, self.vocab)
        )
        self.engine = Engine(self.config, runner, runner.clock)
        self.records: list[StepRecord] = []
        self.state = EngineState(self.config)
        self.engine.log.listen(self.records.append)
        self.engine.log.listen(self.state.apply)
        self.prefixes = [self.ids(rng.randint(0, self.config.capacity)) for _ in range(3)]
        self.submitted: list[Request] = []

    def ids(self, count: int) -> list[int]:
        return [self.rng.randrange(self.vocab) for _ in range(count)]

    def submit_one(self) -> None:
        prefix = self.rng.choice(self.prefixes)
        prompt = prefix[: self.rng.randint(0, len(prefix))] + self.ids(self.rng.randint(1, 12))
        params = SamplingParams(
            max_tokens=self.rng.choice([1, 2, 5, 20, 60]), ignore_eos=self.rng.random() < 0.5
        )
        try:
            self.submitted.append(self.engine.submit(prompt, params))
        except RequestRefused:
            assert len(prompt) > self.config.capacity or len(prompt) >= self.config.max_model_len

    def run(self) -> None:
        to_come = self.rng.randint(1, 14)
        for _ in range(5000):
            while to_come and self.rng.random() < 0.4:
                self.submit_one()
                to_come -= 1
            if self.engine.requests and self.rng.random() < 0.03:
                self.engine.abort(self.rng.choice(list(self.engine.requests)))
                self.check()
            if not to_come and not self.engine.has_work():
                return
            self.engine.step()
            self.check()
        pytest.fail(f"stuck with {list(self.engine.requests.values())}")

    def check(self) -> None:
        assert audit(self.engine) == []
        assert compare(self.engine, self.state) == []


def run_load(seed: int) -> Load:
    load = Load(seed)
    load.run()
    return load


@pytest.mark.parametrize("first", range(0, LOADS, CHUNK))
def test_random_loads_read_right_leak_nothing_and_end(first: int) -> None:
    for seed in range(first, first + CHUNK):
        load = run_load(seed)
        engine = load.engine
        assert engine.cache.free + engine.cache.evictable == load.config.num_blocks
        for request in load.submitted:
            assert request.finished, f"seed {seed}: {request}"
            if request.finish_reason is FinishReason.ERROR:
                assert "outgrew the KV pool" in request.message, f"seed {seed}: {request.message}"


@pytest.mark.parametrize("seed", range(20))
def test_the_same_seed_gives_the_same_event_log(seed: int) -> None:
    first, second = run_load(seed), run_load(seed)
    encode = msgspec.json.encode
    assert [encode(r) for r in first.records] == [encode(r) for r in second.records]


def test_events_survive_the_wire() -> None:
    for record in run_load(3).records:
        wire = msgspec.json.encode(record)
        assert msgspec.json.encode(msgspec.json.decode(wire, type=StepRecord)) == wire
