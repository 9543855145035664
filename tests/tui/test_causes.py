"""The chain of causes: what it says about known runs, and that all it quotes is so."""

import random

import pytest
from helpers import Bench
from minisgl_tui.engine import events as ev
from minisgl_tui.engine.chronicle import ALL, Chronicle
from minisgl_tui.engine.config import EngineConfig
from minisgl_tui.engine.events import Position, StepRecord
from minisgl_tui.engine.history import History
from minisgl_tui.engine.policies import AGEING_STEPS
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.state import EngineState
from minisgl_tui.tui.causes import why
from minisgl_tui.tui.figures import duration
from minisgl_tui.tui.inquiry import Cause
from minisgl_tui.tui.record import Record
from minisgl_tui.tui.selection import Kind, Target
from test_oracle import run_load

from .toy import CONFIG, QUESTIONS, ROOMY, Session, make_session


class Recorded(Record):
    """All records of a run."""

    def __init__(self, config: EngineConfig, records: list[StepRecord]) -> None:
        state = EngineState(config)
        past, chronicle = History.live(state), Chronicle(state)
        for record in records:
            state.apply(record)
            past.append(record, state)
            chronicle.apply(record, state)
        super().__init__(past, chronicle)
        self.records, self.end = records, past.end

    def find(self, kind: type, **fields: object) -> Position:
        """The first such event."""
        for record in self.records:
            for index, event in enumerate(record.events):
                same = all(getattr(event, name, None) == value for name, value in fields.items())
                if isinstance(event, kind) and same:
                    return record.position(index)
        raise AssertionError(f"no {kind.__name__} with {fields}")


def recorded(
    config: EngineConfig, prompts: list[str], tokens: int = 24, together: bool = True
) -> tuple[Session, Recorded]:
    """A whole run of the toy; prompts come at once, or each when the one before has ended."""
    session = make_session(config)
    records: list[StepRecord] = []
    session.engine.log.listen(records.append)
    params = SamplingParams(temperature=0, max_tokens=tokens)
    for prompt in prompts:
        session.engine.submit(session.codec.encode_chat(prompt, ""), params)
        while session.engine.has_work() and not together:
            session.engine.step()
    while session.engine.has_work():
        session.engine.step()
    return session, Recorded(config, records)


def asked(
    run: tuple[Session, Recorded], kind: Kind, id: int, position: Position | None = None
) -> list[Cause]:
    session, record = run
    return why(record, Target(kind, id), position or record.end, session.codec.decode)


def said_of(bench: Bench, kind: Kind, id: int, position: Position | None = None) -> str:
    """The chain for a bench, by default at its end."""
    record = Recorded(bench.config, bench.records)
    return lines(why(record, Target(kind, id), position or record.end, str))


def lines(causes: list[Cause]) -> str:
    return "\n".join("  " * cause.depth + cause.text for cause in causes)


SYSTEM = "You are a careful guide to inference engines and answer in one short paragraph please. "


def test_a_timestamp_at_the_beginning_is_named_as_what_broke_the_prefix() -> None:
    prompts = [f"Time 12:0{i} now. {SYSTEM}{QUESTIONS[0]}" for i in range(2)]
    run = recorded(ROOMY, prompts, together=False)
    said = lines(asked(run, "request", 1))
    assert "4 of the 28 tokens of its prompt came from the cache." in said or "None of" in said
    assert "The nearest cached prefix differs at token" in said
    assert "after “Time 12:” this has “01 now." in said and "has “00 now." in said
    assert "blocks are shared whole" in said
    assert "a prefix ends where it first differs" in said


def test_a_whole_hit_says_that_nothing_was_missed() -> None:
    run = recorded(ROOMY, [SYSTEM, SYSTEM], together=False)
    assert "the last token is always computed" in lines(asked(run, "request", 1))


def test_the_first_of_its_kind_missed_nothing_that_was_there() -> None:
    run = recorded(ROOMY, [SYSTEM])
    assert "No cached prompt begins with its first token." in lines(asked(run, "request", 0))


