"""Forks: nothing changed repeats the recording, and whatever is changed, the engine stays sound."""

import random
from typing import Any

import pytest
from minisgl_tui.engine import fork as forking
from minisgl_tui.engine.audit import audit, compare
from minisgl_tui.engine.engine import Engine
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.events import AnyEvent, Position, StepFailed, StepRecord
from minisgl_tui.engine.fork import Changes, Fork, fork
from minisgl_tui.engine.fork.reading import Recorded
from minisgl_tui.engine.fork.replay import RecordedRunner
from minisgl_tui.engine.history import History
from minisgl_tui.engine.plan import Plan, StepOutput
from minisgl_tui.engine.policies import (
    ADMISSION_POLICIES,
    EVICTION_POLICIES,
    PREEMPTION_POLICIES,
    SCHEDULE_POLICIES,
)
from minisgl_tui.engine.simulate import SimulatedRunner
from minisgl_tui.engine.state import EngineState
from test_oracle import Load, run_load


def history_of(records: list[StepRecord], state: EngineState) -> History:
    history = History.live(state)
    for record in records:
        state.apply(record)
        history.append(record, state)
    return history


def recorded(load: Load) -> History:
    return history_of(load.records, EngineState(load.config))


def essence(history: History, first: int = 0) -> list[tuple[Position, str, dict[str, Any]]]:
    """The events with their places, without the numbers of blocks, and with how many there are; a
    step that failed fails with another word."""

    def seen(event: AnyEvent) -> dict[str, Any]:
        fields = {name: getattr(event, name) for name in event.__struct_fields__}
        counts = {name: len(fields[name]) for name in ("blocks", "freed") if name in fields}
        said = {name: "" for name in ("message", "error") if name in fields}
        return fields | counts | said

    return [
        (record.position(i), type(event).__name__, seen(event))
        for record in history.records(first)
        for i, event in enumerate(record.events)
    ]


@pytest.mark.parametrize("first", range(0, 120, 20))
def test_with_nothing_changed_a_fork_repeats_the_recording(first: int) -> None:
    forks = 0
    for seed in range(first, first + 20):
        history = recorded(run_load(seed))
        rng = random.Random(seed)
        for cut in {0, rng.randrange(len(history)), rng.randrange(len(history))}:
            try:
                made = fork(history, history.position_after(cut), Changes())
            except UserError as error:
                assert "no step" in str(error)
                continue
            assert made.diverged is None
            assert essence(made.history) == essence(history, cut), f"seed {seed} from {cut}"
            forks += 1
    assert forks > 20


class Oracle(SimulatedRunner):
    """Answers as recorded, and checks what every row reads, also of what was there at the fork."""

    def __init__(self, runner: RecordedRunner, engine: Engine) -> None:
        config = engine.config
        super().__init__(config.num_blocks, config.block_size, lambda row: 0)
        self.answers = runner
        for node in engine.cache.tree.nodes():
            self.fill(node.blocks, node.tokens)
        for request in engine.scheduler.running:
            self.fill(request.block_table, request.tokens[: request.computed])

    def fill(self, table: list[int], tokens: list[int]) -> None:
        for i, token in enumerate(tokens):
            self.kv[table[i // self.block_size] * self.block_size + i % self.block_size] = token

    def execute(self, plan: Plan) -> StepOutput:
        super().execute(plan)
        return self.answers.execute(plan)

    def check(self, params: object) -> None:
        pass


@pytest.fixture
def audited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fork's engine is audited after every step, its picture compared, its reads checked."""
    make = forking.engine_for

    def engine_for(found: Recorded, state: EngineState, runner: RecordedRunner) -> Engine:
        engine = make(found, state, runner)
        engine.runner = Oracle(runner, engine)
        step = engine.step

        def checked() -> Plan | None:
            plan = step()
            failed = [e.error for e in state.notes if isinstance(e, StepFailed)]
            assert all("injected" in error for error in failed), failed
            assert audit(engine) == []
            assert compare(engine, state) == []
            return plan

        monkeypatch.setattr(engine, "step", checked)
        assert audit(engine) == []
        assert compare(engine, state) == []
        return engine

    monkeypatch.setattr(forking, "engine_for", engine_for)


def random_changes(rng: random.Random) -> Changes:
    everything = {
        "num_blocks": rng.randint(1, 40),
        "max_batch_tokens": rng.choice([1, 2, 3, 8, 64]),
        "max_running_requests": rng.choice([1, 2, 4, 16]),
        "schedule_policy": rng.choice(list(SCHEDULE_POLICIES)),
        "admission_policy": rng.choice(list(ADMISSION_POLICIES)),
        "preemption_policy": rng.choice(list(PREEMPTION_POLICIES)),
        "eviction_policy": rng.choice(list(EVICTION_POLICIES)),
    }
    return Changes(**{name: v for name, v in everything.items() if rng.random() < 0.4})


@pytest.mark.usefixtures("audited")
@pytest.mark.parametrize("first", range(0, 120, 20))
def test_whatever_is_changed_the_fork_stays_sound_and_ends_everybody(first: int) -> None:
    forks = 0
    for seed in range(first, first + 20):
        load = run_load(seed)
        history = recorded(load)
        rng = random.Random(seed)
        for _ in range(3):
            at = history.position_after(rng.choice([0, rng.randrange(len(history))]))
            changes = random_changes(rng)
            try:
                made = fork(history, at, changes)
            except UserError as error:
                assert "no step" in str(error)
                continue
            check_ends(made, load, f"seed {seed} at {at} with {changes}")
            forks += 1
    assert forks > 20


def check_ends(made: Fork, load: Load, what: str) -> None:
    """Nobody is left, nothing is held, and nobody was answered what he was not answered before."""
    end = made.history.state_at(made.history.end)
    assert not end.waiting and not end.running, what
    assert end.free + end.evictable == end.config.num_blocks, what
    assert end.config == made.changes.apply(load.config)
    for request in load.submitted:
        other = end.requests[request.id]
        assert other.output == request.output[: len(other.output)], what
        if other.finish_reason in ("stop", "length"):
            assert other.output == request.output, what
