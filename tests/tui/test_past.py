"""What is kept of a run's past: numbers a step, spans of requests, the latest events."""

import random
from collections import defaultdict
from collections.abc import Callable

import pytest
from minisgl_tui.engine import events as ev
from minisgl_tui.engine.config import EngineConfig
from minisgl_tui.engine.engine import Engine
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.events import StepRecord
from minisgl_tui.engine.history import History
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.simulate import SimulatedRunner, random_tokens
from minisgl_tui.engine.state import EngineState
from minisgl_tui.tui import every_event as every_event_module
from minisgl_tui.tui import spans as spans_module
from minisgl_tui.tui.changes import describe, ranges
from minisgl_tui.tui.event_filter import KINDS, read
from minisgl_tui.tui.every_event import EveryEvent, Placed
from minisgl_tui.tui.spans import DECODE, IDLE, PREEMPTED, PREFILL, QUEUED, Spans
from minisgl_tui.tui.steps import EVICTED, STOPPED, StepSeries
from minisgl_tui.tui.steps import PREEMPTED as MARK_PREEMPTED


def random_run(seed: int, listener: Callable[[StepRecord], None], steps: int = 120) -> Engine:
    """A load on a pool so small that requests are deferred, preempted, aborted, and blocks evicted;
    now and then a step fails."""
    rng = random.Random(seed)
    config = EngineConfig(block_size=2, num_blocks=12, max_batch_tokens=7, seed=seed)
    runner = SimulatedRunner(12, 2, random_tokens(seed, 2))
    engine = Engine(config, runner, runner.clock)
    execute = runner.execute

    def moody(plan: object) -> object:
        if rng.random() < 0.03:
            raise ValueError("no")
        return execute(plan)  # pyright: ignore[reportArgumentType]

    runner.execute = moody  # pyright: ignore[reportAttributeAccessIssue]
    engine.log.listen(listener)
    for _ in range(steps):
        if rng.random() < 0.6:
            prompt = [rng.randrange(2) for _ in range(rng.randrange(1, 12))]
            engine.submit(prompt, SamplingParams(max_tokens=rng.randrange(1, 10)))
        if rng.random() < 0.1 and engine.requests:
            engine.abort(rng.choice(list(engine.requests)))
        engine.step()
    return engine


def config_of(seed: int) -> EngineConfig:
    return EngineConfig(block_size=2, num_blocks=12, max_batch_tokens=7, seed=seed)


NO_STATE = EngineState(config_of(0))  # for what looks at the records alone


# --- numbers a step ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_each_step_has_its_own_numbers(seed: int) -> None:
    state = EngineState(config_of(seed))
    series = StepSeries(state)
    wanted: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))

    def follow(record: StepRecord) -> None:
        state.apply(record)
        series.apply(record, state)
        for event in record.events:
            if isinstance(event, ev.Scheduled):
                wanted["prefill"][record.step] += event.count
            elif isinstance(event, ev.Decoding):
                wanted["decode"][record.step] += len(event.reqs)
            elif isinstance(event, ev.Preempted):
                wanted["preempted"][record.step] += 1
            elif isinstance(event, ev.Evicted):
                wanted["evicted"][record.step] += len(event.blocks)

    random_run(seed, follow)
    assert (series.first, series.last) == (1, state.step)
    assert sum(wanted["preempted"].values()) and sum(wanted["evicted"].values())
    for level in range(9):
        for number in range((state.step >> level) + 2):
            _check_column(series, wanted, number, level)


def _check_column(
    series: StepSeries, wanted: dict[str, dict[int, int]], number: int, level: int
) -> None:
    first = 1 + (number << level)
    steps = range(first, min(first + (1 << level), series.last + 1))
    column = series.column(number, level)
    if not steps:
        assert column is None
        return
    assert column is not None
    sums = [(wanted["prefill"][step], wanted["decode"][step]) for step in steps]
    assert sum((column.prefill, column.decode)) == max(map(sum, sums))
    assert (column.prefill, column.decode) in sums
    assert bool(column.marks & MARK_PREEMPTED) == any(wanted["preempted"][s] for s in steps)
    assert bool(column.marks & EVICTED) == any(wanted["evicted"][s] for s in steps)
    assert all(series.column_of(step, level) == number for step in steps)


