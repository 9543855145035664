"""What breakpoints watch: every kind, at the exact event, counted, ignored, logged and edged."""

from collections.abc import Callable
from typing import Any

import pytest
from helpers import Bench
from hypothesis import given, settings
from hypothesis import strategies as st
from minisgl_tui.engine import breakpoints as bp
from minisgl_tui.engine import events as ev
from minisgl_tui.engine.audit import compare
from minisgl_tui.engine.breakpoints import (
    Breakpoint,
    Breakpoints,
    on_block,
    on_event,
    on_node,
    on_request,
)
from minisgl_tui.engine.conditions import Condition, parse
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.state import EngineState
from minisgl_tui.engine.stops import Stop


class Watched:
    """A bench with breakpoints on it, and all stops so far."""

    def __init__(self, *conditions: str | Condition, **settings: object) -> None:
        self.bench = Bench(**settings)
        self.points = Breakpoints()
        self.state = EngineState(self.bench.config)
        self.stops: list[Stop] = []
        self.bench.engine.log.listen(
            lambda record: self.stops.extend(self.points.check(record, self.state))
        )
        for condition in conditions:
            self.add(condition)

    def add(self, condition: str | Condition, **options: bool | int) -> Breakpoint:
        if isinstance(condition, str):
            condition = parse(condition)
        added = Breakpoint(len(self.points.all) + 1, condition, **options)  # pyright: ignore[reportArgumentType]
        self.points.add(added)
        return added

    def run(self) -> "Watched":
        self.bench.finish()
        assert compare(self.bench.engine, self.state) == []
        return self

    @property
    def events(self) -> list[ev.AnyEvent]:
        return [stop.event for stop in self.stops]

    def all(self, wanted: Callable[[ev.AnyEvent], bool]) -> list[ev.AnyEvent]:
        return [event for event in self.bench.log if wanted(event)]


def crowded(*conditions: str | Condition) -> Watched:
    """Three long requests with a shared beginning in a pool too small: all kinds of events."""
    watched = Watched(*conditions, num_blocks=12, max_batch_tokens=16)
    shared = list(range(8))
    watched.bench.submit([*shared, 90], 20)
    watched.bench.submit([*shared, 91, 92, 93], 20)
    watched.bench.submit([50, *shared], 12)
    return watched


# --- kinds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ev.Preempted, ev.Evicted, ev.Deferred, ev.Sampled, ev.Finished])
def test_on_an_event_fires_at_each_of_its_kind(kind: type) -> None:
    watched = crowded(on_event(kind.__name__.lower())).run()
    assert watched.events == watched.all(lambda e: isinstance(e, kind))
    assert watched.events


def test_on_an_event_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UserError, match="no event is called 'exploded'"):
        on_event("exploded")


def test_on_a_request_fires_at_what_is_about_it_or_for_it_but_not_at_each_batch() -> None:
    watched = crowded(on_request(1)).run()
    assert watched.events == watched.all(lambda e: 1 in (of(e, "req"), of(e, "for_req")))
    kinds = {type(e) for e in watched.events}
    assert {ev.Submitted, ev.Admitted, ev.Scheduled, ev.Allocated, ev.Finished} <= kinds
    assert not kinds & {ev.Decoding, ev.Sampled}


def test_on_a_node_fires_when_it_is_made_hit_split_extended_or_evicted() -> None:
    watched = crowded(on_node(1)).run()
    assert watched.events == watched.all(
        lambda e: 1 in (of(e, "node"), of(e, "upper"), of(e, "parent"))
    )
    assert isinstance(watched.events[0], ev.Inserted)


def test_on_a_block_fires_at_every_event_that_names_it() -> None:
    watched = crowded(on_block(0)).run()
    assert watched.events == watched.all(lambda e: 0 in of(e, "blocks") + of(e, "freed"))
    kinds = {type(e) for e in watched.events}
    assert ev.Allocated in kinds
    assert kinds & {ev.Inserted, ev.Extended}