def test_an_evicted_prefix_names_the_eviction_and_for_whom() -> None:
    small = EngineConfig(block_size=4, num_blocks=14, max_batch_tokens=20, max_model_len=256)
    long = "Tell me about " + " ".join(f"word{i}" for i in range(40))
    run = recorded(small, [SYSTEM, long, SYSTEM], tokens=4, together=False)
    causes = asked(run, "request", 2)
    evicted = next(c for c in causes if "were cached until" in c.text)
    assert evicted.position
    event = run[1].event_at(evicted.position)
    assert isinstance(event, ev.Evicted) and event.for_req == 1
    assert "to make room for #1" in lines(causes)
    assert "By the policy lru it was the first to go" in lines(causes)


def test_a_node_that_lost_its_tail_names_the_eviction_and_for_whom() -> None:
    small = EngineConfig(block_size=4, num_blocks=14, max_batch_tokens=20, max_model_len=256)
    long = "Tell me about " + " ".join(f"word{i}" for i in range(36))
    run = recorded(small, [SYSTEM, long], tokens=4, together=False)
    record = run[1]
    at, node = next(
        (at, event.node)
        for at in record.chronicle.of("notable", ALL)
        if isinstance(event := record.event_at(at), ev.Evicted)
        and event.node in record.state_at(at).nodes
    )
    causes = asked(run, "node", node, at)
    assert any(c.position == at and "to make room for #1" in c.text for c in causes)
    assert "By the policy lru it was the first to go" in lines(causes)


def test_one_who_waits_for_blocks_is_told_who_holds_them() -> None:
    run = recorded(CONFIG, list(QUESTIONS * 2), tokens=24)
    record = run[1]
    at = record.find(ev.Deferred, why="no_blocks", behind=2)
    event = record.event_at(at)
    assert isinstance(event, ev.Deferred)
    said = lines(asked(run, "request", event.req, at))
    assert f"#{event.req} waits to be readmitted" in said
    assert f"it needs {event.need} block" in said
    assert "are held: free" in said and " holds " in said
    assert "is the next to reach its length limit, after" in said
    assert "unless it is preempted; a stop token can end any of them sooner." in said
    state = record.state_at(at)
    behind = next(id for id in state.waiting if id != event.req)
    assert f"It is behind #{event.req}, which was preempted: those come before" in lines(
        asked(run, "request", behind, at)
    )


def test_one_who_waits_for_budget_is_told_who_spent_it() -> None:
    run = recorded(ROOMY, list(QUESTIONS))
    at = run[1].find(ev.Deferred, why="no_budget")
    event = run[1].event_at(at)
    assert isinstance(event, ev.Deferred)
    said = lines(asked(run, "request", event.req, at))
    assert f"#{event.req} waits since step 0, for 1 step." in said
    assert "#2 took 8 tokens of the 20 that a step has: chunk 1 of its prefill." in said


@pytest.mark.parametrize(("others", "rest"), [(7, "4 more took 4 tokens."), (4, "1 more took 1")])
def test_of_many_who_spent_the_budget_the_rest_is_counted(others: int, rest: str) -> None:
    bench = Bench(max_batch_tokens=others + 2)
    for first in range(others):
        bench.submit([first], 20)
    bench.step()
    for first in (50, 60):
        bench.submit([first] * 9)
    bench.step()
    said = said_of(bench, "request", others + 1)
    assert said.count(f"of the {others + 2} that a step has: ") == 4
    assert rest in said
    assert " more took " not in said_of(bench, "request", 0)


def test_one_who_waits_for_a_place_is_told_which_limit_it_is() -> None:
    for settings, said in (
        ({"max_running_requests": 1}, "1 request runs, as many as --max-running-requests lets."),
        ({"max_batch_tokens": 2}, "2 requests run, as many as --max-batch-tokens has a token for."),
    ):
        bench = Bench(**settings)
        for first in range(3):
            bench.submit([first], 20)
        bench.step(2)
        assert said in said_of(bench, "request", 2)