def test_a_series_that_begins_in_the_middle_counts_from_there() -> None:
    records: list[StepRecord] = []
    random_run(5, records.append)
    whole, state = EngineState(config_of(5)), EngineState(config_of(5))
    all_of_it = StepSeries(whole)
    cut = next(i for i, r in enumerate(records) if r.step == 60 and r.timings)
    for record in records[:cut]:
        state.apply(record)
    part = StepSeries(state)
    for i, record in enumerate(records):
        whole.apply(record)
        all_of_it.apply(record, whole)
        if i >= cut:
            state.apply(record)
            part.apply(record, state)
    assert part.first == 60
    for number in range(61):
        assert part.column(number, 0) == all_of_it.column(number + 59, 0)


def test_a_stop_is_marked_on_its_step_and_a_missed_step_is_empty() -> None:
    state = EngineState(config_of(0))
    series = StepSeries(state)
    series.apply(StepRecord(seq=0, step=3, events=[ev.StepBegan(3, 7, 0, 0, 12, 0)]), state)
    series.mark(2, STOPPED)
    series.mark(9, STOPPED)
    found = [series.column(i, 0) for i in range(4)]
    assert found == [(0, 0, 0), (0, 0, STOPPED), (0, 0, 0), None]


# --- spans ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_spans_say_of_every_step_what_each_request_did(seed: int) -> None:
    spans = Spans(EngineState(config_of(seed)))
    did: dict[int, dict[int, int]] = defaultdict(dict)  # request → step → kind
    hits: dict[int, list[int]] = defaultdict(list)
    running: set[int] = set()
    there: set[int] = set()

    def follow(record: StepRecord) -> None:
        spans.apply(record, NO_STATE)
        step = record.step
        if isinstance(record.events[0], ev.StepBegan):
            did_now = {id: IDLE if id in running else QUEUED for id in there}
            for id, kind in did_now.items():
                did[id][step] = kind
        for event in record.events:
            if isinstance(event, ev.Submitted):
                there.add(event.req)
            elif isinstance(event, ev.Admitted):
                running.add(event.req)
                did[event.req][step] = IDLE
                if event.cached_tokens:
                    hits[event.req].append(step)
            elif isinstance(event, ev.Scheduled):
                did[event.req][step] = PREFILL
            elif isinstance(event, ev.Decoding):
                did.update({id: {**did[id], step: DECODE} for id in event.reqs})
            elif isinstance(event, ev.Preempted):
                running.discard(event.req)
                did[event.req][step] = PREEMPTED
            elif isinstance(event, ev.Finished):
                running.discard(event.req)
                there.discard(event.req)

    engine = random_run(seed, follow)
    last = engine.step_count
    lives = spans.between(1, last)
    assert {life.id for life in lives} >= {id for id in did if did[id]}
    kinds = set()
    for life in lives:
        found = {
            s: span.kind for span in life.spans(1, last) for s in range(span.start, span.end + 1)
        }
        assert found == did[life.id]
        assert list(life.hits) == hits[life.id]
        kinds |= set(found.values())
        first, until = sorted(random.Random(life.id).choices(range(1, last + 1), k=2))
        part = {
            s: span.kind
            for span in life.spans(first, until)
            for s in range(span.start, span.end + 1)
        }
        assert part == {s: kind for s, kind in found.items() if first <= s <= until}
    assert kinds >= {QUEUED, PREFILL, DECODE, PREEMPTED}
    for first, until in ((1, 10), (50, 60), (last - 3, last)):
        seen = [life.id for life in spans.between(first, until)]
        assert seen == sorted(seen)
        for id in did:
            if any(first <= step <= until for step in did[id]):
                assert id in seen


def test_a_request_that_runs_and_is_not_in_the_step_had_no_turn() -> None:
    spans = Spans(EngineState(config_of(0)))
    submitted = ev.Submitted(7, [1, 2], SamplingParams())
    spans.apply(StepRecord(seq=0, step=0, events=[submitted]), NO_STATE)
    began = [ev.StepBegan(step, 7, 0, 1, 9, 0) for step in range(7)]
    steps: list[list[ev.AnyEvent]] = [
        [began[1], ev.Scheduled(7, 0, 1, 1, 2)],
        [began[2], ev.Starved(7, "no_budget", 1)],
        [began[3], ev.Scheduled(7, 1, 1, 2, 2)],
        [began[4], ev.Decoding([7])],
        [began[5]],
        [began[6], ev.Decoding([7])],
    ]
    for step, events in enumerate(steps, 1):
        spans.apply(StepRecord(seq=step, step=step, events=events), NO_STATE)
    (life,) = spans.between(1, 6)
    kinds = [span.kind for span in life.spans(1, 6)]
    assert kinds == [PREFILL, IDLE, PREFILL, DECODE, IDLE, DECODE]


