"""Looking at the past: every position shows what was so then, and the run goes on meanwhile."""

import pytest
from minisgl_tui.engine.config import EngineConfig
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.events import Position, StepRecord
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.state import ROOT, EngineState
from minisgl_tui.tui.cells import CellMap
from minisgl_tui.tui.selection import Target
from minisgl_tui.tui.store import Store

from .toy import CONFIG, INFO, QUESTIONS, Session, make_session


def opened(config: EngineConfig = CONFIG) -> tuple[Session, Store, list[StepRecord]]:
    """The toy with its questions asked, a store that follows it, and all records."""
    session = make_session(config)
    store = Store(config, INFO, session.codec)
    records: list[StepRecord] = []
    session.engine.log.listen(store.apply)
    session.engine.log.listen(records.append)
    params = SamplingParams(temperature=0, max_tokens=24)
    for question in QUESTIONS:
        session.engine.submit(session.codec.encode_chat(question), params)
    return session, store, records


def run(session: Session, steps: int = 10**6) -> None:
    while session.engine.has_work() and steps:
        session.engine.step()
        steps -= 1


def positions(records: list[StepRecord]) -> list[Position]:
    return [record.position(i) for record in records for i in range(len(record.events))]


def test_every_position_shows_what_playing_forward_showed() -> None:
    session, store, records = opened()
    run(session)
    state, cells = EngineState(CONFIG), CellMap(CONFIG.num_blocks)
    for record in records:
        for taken in range(1, len(record.events)):
            here = record.position(taken - 1)
            store.look_at(here)
            assert store.position == here and not store.follows
            assert CellMap.of(store.state).codes == store.cells.codes
            assert not any(note.step > here.step for note in store.history)
        cells.apply(state, record)
        store.look_at(record.position(len(record.events) - 1))
        assert store.state.digest() == state.digest()
        assert (store.cells.codes, store.cells.counts) == (cells.codes, cells.counts)
        assert store.cells.changed == cells.changed
        assert store.weights.nodes[ROOT] == len(state.nodes) - 1


def test_what_is_selected_and_has_not_come_yet_is_not_said_to_be_gone() -> None:
    session, store, records = opened()
    run(session)
    store.look_at(records[0].position(0))
    store.select(Target("request", 3))
    assert store.links.words == "#3 has not come yet"
    store.select(Target("node", 1))
    assert store.links.words == "node 1 is not there yet"


def test_backwards_shows_the_same_as_forwards() -> None:
    session, store, records = opened()
    run(session, 30)
    seen: dict[Position, str] = {}
    for here in positions(records):
        store.look_at(here)
        seen[here] = store.state.digest()
    for here in reversed(positions(records)):
        store.look_at(here)
        assert store.state.digest() == seen[here]


def test_the_run_goes_on_while_the_past_is_looked_at() -> None:
    session, store, _ = opened()
    run(session, 10)
    then = store.past.end_of_step(5)
    store.look_at(then)
    before = store.state.digest()
    run(session, 10)
    assert store.state.digest() == before and store.position == then
    assert store.last_step == 20 and store.state.step == 5
    store.follow()
    assert store.follows and store.state is store.now and store.state.step == 20
    assert CellMap.of(store.state).codes == store.cells.codes
    run(session)
    assert CellMap.of(store.state).codes == store.cells.codes
    assert store.history[0].step == store.last_step


def test_the_end_of_a_live_run_is_followed() -> None:
    session, store, _ = opened()
    run(session, 10)
    store.look_at(store.past.end_of_step(3))
    store.look_at(store.past.end)
    assert store.follows
    run(session, 1)
    assert store.state.step == 11


def test_an_answer_is_read_as_far_as_it_had_come() -> None:
    session, store, _ = opened()
    run(session)
    whole = store.texts.answer(store.state.requests[0])
    store.look_at(store.past.end_of_step(8))
    part = store.texts.answer(store.state.requests[0])
    assert part and whole.startswith(part) and len(part) < len(whole)
    store.follow()
    assert store.texts.answer(store.state.requests[0]) == whole


def test_decisions_of_the_past_end_where_one_looks() -> None:
    session, store, records = opened()
    run(session)
    record = next(r for r in records if r.step == 7)
    store.look_at(record.position(0))
    assert store.history[0].step == 7 and store.history[0].notes == []
    assert [notes.step for notes in store.history][:3] == [7, 6, 5]
    store.look_at(store.past.end_of_step(7))
    known = next(n for n in store._latest.steps if n.step == 7)
    assert store.history[0].notes == known.notes


def test_what_is_selected_is_looked_up_anew() -> None:
    session, store, _ = opened()
    run(session)
    store.select(Target("request", 0))
    assert not store.links.blocks
    store.look_at(store.past.end_of_step(8))
    assert store.links.blocks == set(store.state.requests[0].block_table)


def test_a_position_that_is_not_there_is_refused_and_nothing_changes() -> None:
    session, store, _ = opened()
    run(session, 10)
    with pytest.raises(UserError, match="there is no step 99; the recording goes to"):
        store.look_at(Position(99, 0))
    assert store.follows
