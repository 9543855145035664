"""A step may fail anywhere: what it placed ends with an error, nothing leaks, the next one runs."""

import random
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import Any
from unittest.mock import patch

import pytest
from helpers import Bench
from minisgl_tui.engine.audit import audit
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.events import EventLog, StepFailed
from minisgl_tui.engine.plan import Plan, StepOutput
from minisgl_tui.engine.policies import Fcfs, Lru, Newest
from minisgl_tui.engine.request import FinishReason
from minisgl_tui.engine.sampling import SamplingParams
from test_oracle import Load


class Injected(Exception):
    """The failure under test."""


class FailingLog(EventLog):
    """Raises at the emission number ``fail_at``, once."""

    def __init__(self, fail_at: int) -> None:
        self.emissions = 0
        self.fail_at = fail_at
        super().__init__()

    @property
    def add(self) -> Callable:
        self.emissions += 1
        if self.emissions == self.fail_at:
            raise Injected("at an emission")
        return self._append

    @add.setter
    def add(self, append: Callable) -> None:
        self._append = append


def load_that_fails_at(emission: int, seed: int) -> Load:
    """Any load, but with a log that fails. The picture has then missed an event, so nobody listens
    but the engine itself is audited."""

    class Audited(Load):
        def check(self) -> None:
            assert audit(self.engine) == []

    with (
        patch("minisgl_tui.engine.engine.EventLog", lambda: FailingLog(emission)),
        patch("test_oracle.EngineState.apply", lambda state, record: None),
    ):
        load = Audited(seed)
    load.runner.failures = 0
    return load