def test_hits_and_held_nodes_are_counted_in_words_that_fit() -> None:
    bench = Bench()
    prompt = list(range(9))
    bench.submit(prompt, 1)
    bench.finish()
    assert "; never hit, last used in step 1" in said_of(bench, "node", 1)
    bench.submit(prompt, 1)
    bench.finish()
    assert "; hit once, last used in step 2" in said_of(bench, "node", 1)
    bench.submit(prompt, 1)
    bench.finish()
    assert "; hit 2 times, last used in step 3" in said_of(bench, "node", 1)
    bench = Bench()
    bench.submit([1, 2, 3, 4])
    bench.finish()
    assert "What is before its last token fills no block of 4 tokens." in (
        said_of(bench, "request", 0)
    )


def test_one_who_waits_behind_the_policy_an_overdue_one_or_the_head_is_told_which() -> None:
    bench = Bench(schedule_policy="sjf", num_blocks=96, max_batch_tokens=512, max_model_len=512)
    bench.submit([1] * 100, 280)
    bench.step()
    bench.submit([2] * 330, 1)
    bench.submit([3] * 300, 1)
    bench.step()
    assert "It is behind #2, which comes first by the policy sjf." in said_of(bench, "request", 1)
    bench.step(AGEING_STEPS)
    assert "#1, which has waited 256 steps or more: those come before any that the policy sjf" in (
        said_of(bench, "request", 2)
    )
    bench = Bench(schedule_policy="sjf", max_running_requests=1)
    for size in (4, 40, 8):
        bench.submit([size] * size, 8)
        bench.step()
    assert "It is behind #1, the head of the queue." in said_of(bench, "request", 2)


def test_the_cached_prefix_of_one_who_waits_is_not_there_to_be_evicted_for_it() -> None:
    bench = Bench(num_blocks=12)
    bench.submit([1] * 16, 1)
    bench.finish()
    bench.submit([2] * 24, 8)
    bench.step()
    bench.submit([1] * 16 + [3] * 12)
    bench.step()
    said = said_of(bench, "request", 2)
    assert "needs 4 blocks beside the 16 tokens of it that are cached and can have 1" in said
    assert "are held: free 1 + evictable 4." in said
    assert "4 of the 4 evictable are the cached prefix of #2, which it counts on already." in said


def test_a_full_private_block_is_a_twin_of_a_cached_one() -> None:
    bench = Bench(num_blocks=8)
    bench.submit([1] * 8, 1)
    bench.finish()
    twin = bench.submit([1] * 8, 8)
    bench.step()
    cached = next(n for n in bench.state.nodes.values() if n.start == 4)
    said = said_of(bench, "block", twin.block_table[1])
    assert f"a twin: block {cached.blocks[0]} of node {cached.id} has the same tokens" in said
    assert "not shareable until full" not in said
    bench.submit([5] * 16, 8)
    bench.step(2)  # takes all there is, the cached one too
    said = said_of(bench, "block", twin.block_table[1])
    assert "a twin of a block no longer cached; private until #1 fills its next." in said
    assert "not shareable until full" in said_of(bench, "block", twin.block_table[2])


def test_those_who_hold_blocks_are_all_counted_and_the_victim_is_named() -> None:
    bench = Bench(num_blocks=21)
    for id in range(7):
        bench.submit([id] * 8, 20)
    while not bench.last(ev.Preempted):
        bench.step()
    victim = bench.last(ev.Preempted)[0].req
    said = said_of(bench, "request", victim)
    assert "21 of 21 blocks are held" in said
    assert f"#{victim} holds 3 blocks." in said
    assert "2 more hold 6 blocks." in said
    assert said.count(" holds 3 blocks.") == 5


