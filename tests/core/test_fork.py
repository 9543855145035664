"""Forks: nothing changed repeats the recording, and whatever is changed, the engine stays sound."""

import random
from contextlib import suppress
from dataclasses import replace as replace_output
from pathlib import Path
from typing import Any

import msgspec
import pytest
from helpers import Bench
from minisgl_tui.engine import fork as forking
from minisgl_tui.engine.audit import audit, compare
from minisgl_tui.engine.config import EngineConfig
from minisgl_tui.engine.engine import Engine
from minisgl_tui.engine.errors import RequestRefused, UserError
from minisgl_tui.engine.events import AnyEvent, Position, StepFailed, StepRecord
from minisgl_tui.engine.fork import Changes, Fork, fork
from minisgl_tui.engine.fork.figures import UNKNOWN
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
from minisgl_tui.engine.sampling import SamplingParams, TokenLogprobs
from minisgl_tui.engine.simulate import SimulatedRunner, random_tokens
from minisgl_tui.engine.snapshot import Snapshot
from minisgl_tui.engine.state import EngineState
from minisgl_tui.engine.trace import Model, new_header
from minisgl_tui.engine.trace_file import Trace, save
from msgspec.structs import replace
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


# --- is it true? ---------------------------------------------------------------------------------


def first_come(seed: int) -> list[tuple[list[int], SamplingParams, int]]:
    """Requests that are all there at the start, some behind the same head."""
    rng = random.Random(seed)
    heads = [[rng.randrange(50) for _ in range(rng.randint(0, 12))] for _ in range(3)]
    return [
        (
            rng.choice(heads) + [rng.randrange(50) for _ in range(rng.randint(1, 10))],
            SamplingParams(max_tokens=rng.randint(1, 30), logprobs=None),
            rng.choice([0, 0, 1]),
        )
        for _ in range(rng.randint(2, 12))
    ]


def really_run(seed: int, config: EngineConfig) -> tuple[EngineState, list[StepRecord]]:
    runner = SimulatedRunner(config.num_blocks, config.block_size, random_tokens(seed, 50))
    engine = Engine(config, runner, runner.clock)
    state, records = EngineState(config), list[StepRecord]()
    engine.log.listen(state.apply)
    engine.log.listen(records.append)
    for prompt, params, priority in first_come(seed):
        with suppress(RequestRefused):
            engine.submit(prompt, params, priority=priority)
    while engine.has_work():
        engine.step()
    return state, records


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_a_fork_tells_what_the_run_would_have_been_event_for_event(first: int) -> None:
    told = 0
    for seed in range(first, first + 20):
        rng = random.Random(seed)
        config = EngineConfig(
            block_size=rng.randint(1, 8), num_blocks=rng.randint(20, 60), max_batch_tokens=16
        )
        changes = random_changes(rng)
        state, records = really_run(seed, config)
        if any(r.finish_reason == "error" for r in state.requests.values()):
            continue  # their answers would go on, and nobody knows how
        history = history_of(records, EngineState(config))
        made = fork(history, history.start, changes)
        _, wanted = really_run(seed, changes.apply(config))
        real = history_of(wanted, EngineState(changes.apply(config)))
        assert essence(made.history) == essence(real), f"seed {seed} with {changes}"
        if made.costs.steps > 20:
            assert made.figures.seconds == pytest.approx(real.state_after(len(real)).now, rel=0.03)
            told += 1
    assert told > 5


# --- what is special -----------------------------------------------------------------------------


def bench_history(bench: Bench) -> History:
    return history_of(bench.records, EngineState(bench.config))


def test_pauses_are_left_out_of_the_times_of_both() -> None:
    bench = Bench()
    for _ in range(3):
        bench.submit([1, 2, 3], max_tokens=6)
    bench.step(2)
    bench.runner.clock.advance(60)
    bench.finish()
    history = bench_history(bench)
    same = fork(history, history.start, Changes())
    assert same.diverged is None
    assert same.figures.seconds < 1
    assert same.recorded.seconds == pytest.approx(same.figures.seconds)
    assert same.notes[0].startswith("60.0 s in which nobody stepped")
    other = fork(history, history.start, Changes(max_running_requests=1))
    assert other.diverged == 1
    assert other.figures.seconds < 1


def test_log_probabilities_go_with_their_tokens() -> None:
    bench = Bench()

    def execute(plan: Plan) -> StepOutput:
        output = SimulatedRunner.execute(bench.runner, plan)
        wanted = [row.request.params.logprobs for row in plan.rows if row.samples]
        scores = [
            TokenLogprobs(-token / 1000, [(token, -0.5)]) if k is not None else None
            for token, k in zip(output.tokens, wanted, strict=True)
        ]
        return replace_output(output, logprobs=scores)

    bench.runner.execute = execute  # pyright: ignore[reportAttributeAccessIssue]
    for i in range(4):
        params = SamplingParams(max_tokens=9, logprobs=None if i == 2 else 1)
        bench.engine.submit([i] * 6, params)
    bench.step(4)
    at = bench.state.step
    bench.finish()
    history = bench_history(bench)
    for position in (history.start, history.end_of_step(at)):
        other = fork(history, position, Changes(max_batch_tokens=2))
        assert other.diverged is not None
        end = other.history.state_at(other.history.end)
        for id, request in end.requests.items():
            known = [found for found in bench.state.requests[id].logprobs if found]
            assert [found for found in request.logprobs if found] == known
            assert len(known) == (0 if id == 2 else 9)


