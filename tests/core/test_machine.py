"""A hypothesis state machine over the engine: any order of calls, every step audited, and a small
counterexample when something breaks."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from minisgl_tui.engine.audit import audit, compare
from minisgl_tui.engine.config import EngineConfig
from minisgl_tui.engine.engine import Engine
from minisgl_tui.engine.errors import RequestRefused
from minisgl_tui.engine.events import StepFailed
from minisgl_tui.engine.policies import (
    ADMISSION_POLICIES,
    EVICTION_POLICIES,
    PREEMPTION_POLICIES,
    SCHEDULE_POLICIES,
)
from minisgl_tui.engine.request import Request
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.state import EngineState
from test_oracle import FlakyRunner

CONFIGS = st.builds(
    EngineConfig,
    block_size=st.integers(1, 5),
    num_blocks=st.integers(1, 12),
    max_batch_tokens=st.integers(1, 12),
    max_running_requests=st.integers(1, 4),
    max_model_len=st.sampled_from([10, 200]),
    schedule_policy=st.sampled_from(sorted(SCHEDULE_POLICIES)),
    admission_policy=st.sampled_from(sorted(ADMISSION_POLICIES)),
    preemption_policy=st.sampled_from(sorted(PREEMPTION_POLICIES)),
    eviction_policy=st.sampled_from(sorted(EVICTION_POLICIES)),
)


class EngineMachine(RuleBasedStateMachine):
    @initialize(config=CONFIGS, failures=st.sampled_from([0.0, 0.1]), seed=st.integers(0, 99))
    def start(self, config: EngineConfig, failures: float, seed: int) -> None:
        runner = FlakyRunner(config, seed, 2, failures)
        self.engine = runner.engine = Engine(config, runner, runner.clock)
        self.state = EngineState(config)
        self.engine.log.listen(self.state.apply)
        self.asked: list[Request] = []

    @rule(
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=30),
        max_tokens=st.integers(1, 20),
        n=st.sampled_from([1, 1, 2]),
        priority=st.integers(0, 2),
        salt=st.sampled_from(["", "x"]),
        timeout=st.sampled_from([None, None, 0.02]),
    )
    def submit(self, prompt, max_tokens, n, priority, salt, timeout) -> None:
        params = SamplingParams(max_tokens=max_tokens)
        try:
            self.asked += self.engine.submit_samples(
                prompt, params, n, priority=priority, salt=salt, timeout=timeout
            )
        except RequestRefused:
            config = self.engine.config
            assert len(prompt) > min(config.capacity, config.max_model_len - 1)

    @rule(count=st.integers(1, 6))
    def step(self, count: int) -> None:
        for _ in range(count):
            self.engine.step()
            self.adds_up()

    @rule(request_id=st.integers(0, 20))
    def abort(self, request_id: int) -> None:
        live = any(r.id == request_id and not r.finished for r in self.asked)
        assert self.engine.abort(request_id) == live
        assert not self.engine.abort(request_id)

    @rule()
    def reset(self) -> None:
        self.engine.reset_prefix_cache()
        assert self.engine.cache.evictable == 0

    @invariant()
    def adds_up(self) -> None:
        if hasattr(self, "engine"):
            failed = [e.error for e in self.state.notes if isinstance(e, StepFailed)]
            assert all("injected" in error for error in failed), failed
            assert audit(self.engine) == []
            assert compare(self.engine, self.state) == []

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        for _ in range(5000):
            if not self.engine.has_work():
                break
            self.engine.step()
            self.adds_up()
        assert all(r.finished for r in self.asked)
        free, evictable = self.engine.cache.free, self.engine.cache.evictable
        assert free + evictable == self.engine.config.num_blocks


EngineMachine.TestCase.settings = settings(
    max_examples=400, stateful_step_count=30, deadline=None, derandomize=True
)
TestEngineMachine = EngineMachine.TestCase