def test_a_victim_is_told_for_whom_and_by_which_rule() -> None:
    run = recorded(CONFIG, list(QUESTIONS * 2))
    record = run[1]
    at = record.find(ev.Preempted)
    event = record.event_at(at)
    assert isinstance(event, ev.Preempted) and event.among > 1
    causes = asked(run, "request", event.req, at)
    said = lines(causes)
    assert causes[0].text == f"#{event.req} waits to be readmitted: it was preempted."
    assert causes[0].position == at
    assert f"#{event.req} preempted for #{event.for_req}" in said
    assert f"chosen among {event.among} by the policy newest: the one that arrived last" in said
    assert "24 of 24 blocks are held: free 0 + evictable 0." in said


def test_one_who_was_preempted_is_told_so_when_it_has_ended() -> None:
    run = recorded(CONFIG, list(QUESTIONS * 2))
    end = run[1].state_at(run[1].end)
    victim = next(r for r in end.requests.values() if r.preemptions)
    assert f"#{victim.id} preempted" in lines(asked(run, "request", victim.id))


def test_a_step_is_told_with_its_time_its_prefill_and_the_step_before() -> None:
    session = make_session(ROOMY)
    records: list[StepRecord] = []
    session.engine.log.listen(records.append)
    params = SamplingParams(temperature=0, max_tokens=24)
    for prompt, steps in ((QUESTIONS[0], 4), (QUESTIONS[2], 1)):
        session.engine.submit(session.codec.encode_chat(prompt, ""), params)
        for _ in range(steps):
            session.engine.step()
    run = session, Recorded(ROOMY, records)
    said = lines(asked(run, "request", 0))
    step = run[1].state_at(run[1].end)
    count = next(row.count for row in step.rows if not row.decode)
    assert (
        f"Step 5 took {duration(step.step_seconds)} for {count} prefill tokens and 1 decode."
        in (said)
    )
    assert f"#1 took {count} tokens of the 20 that a step has: chunk 1 of its prefill." in said
    assert "Step 4 took " in said and " for 1 decode." in said
    within = run[1].find(ev.Decoding)  # nothing is known yet of how long this step will take
    assert " took " not in lines(asked(run, "request", 0, within))


def test_before_it_came_and_before_the_record() -> None:
    run = recorded(ROOMY, [SYSTEM])
    assert lines(asked(run, "request", 5)) == "#5 has not come yet."
    assert lines(asked(run, "block", 199)) == "Block 199 is free and was never used in this record."
    assert "is not there yet" in lines(asked(run, "node", 77))


@pytest.mark.parametrize("seed", range(60))
def test_on_random_runs_every_line_quotes_what_is_there(seed: int) -> None:
    load = run_load(seed)
    record = Recorded(load.config, load.records)
    rng = random.Random(seed)
    kinds: tuple[Kind, ...] = ("request", "node", "block")
    size = load.config.block_size
    for _ in range(12):
        played = rng.choice(load.records)
        here = played.position(rng.randrange(len(played.events)))
        kind = rng.choice(kinds)
        most = load.config.num_blocks - 1 if kind == "block" else 12
        target = Target(kind, rng.randint(1 if kind == "node" else 0, most))
        causes = why(record, target, here, lambda tokens: str(list(tokens)))
        assert causes and causes[0].depth == 0
        assert not any(text.startswith("-") for _, text, _, _ in causes)  # counts of blocks
        for cause in causes:
            assert cause.position is None or cause.position <= here
            if "were cached until" in cause.text:
                assert cause.position
                event = record.event_at(cause.position)
                assert isinstance(event, ev.Evicted)
                before = record.state_before(cause.position)
                tokens = record.state_at(here).requests[target.id].tokens
                end = int(cause.text.split("–")[1].split()[0]) + 1
                assert path(before, event.node)[:end] == tokens[:end]
                gone = before.nodes[event.node].start + len(before.nodes[event.node].tokens)
                assert gone - len(event.blocks) * size <= end - size < gone


def path(state: EngineState, node: int) -> list[int]:
    found: list[int] = []
    while node:
        found[:0] = state.nodes[node].tokens
        node = state.nodes[node].parent
    return found