def test_a_released_block_is_seen_too() -> None:
    watched = Watched()
    request = watched.bench.submit([1, 2], 2)
    watched.bench.step()
    watched.add(on_block(request.block_table[0]))
    watched.run()
    assert [type(e) for e in watched.events] == [ev.Released]


def of(event: ev.AnyEvent, field: str) -> Any:
    return getattr(event, field, [])


# --- positions and the state at them -------------------------------------------------------------


def test_a_stop_says_where_what_and_which_breakpoint() -> None:
    watched = Watched("ev == 'finished'")
    watched.bench.submit([1, 2, 3], 2)
    (stop,) = watched.run().stops
    record = watched.bench.records[-1]
    assert record.events[stop.index - record.first] == stop.event
    assert (stop.breakpoint, stop.hit, stop.step) == (1, 1, 2)
    assert stop.position == f"2:{stop.index}"
    assert stop.text == f"2:{stop.index} finished #0 · breakpoint 1: ev == 'finished'"


def test_positions_go_on_counting_over_the_records_of_one_step() -> None:
    watched = Watched("ev == 'submitted'", "ev == 'finished'")
    watched.bench.submit([1, 2, 3])
    watched.bench.submit([4, 5, 6])
    watched.bench.engine.abort(0)
    assert [s.position for s in watched.stops] == ["0:0", "0:1", "0:2"]


def test_several_breakpoints_stop_in_the_order_of_events_then_of_ids() -> None:
    watched = Watched("ev == 'sampled'", "ev == 'step_began'", "sampled > 0 and ev == 'sampled'")
    watched.bench.submit([1, 2, 3], 1)
    watched.run()
    assert [s.breakpoint for s in watched.stops] == [2, 1, 3]


def test_an_event_is_asked_with_the_state_right_after_it() -> None:
    watched = Watched("ev == 'allocated' and free == 63", "ev == 'step_began' and free == 63")
    watched.bench.submit([1, 2, 3], 1)
    watched.run()
    assert [s.breakpoint for s in watched.stops] == [1]


@settings(max_examples=40, deadline=None)
@given(
    condition=st.sampled_from(
        (
            *("free < 4", "waiting > 0 and free < 6", "evicted % 2 == 1", "kv > 0.5", "batch == 2"),
            *("req == 1 and free < 6", "not ev == 'sampled' and running > 1", "preemptions == 1"),
        )
    ),
    prompts=st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=20), min_size=1, max_size=5),
    num_blocks=st.integers(6, 14),
)
def test_stops_are_those_of_a_state_rebuilt_from_nothing_up_to_each_event(
    condition: str, prompts: list[list[int]], num_blocks: int
) -> None:
    watched = Watched(condition, num_blocks=num_blocks)
    for prompt in prompts:
        watched.bench.submit(prompt, 6)
    watched.run()

    parsed, expected = parse(condition), []
    held = parsed.holds(EngineState(watched.bench.config))
    for number, record in enumerate(watched.bench.records):
        for index, event in enumerate(record.events):
            state = EngineState(watched.bench.config)
            for earlier in watched.bench.records[:number]:
                state.apply(earlier)
            so_far = record.events[: index + 1]
            state.apply(ev.StepRecord(seq=0, step=record.step, t=record.t, events=so_far))
            holds = parsed.holds(state, event)
            if holds and (parsed.needs_event or not held):
                expected.append((record.step, record.first + index))
            held = holds
    assert [(s.step, s.index) for s in watched.stops] == expected


# --- edges ---------------------------------------------------------------------------------------


def test_a_condition_on_the_state_fires_when_it_becomes_true_and_not_while_it_stays_so() -> None:
    watched = Watched("running > 0")
    watched.bench.submit([1], 5)
    watched.run()
    assert [type(s.event) for s in watched.stops] == [ev.Admitted]
    watched.bench.submit([1], 5)
    watched.run()
    assert [s.hit for s in watched.stops] == [1, 2]


def test_what_is_true_when_set_has_to_become_false_first() -> None:
    watched = Watched()
    watched.bench.submit([1], 3)
    watched.add("waiting > 0")
    watched.run()
    assert watched.stops == []
    watched.bench.submit([1], 3)
    assert len(watched.stops) == 1


