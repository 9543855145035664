"""Hunting for stops and for events in a record, beside a list of all of them."""

from collections.abc import Iterator
from itertools import count

import pytest
from minisgl_tui.engine.breakpoints import Breakpoint, Breakpoints
from minisgl_tui.engine.chronicle import ALL, Chronicle, touches
from minisgl_tui.engine.conditions import parse
from minisgl_tui.engine.events import Position
from minisgl_tui.engine.history import History
from minisgl_tui.engine.state import EngineState
from minisgl_tui.tui import hunt
from minisgl_tui.tui.hunt import Hunt, Search
from test_oracle import Load, run_load

CONDITIONS = ["ev == 'preempted'", "free < 2", "ev == 'finished' and req == 2", "running > 3"]


def kept(load: Load) -> History:
    state = EngineState(load.config)
    history = History.live(state)
    for record in load.records:
        state.apply(record)
        history.append(record, state)
    return history


def all_stops(load: Load, conditions: list[str]) -> list[Position]:
    state, breakpoints = EngineState(load.config), Breakpoints()
    for id, condition in enumerate(conditions, 1):
        breakpoints.add(Breakpoint(id, parse(condition)))
    stops = [stop for record in load.records for stop in breakpoints.check(record, state)]
    return sorted({Position(stop.step, stop.index) for stop in stops})


def hunted(past: History, start: Position, conditions: list[str], back: bool) -> Position | None:
    found = Hunt(past, start, dict(enumerate(conditions, 1)), back)
    while not found.go_on(0.001):
        pass
    return Position(found.found.step, found.found.index) if found.found else None


def places(past: History, load: Load) -> Iterator[Position]:
    """Where to hunt from: everywhere, or from every second, third … event of a long run."""
    apart = 1 + sum(len(record.events) for record in load.records) // 300
    here: Position | None = past.start
    for number in count():
        if here is None:
            return
        if number % apart == 0:
            yield here
        here = past.after(here)


@pytest.mark.parametrize("conditions", [CONDITIONS, CONDITIONS[:1], []])
@pytest.mark.parametrize("seed", range(12))
def test_it_finds_the_next_and_the_one_before(
    seed: int, conditions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hunt, "STRETCH", 5)
    load = run_load(seed)
    past, stops = kept(load), all_stops(load, conditions)
    for here in places(past, load):
        assert hunted(past, here, conditions, False) == next((p for p in stops if p > here), None)
        before = [p for p in stops if p < here]
        assert hunted(past, here, conditions, True) == (before[-1] if before else None)


@pytest.mark.parametrize("seed", range(12))
def test_a_search_finds_what_the_index_would_if_it_knew_the_records(seed: int) -> None:
    load = run_load(seed)
    past, state = kept(load), EngineState(load.config)
    chronicle = Chronicle(state)
    for record in load.records:
        state.apply(record)
        chronicle.apply(record, state)
    for here in places(past, load):
        for back, known in ((False, chronicle.after), (True, chronicle.before)):
            search = Search(past, here, lambda e: touches(e, "notable", ALL), back, 0)
            while not search.go_on(0.0):
                pass
            assert search.found == known("notable", ALL, here)