@pytest.mark.parametrize("seed", [2, 5, 11, 23])
def test_a_failure_at_any_emission_leaves_pool_and_tree_whole(seed: int) -> None:
    probe = load_that_fails_at(0, seed)
    probe.run()
    log = probe.engine.log
    assert isinstance(log, FailingLog)
    for emission in range(1, log.emissions + 1, max(1, log.emissions // 150)):
        load = load_that_fails_at(emission, seed)
        try:
            load.run()
        except Injected:  # raised between steps: to whoever submitted or aborted
            load.run()
        engine = load.engine
        assert not engine.requests
        assert engine.cache.free + engine.cache.evictable == load.config.num_blocks


@pytest.mark.parametrize(
    ("policy", "method"), [(Fcfs, "order"), (Lru, "key"), (Newest, "victim")], ids=lambda x: str(x)
)
def test_a_policy_that_raises_ends_the_requests_of_its_step_and_not_the_engine(
    policy: type, method: str
) -> None:
    bench = Bench(num_blocks=8, max_batch_tokens=8)

    def broken(self: object, *args: object) -> None:
        raise Injected("in a policy")

    for i in range(3):
        bench.submit([i + 1] * 10, max_tokens=12)
    bench.step(2)
    with patch.object(policy, method, broken):
        for _ in range(30):
            if bench.engine.has_work():
                bench.step()
    assert not bench.engine.has_work()
    assert bench.events(StepFailed)
    healthy = bench.submit([7] * 10, max_tokens=3)
    bench.finish()
    assert healthy.finish_reason is FinishReason.LENGTH


def test_a_runner_that_samples_too_few_tokens_fails_its_step_by_name() -> None:
    bench = Bench()
    request = bench.submit([1, 2])
    execute = bench.runner.execute
    bench.runner.execute = lambda plan: type(execute(plan))([])
    bench.step()
    assert "the runner sampled 0 tokens for 1 rows" in request.message


def test_an_interrupt_in_the_forward_withdraws_the_step_and_goes_on_to_the_caller() -> None:
    bench = Bench()
    request = bench.submit([1] * 9)

    def interrupted(plan: object) -> None:
        raise KeyboardInterrupt

    with patch.object(bench.runner, "execute", interrupted), pytest.raises(KeyboardInterrupt):
        bench.engine.step()
    bench.check()
    assert request.finish_reason is FinishReason.ERROR
    assert not bench.engine.cache.match(request).blocks


def test_a_listener_that_raises_costs_the_others_no_record() -> None:
    bench = Bench()

    def broken(record: object) -> None:
        raise Injected("in a listener")

    bench.engine.log._listeners.insert(0, broken)
    with pytest.raises(Injected):
        bench.submit([1])
    with pytest.raises(Injected):
        bench.engine.step()
    bench.check()


def test_an_abort_from_within_the_step_ends_the_request_with_it_and_drops_its_token() -> None:
    bench = Bench()
    victim, other = bench.submit([1] * 5), bench.submit([2] * 5)
    execute = bench.runner.execute

    def abort_meanwhile(plan: object) -> object:
        output = execute(plan)  # pyright: ignore[reportArgumentType]
        assert bench.engine.abort(victim.id)
        assert not bench.engine.abort(victim.id)
        return output

    with patch.object(bench.runner, "execute", abort_meanwhile):
        bench.step()
    assert (victim.finish_reason, victim.output) == (FinishReason.ABORT, [])
    assert len(other.output) == 1
    assert not victim.block_table


@pytest.mark.parametrize("within_a_step", [False, True])
def test_who_has_seen_a_stop_string_ends_the_request_as_stopped(within_a_step: bool) -> None:
    bench = Bench()
    request = bench.submit([1, 2, 3], max_tokens=9)
    bench.step()
    execute = bench.runner.execute

    def stop_meanwhile(plan: Any) -> Any:
        if within_a_step:
            assert bench.engine.stop(request.id)
        return execute(plan)

    with patch.object(bench.runner, "execute", stop_meanwhile):
        if not within_a_step:
            assert bench.engine.stop(request.id)
        bench.step()
    assert request.finish_reason == FinishReason.STOP and len(request.output) == 1
    assert not bench.engine.stop(request.id) and not bench.engine.has_work()


def test_an_abort_within_a_step_that_fails_is_not_forgotten() -> None:
    bench = Bench(max_running_requests=1)
    running, waiting = bench.submit([1] * 5), bench.submit([2] * 5)

    def abort_and_fail(plan: object) -> None:
        assert bench.engine.abort(waiting.id)
        raise Injected

    with patch.object(bench.runner, "execute", abort_and_fail):
        bench.step()
    assert running.finish_reason is FinishReason.ERROR
    assert waiting.finish_reason is FinishReason.ABORT
    assert not bench.engine.has_work()


def test_an_abort_within_a_step_of_what_has_timed_out_in_it_is_no_abort() -> None:
    bench = Bench()
    late = bench.engine.submit([1, 2], SamplingParams(max_tokens=50), timeout=1.0)
    other = bench.submit([3, 4])
    bench.step()
    bench.runner.clock.advance(2)
    execute = bench.runner.execute

    def abort_late(plan: object) -> object:
        assert not bench.engine.abort(late.id)
        return execute(plan)  # pyright: ignore[reportArgumentType]

    with patch.object(bench.runner, "execute", abort_late):
        bench.step()
    assert late.message.startswith("timed out")
    assert not other.finished


def test_a_listener_may_act_on_the_engine_and_others_still_get_records_in_order() -> None:
    bench = Bench()

    meddled = False

    def meddle(record: object) -> None:
        nonlocal meddled
        if bench.engine.step_count == 2 and not meddled:
            meddled = True
            for request_id in list(bench.engine.requests):
                bench.engine.abort(request_id)
            bench.submit([5] * 9)

    bench.engine.log._listeners.insert(0, meddle)
    bench.submit([1] * 40, max_tokens=30)
    bench.submit([2] * 15, max_tokens=30)
    bench.step(2)
    bench.check()
    assert [r.seq for r in bench.records] == list(range(len(bench.records)))


def test_a_submission_within_a_step_belongs_to_the_records_of_that_step() -> None:
    bench = Bench()
    bench.submit([1] * 5)
    execute = bench.runner.execute

    def submit_meanwhile(plan: object) -> object:
        bench.submit([2] * 5)
        return execute(plan)  # pyright: ignore[reportArgumentType]

    with patch.object(bench.runner, "execute", submit_meanwhile):
        bench.step()
    assert [r.step for r in bench.records] == [0, 1]
    bench.check()


KEYS = {
    "largest": lambda node: (-len(node.blocks),),
    "deepest": lambda node: (-node.start,),
    "random": lambda node: (random.random(),),
    "nan": lambda node: (float("nan"),),
}


@pytest.mark.parametrize("name", KEYS)
def test_an_eviction_key_that_changes_by_itself_evicts_all_the_same(name: str) -> None:
    with patch.object(Lru, "key", lambda self, node: KEYS[name](node)):
        for seed in range(40):
            load = Load(seed)
            load.runner.failures = 0
            load.run()


@pytest.mark.parametrize("line", range(1, 1500, 37))
def test_ctrl_c_between_two_changes_waits_for_the_end_of_the_step(line: int) -> None:
    """SIGINT at any line of the engine's bookkeeping loses nothing."""
    bench = Bench(num_blocks=8)
    for i in range(3):
        bench.submit([i + 1] * 9, max_tokens=6)
    lines = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal lines
        if "/engine/" in frame.f_code.co_filename and event == "line":
            lines += 1
            if lines == line:
                signal.raise_signal(signal.SIGINT)
        return trace

    sys.settrace(trace)
    try:
        while bench.engine.has_work():
            bench.engine.step()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    bench.check()
    bench.finish()


def test_an_abort_in_the_same_step_as_the_end_wins_and_frees_once() -> None:
    bench = Bench()
    request = bench.submit([1] * 5, max_tokens=1)
    execute = bench.runner.execute

    def abort_meanwhile(plan: object) -> object:
        bench.engine.abort(request.id)
        return execute(plan)  # pyright: ignore[reportArgumentType]

    with patch.object(bench.runner, "execute", abort_meanwhile):
        bench.step()
    assert request.finish_reason is FinishReason.ABORT
    assert bench.engine.cache.free + bench.engine.cache.evictable == 64


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere:Policy", "cannot be loaded (ModuleNotFoundError"),
        ("test_failures:Nothing", "cannot be loaded (AttributeError"),
        ("test_failures:Injected", "has no method"),
    ],
)
def test_a_policy_of_ones_own_that_cannot_serve_is_refused_by_name(name: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        Bench(schedule_policy=name)
    assert says in str(caught.value)


class Backwards:
    """Last come, first served: a policy of one's own."""

    def order(self, waiting, cache):
        return reversed(waiting)


class Twice:
    """Names everybody twice."""

    def order(self, waiting, cache):
        return [*waiting, *waiting]


def test_a_policy_that_orders_what_does_not_wait_is_named() -> None:
    bench = Bench(schedule_policy="test_failures:Twice")
    request = bench.submit([1], max_tokens=1)
    bench.step()
    assert "Twice ordered request 0, which is not waiting" in request.message
    bench.check()


def test_a_policy_of_ones_own_is_used() -> None:
    bench = Bench(schedule_policy="test_failures:Backwards", max_running_requests=1)
    first, last = bench.submit([1], max_tokens=1), bench.submit([2], max_tokens=1)
    bench.step()
    assert (first.finished, last.finished) == (False, True)


@pytest.mark.parametrize("aborted", [False, True])
def test_a_request_that_its_runner_gives_up_ends_alone(aborted: bool):
    bench = Bench()
    gone, fine = bench.submit([1, 2, 3]), bench.submit([1, 2, 4])
    execute = bench.runner.execute

    def give_up(plan: Plan) -> StepOutput:
        if aborted:
            bench.engine.abort(gone.id)
        return replace(execute(plan), failed={gone.id: "no token fits"})

    with patch.object(bench.runner, "execute", give_up):
        bench.step()
    assert gone.output == [] and len(fine.output) == 1
    if aborted:
        assert gone.finish_reason is FinishReason.ABORT
    else:
        assert (gone.finish_reason, gone.message) == (FinishReason.ERROR, "no token fits")
    assert not bench.events(StepFailed)
    bench.finish()
    assert fine.finish_reason is FinishReason.LENGTH