def test_the_requests_that_ended_first_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans_module, "KEEP", 10)
    spans = Spans(EngineState(config_of(0)))
    for id in range(30):
        events: list[ev.AnyEvent] = [ev.Submitted(id, [1], SamplingParams())]
        if id != 3:
            events.append(ev.Finished(id, "abort"))
        spans.apply(StepRecord(seq=id, step=id, events=events), NO_STATE)
    kept = [life.id for life in spans.between(0, 99)]
    assert kept[0] == 3 and kept[-1] == 29 and len(kept) <= 12


# --- events --------------------------------------------------------------------------------------


def every_event(seed: int, steps: int = 120) -> tuple[EveryEvent, list[Placed], History]:
    """The events of a random run, those that happened, and its record."""
    state = EngineState(config_of(seed))
    past = History.live(state)
    events, happened = EveryEvent(past), []

    def follow(record: StepRecord) -> None:
        state.apply(record)
        past.append(record, state)
        events.apply(record, state)
        happened.extend(Placed(record.position(i), e) for i, e in enumerate(record.events))

    random_run(seed, follow, steps=steps)
    return events, happened, past


def test_events_are_found_by_number() -> None:
    events, happened, _ = every_event(1)
    assert len(events) == len(happened) == events.end
    assert [events[i] for i in range(events.end)] == happened
    with pytest.raises(IndexError, match="not known"):
        events[events.end]


def test_events_that_left_the_memory_are_read_from_the_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(every_event_module, "KEEP", 500)
    events, happened, _ = every_event(2, steps=400)
    assert len(events) == len(happened) > 2000
    kept = sum(len(record.events) for record in events._newest)
    assert 500 <= kept < 600
    back = [events[i] for i in reversed(range(events.end))]
    assert back[::-1] == happened
    assert len(events._read) == every_event_module._READ
    rng = random.Random(1)
    for _ in range(200):
        number = rng.randrange(events.end)
        assert events[number] == happened[number]


def test_where_the_record_has_a_gap_the_events_in_memory_are_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(every_event_module, "KEEP", 500)
    state = EngineState(config_of(2))
    past = History.live(state)
    events, happened = EveryEvent(past), []

    def follow(record: StepRecord) -> None:
        state.apply(record)
        if state.step == 9:
            past.gap = "the disk is full"
        past.append(record, state)
        events.apply(record, state)
        happened.extend(Placed(record.position(i), e) for i, e in enumerate(record.events))

    random_run(2, follow, steps=400)
    assert 500 <= len(events) < 600
    assert [events[i] for i in range(events.first, events.end)] == happened[events.first :]
    with pytest.raises(IndexError, match="not known"):
        events[0]


def test_every_kind_of_event_has_a_line() -> None:
    seen: set[str] = set()

    def follow(record: StepRecord) -> None:
        for event in record.events:
            note = describe(event)
            assert note.sentence and len(note.glyph) == 1
            seen.add(type(event).__name__)

    for seed in range(6):
        random_run(seed, follow)
    assert {"StepBegan", "Decoding", "Split", "Extended", "Released", "Preempted"} <= seen
    assert ranges(list(range(800, 806))) == "800–805"


def test_a_filter_finds_what_took_part() -> None:
    _, events, _ = every_event(3)

    def found(text: str) -> list[Placed]:
        return list(filter(read(text).matches, events))

    assert all(isinstance(e, ev.Preempted) for _, e in found("kind preempted")) and found(
        "kind pre"
    )
    of_request = found("req 7")
    assert any(isinstance(e, ev.Decoding) for _, e in of_request)
    assert any(isinstance(e, ev.Sampled) for _, e in of_request)
    assert {type(e) for _, e in of_request} >= {ev.Submitted, ev.Admitted, ev.Finished}
    assert found("req #7") == of_request
    assert len(found("req 7 kind decoding")) < len(of_request)
    block = found("block 3")
    assert {type(e) for _, e in block} >= {ev.Allocated, ev.Released}
    assert all(at.step == 20 for at, _ in found("step 20")) and found("step 20")
    assert found("HAS TO WAIT") == found("has to wait") != []
    assert found("") == events


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("req", "nothing follows `req`; give its number, as in `req 7`"),
        ("block x", "'x' follows `block`"),
        ("kind eaten", "'eaten' is no kind of event; give one of admitted, allocated"),
        ("req 7 kind", "nothing is no kind of event"),
        ("node ²", "give its number"),
    ],
)
def test_a_filter_that_cannot_be_read_says_what_was_expected(text: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        read(text)
    assert says in str(caught.value)
    assert len(KINDS) == 18
