"""A small engine on the oracle, with its picture, for tests that say what they expect."""

from typing import TypeVar

from minisgl_tui.engine.audit import audit, compare
from minisgl_tui.engine.config import EngineConfig
from minisgl_tui.engine.engine import Engine
from minisgl_tui.engine.events import AnyEvent, StepRecord
from minisgl_tui.engine.plan import Plan, Row
from minisgl_tui.engine.request import Request
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.simulate import SimulatedRunner
from minisgl_tui.engine.state import EngineState

E = TypeVar("E")


def counting(row: Row) -> int:
    """Every request goes on with 1000, 1001, … so outputs never share by accident."""
    return 1000 + row.request.id * 100 + row.end


class Bench:
    """An engine, its events and its picture; every `step` is audited and compared."""

    def __init__(self, next_token=counting, **settings: object) -> None:
        defaults: dict[str, object] = {"block_size": 4, "num_blocks": 64, "max_batch_tokens": 64}
        self.config = EngineConfig(**(defaults | settings))  # pyright: ignore[reportArgumentType]
        self.runner = SimulatedRunner(self.config.num_blocks, self.config.block_size, next_token)
        self.engine = Engine(self.config, self.runner, self.runner.clock)
        self.state = EngineState(self.config)
        self.records: list[StepRecord] = []
        self.engine.log.listen(self.records.append)
        self.engine.log.listen(self.state.apply)

    def submit(self, prompt: list[int], max_tokens: int = 4) -> Request:
        return self.engine.submit(prompt, SamplingParams(max_tokens=max_tokens))

    def step(self, count: int = 1) -> Plan | None:
        plan = None
        for _ in range(count):
            plan = self.engine.step()
            self.check()
        return plan

    def finish(self, limit: int = 2000) -> None:
        while self.engine.has_work():
            limit -= 1
            assert limit, f"stuck with {list(self.engine.requests.values())}"
            self.step()

    def check(self) -> None:
        assert audit(self.engine) == []
        assert compare(self.engine, self.state) == []

    def events(self, kind: type[E]) -> list[E]:
        return [e for r in self.records for e in r.events if isinstance(e, kind)]

    def last(self, kind: type[E]) -> list[E]:
        """The events of that kind in the latest step."""
        step = self.engine.step_count
        return [e for r in self.records if r.step == step for e in r.events if isinstance(e, kind)]

    @property
    def log(self) -> list[AnyEvent]:
        return [e for r in self.records for e in r.events]


def chunks(plan: Plan | None) -> list[tuple[int, int]]:
    """``(request, tokens)`` of each row."""
    assert plan is not None
    return [(row.request.id, row.count) for row in plan.rows]