def test_an_idle_engine_waits_for_what_comes() -> None:
    bench = Bench()
    bench.submit([1, 2, 3], max_tokens=6)
    bench.finish()
    bench.runner.clock.advance(60)
    bench.submit([4, 5, 6], max_tokens=6)
    bench.finish()
    history = bench_history(bench)
    other = fork(history, history.start, Changes(max_batch_tokens=2))
    assert other.diverged == 1
    assert other.recorded.seconds > 60
    assert other.figures.seconds == pytest.approx(other.recorded.seconds, rel=0.01)


def test_a_position_within_a_step_stands_for_its_begin() -> None:
    bench = Bench()
    bench.submit([1, 2, 3], max_tokens=6)
    bench.finish()
    history = bench_history(bench)
    inside = fork(history, Position(3, 1), Changes())
    assert inside.at == history.end_of_step(2)
    assert inside.place == str(history.end_of_step(2))


def test_who_was_alive_at_the_end_of_the_recording_ends_where_it_knows_no_more() -> None:
    bench = Bench()
    first, second = bench.submit([1] * 9, max_tokens=50), bench.submit([2] * 9, max_tokens=50)
    bench.step(12)
    assert not first.finished and not second.finished
    history = bench_history(bench)
    other = fork(history, history.start, Changes(max_running_requests=1))
    end = other.history.state_at(other.history.end)
    assert [end.requests[r.id].output for r in (first, second)] == [first.output, second.output]
    assert {r.message for r in end.requests.values()} == {UNKNOWN}
    told = {figure.name: figure.value for figure in other.figures.all()}
    assert told["not answered to the end"] == 2 and told["aborted"] == 0
    assert any(note.startswith("2 requests were alive") for note in other.notes)


def test_a_prompt_that_was_refused_is_admitted_to_a_larger_pool_and_has_no_answer() -> None:
    bench = Bench(num_blocks=4)
    with pytest.raises(RequestRefused):
        bench.submit([1] * 30)
    bench.submit([2] * 5)
    bench.finish()
    history = bench_history(bench)
    other = fork(history, history.start, Changes(num_blocks=64))
    end = other.history.state_at(other.history.end)
    assert end.requests[0].message == UNKNOWN and end.requests[0].output == []
    assert end.requests[1].finish_reason == "length"


def test_a_smaller_pool_holds_what_fits_at_once(audited: None) -> None:
    bench = Bench(num_blocks=32)
    for i in range(6):
        bench.submit([10 + i] * 14, max_tokens=20)
    bench.step(8)
    at = bench.state.step
    bench.finish()
    history = bench_history(bench)
    other = fork(history, history.end_of_step(at), Changes(num_blocks=9))
    start = other.history.state_at(other.history.start)
    assert len(start.block_state) == start.config.num_blocks == start.stats.num_blocks == 9
    assert max(b for r in start.requests.values() for b in r.block_table) < 9
    assert start.waiting and start.running
    assert "to fit into 9 blocks" in other.notes[0]
    end = other.history.state_at(other.history.end)
    assert all(r.finish_reason == "length" for r in end.requests.values())


def test_a_policy_of_ones_own_is_not_loaded_because_a_file_names_it() -> None:
    bench = Bench()
    bench.submit([1, 2, 3])
    bench.finish()
    config = replace(bench.config, schedule_policy="os:getcwd")
    history = history_of(bench.records, EngineState(config))
    with pytest.raises(UserError, match="give --schedule-policy, that one again or another"):
        fork(history, history.start, Changes(num_blocks=8))
    other = fork(history, history.start, Changes(schedule_policy="lpm"))
    assert other.history.config.schedule_policy == "lpm"


def test_a_fork_can_be_broken_off() -> None:
    history = recorded(run_load(3))

    class Left(Exception):
        pass

    def progress(stage: str, fraction: float | None) -> None:
        if stage == "running the fork":
            raise Left

    with pytest.raises(Left):
        fork(history, history.start, Changes(), progress)


def test_old_recordings_are_forked_without_what_they_do_not_tell() -> None:
    bench = Bench(num_blocks=12)
    for i in range(5):
        bench.submit([10 + i] * 10, max_tokens=12)
    bench.step(6)
    plain = msgspec.to_builtins(bench.state.snapshot())
    del plain["next_node"]
    for node in plain["nodes"].values():
        del node["priority"]
    for request in plain["requests"].values():
        del request["queued_step"], request["timeout"], request["name"]
    old = msgspec.convert(plain, Snapshot)
    state = EngineState.restore(old)
    seen = len(bench.records)
    bench.finish()
    history = history_of(bench.records[seen:], state)
    other = fork(history, history.start, Changes(num_blocks=30))
    end = other.history.state_at(other.history.end)
    assert not end.running and all(r.finish_reason == "length" for r in end.requests.values())


def test_what_was_saved_is_what_was_run(tmp_path: Path) -> None:
    for seed in range(6):
        history = recorded(run_load(seed))
        try:
            other = fork(history, history.position_after(len(history) // 3), Changes(num_blocks=30))
        except UserError:
            continue
        file = tmp_path / f"{seed}.mtrace"
        of = new_header(history.config, Model("toy"), 0.0, None)
        save(file, other.header(of), {}, other.history)
        trace = Trace.open(file)
        assert trace.cut == "" and trace.header.config == other.history.config
        assert len(trace.history) == len(other.history)
        for number in (0, len(other.history) // 2, len(other.history)):
            mine, theirs = (h.state_after(number).digest() for h in (trace.history, other.history))
            assert mine == theirs
