"""The index of events by request, node and block, beside a search through all of them."""

import random
from itertools import pairwise

import pytest
from minisgl_tui.engine import events as ev
from minisgl_tui.engine.chronicle import ALL, Chronicle, Kind
from minisgl_tui.engine.events import Position
from minisgl_tui.engine.state import ROOT, EngineState
from test_oracle import Load, run_load

FIELDS: dict[Kind, tuple[str, ...]] = {
    "request": ("req", "for_req"),
    "node": ("node", "upper"),
    "block": ("blocks", "freed"),
}


def indexed(load: Load, skip: int = 0) -> Chronicle:
    """A chronicle of ``load``'s records but the first ``skip``."""
    state = EngineState(load.config)
    for record in load.records[:skip]:
        state.apply(record)
    chronicle = Chronicle(state)
    for record in load.records[skip:]:
        chronicle.apply(record, state)
    return chronicle


def searched(load: Load, kind: Kind, id: int) -> list[Position]:
    """The same by looking at every field of every event."""
    found: list[Position] = []
    for record in load.records:
        for index, event in enumerate(record.events):
            values = [getattr(event, name, None) for name in FIELDS[kind]]
            if any(value == id or (isinstance(value, list) and id in value) for value in values):
                found.append(record.position(index))
    return found


@pytest.mark.parametrize("seed", range(40))
def test_it_lists_what_a_search_finds(seed: int) -> None:
    load = run_load(seed)
    chronicle = indexed(load)
    kinds: tuple[Kind, ...] = ("request", "node", "block")
    for kind in kinds:
        for id in range(1 if kind == "node" else 0, 30):
            assert chronicle.of(kind, id) == searched(load, kind, id), (kind, id)


@pytest.mark.parametrize("skip", [0, 8])
def test_it_knows_what_has_come_and_what_has_not(skip: int) -> None:
    load = run_load(3)
    chronicle, state = indexed(load, skip), EngineState(load.config)
    for index, record in enumerate(load.records):
        state.apply(record)
        here = record.position(len(record.events) - 1)
        if index < skip:
            continue
        requests = max(state.requests, default=-1) + 1
        assert [id for id in range(40) if chronicle.came("request", id, here)] == [*range(requests)]
        nodes = [id for id in range(1, 200) if chronicle.came("node", id, here)]
        assert nodes == [*range(1, state.next_node)]


@pytest.mark.parametrize("seed", range(40))
def test_it_lists_what_is_notable(seed: int) -> None:
    load = run_load(seed)
    kinds = ev.Preempted, ev.Evicted, ev.Refused, ev.StepFailed
    assert indexed(load).of("notable", ALL) == [
        record.position(index)
        for record in load.records
        for index, event in enumerate(record.events)
        if isinstance(event, kinds)
    ]


def test_before_and_after_leave_out_the_position_itself() -> None:
    load = run_load(5)
    chronicle = indexed(load)
    touched = chronicle.of("block", 0)
    assert len(touched) > 2
    assert chronicle.after("block", 0, Position(0, 0)) == touched[0]
    assert chronicle.before("block", 0, touched[0]) is None
    for earlier, later in pairwise(touched):
        assert chronicle.before("block", 0, later) == earlier
        assert chronicle.after("block", 0, earlier) == later
        between = Position(later.step, later.event - 1)
        if between > earlier:
            assert chronicle.before("block", 0, between) == earlier
    assert chronicle.after("block", 0, touched[-1]) is None
    assert chronicle.before("request", 999, Position(10**6, 0)) is None


@pytest.mark.parametrize("skip", [0, 7])
@pytest.mark.parametrize("seed", range(40))
def test_it_knows_how_every_prefix_left_the_cache(seed: int, skip: int) -> None:
    """The last eviction of each block's prefix, beside a list kept with the tokens themselves."""
    load = run_load(seed)
    chronicle = indexed(load, skip)
    size = load.config.block_size
    gone: dict[tuple[str, tuple[int, ...]], list[Position]] = {}
    for number, record in enumerate(load.records):
        for index, event in enumerate(record.events):
            if isinstance(event, ev.Evicted) and number >= skip:
                picture = before_event(load, number, index)
                path = prefix(picture, event.node)
                salt = picture.nodes[event.node].salt
                for cut in range(len(event.blocks)):
                    lost = tuple(path[: len(path) - cut * size])
                    gone.setdefault((salt, lost), []).append(record.position(index))
    assert gone or not any(isinstance(e, ev.Evicted) for r in load.records[skip:] for e in r.events)
    end = Position(10**6, 0)
    for (salt, lost), positions in gone.items():
        for position, later in pairwise([*positions, end]):
            found = chronicle.eviction_of(lost, later, salt)
            assert found is not None and found.position == position
        assert chronicle.eviction_of(lost, positions[0], salt) is None
    rng = random.Random(seed)
    for salt, lost in list(gone):
        other = [*lost[:-1], rng.randrange(100, 200)]
        assert chronicle.eviction_of(other, end, salt) is None
        assert chronicle.eviction_of(lost, end, "nobody's") is None


def before_event(load: Load, number: int, index: int) -> EngineState:
    """The state in record ``number`` before its event ``index``."""
    state = EngineState(load.config)
    for record in load.records[:number]:
        state.apply(record)
    events = state.unfold(load.records[number])
    for _ in range(index):
        next(events)
    return state


def prefix(state: EngineState, node: int) -> list[int]:
    """All tokens from the root to the end of ``node``."""
    path: list[int] = []
    while node != ROOT:
        path[:0] = state.nodes[node].tokens
        node = state.nodes[node].parent
    return path