def test_what_turned_true_while_disabled_has_to_become_false_first() -> None:
    watched = Watched("waiting > 0")
    watched.points.disable(1)
    watched.bench.submit([1], 3)
    watched.points.enable(1)
    watched.bench.submit([2], 3)
    assert watched.stops == []


def test_a_condition_on_the_event_fires_every_time() -> None:
    watched = Watched("ev == 'sampled' and running > 0")
    watched.bench.submit([1], 5)
    assert [s.hit for s in watched.run().stops] == [1, 2, 3, 4, 5]


def test_the_duration_of_a_step_counts_at_its_last_event() -> None:
    watched = Watched("seconds > 0.01", max_batch_tokens=512)
    watched.bench.submit([1], 3)
    watched.bench.submit(list(range(200)), 3)  # 0.1 ms a token in virtual time
    watched.bench.step()
    (stop,) = watched.stops
    assert stop.step == 1
    assert stop.event is watched.bench.records[-1].events[-1]


# --- options -------------------------------------------------------------------------------------


def test_the_first_hits_can_be_ignored_and_are_counted_all_the_same() -> None:
    watched = Watched()
    point = watched.add("ev == 'sampled'", ignore=3)
    watched.bench.submit([1], 5)
    watched.run()
    assert [s.hit for s in watched.stops] == [4, 5]
    assert point.hits == 5


def test_log_only_notes_a_line_and_never_stops() -> None:
    watched = Watched()
    point = watched.add("ev == 'decoding' and 0 in reqs", log_only=True, ignore=1)
    watched.bench.submit([1], 5)
    watched.run()
    assert watched.stops == []
    assert point.hits == 4
    lines = [s.text for s in watched.points.logged]
    assert len(lines) == 3
    assert lines[0].startswith("3:")
    assert lines[0].endswith(" decoding · breakpoint 1: ev == 'decoding' and 0 in reqs")


def test_the_log_keeps_the_latest_only() -> None:
    watched = Watched(num_blocks=1000, max_model_len=4096)
    watched.add("ev != 'submitted'", log_only=True)
    watched.bench.submit([1], 700)
    while watched.bench.engine.has_work():
        watched.bench.engine.step()
    assert len(watched.points.logged) == bp.RETAIN_LOGGED
    assert watched.points.logged[-1].event is watched.bench.log[-1]


def test_a_temporary_one_stops_once_even_within_one_step() -> None:
    watched = Watched()
    watched.add("ev == 'allocated'", temporary=True, ignore=1)
    for i in range(4):
        watched.bench.submit([i], 2)
    watched.run()
    assert [s.hit for s in watched.stops] == [2]
    assert watched.points.all == ()


def test_disabled_and_removed_ones_see_nothing() -> None:
    watched = Watched("ev == 'sampled'", "ev == 'sampled'", "ev == 'sampled'")
    watched.points.disable(1)
    watched.points.remove(2)
    watched.bench.submit([1], 1)
    watched.run()
    assert [s.breakpoint for s in watched.stops] == [3]
    assert [(b.id, b.enabled, b.hits) for b in watched.points.all] == [(1, False, 0), (3, True, 1)]
    watched.points.clear()
    watched.bench.submit([1], 1)
    watched.run()
    assert len(watched.stops) == 1


@pytest.mark.parametrize("action", [Breakpoints.remove, Breakpoints.enable, Breakpoints.disable])
def test_an_id_that_is_not_there_is_answered_with_those_that_are(
    action: Callable[[Breakpoints, int], None],
) -> None:
    points = Watched("free < 1", "free < 2").points
    with pytest.raises(UserError, match="no breakpoint 7; there are: 1, 2"):
        action(points, 7)
    with pytest.raises(UserError, match="no breakpoint 7; there are: none"):
        action(Breakpoints(), 7)


def test_without_breakpoints_the_state_is_kept_all_the_same() -> None:
    watched = crowded().run()
    assert watched.stops == []
    watched.add("finished > 3")
    watched.bench.submit([1], 1)
    assert len(watched.run().stops) == 1
