"""A redacted run is the same run with nothing in it that was said."""

import re

import msgspec
import pytest
from helpers import Bench
from minisgl_tui.engine.config import EngineConfig
from minisgl_tui.engine.events import Finished, Sampled, StepFailed, StepRecord, Submitted
from minisgl_tui.engine.fork import Changes, fork
from minisgl_tui.engine.history import History
from minisgl_tui.engine.quantities import kind_of
from minisgl_tui.engine.redact import Redactor, redacted_stop
from minisgl_tui.engine.sampling import Grammar, SamplingParams, TokenLogprobs
from minisgl_tui.engine.snapshot import RequestState
from minisgl_tui.engine.state import EngineState
from minisgl_tui.engine.stops import Stop, Stopped, StopReason
from test_oracle import run_load

FIRST = 900_000_000  # of the token ids of a bench here: numbers that nothing else could be


def redacted(records: list[StepRecord], state: EngineState) -> tuple[EngineState, list[StepRecord]]:
    redactor, told = Redactor(state.config), []
    redactor.listen(told.append)
    for record in records:
        redactor(record)
    return redactor.state, told


def shape(request: RequestState) -> dict[str, object]:
    """All of a request but what was said in it."""
    all: dict[str, object] = msgspec.structs.asdict(request)
    said = ("tokens", "params", "salt", "message", "logprobs")
    return {name: value for name, value in all.items() if name not in said} | {
        "length": len(request.tokens),
        "max_tokens": request.params.max_tokens,
    }


@pytest.mark.parametrize("first", range(0, 200, 40))
def test_a_redacted_run_is_the_same_but_for_what_was_said(first: int) -> None:
    for seed in range(first, first + 40):
        load = run_load(seed)
        state, records = redacted(load.records, load.state)
        real = load.state
        for name in ("step", "free", "cached", "evictable", "waiting", "running", "finished"):
            assert getattr(state, name) == getattr(real, name)
        assert state.block_state == real.block_state and state.block_owner == real.block_owner
        assert state.rows == real.rows
        assert state.stats == real.stats
        assert {i: shape(r) for i, r in state.requests.items()} == {
            i: shape(r) for i, r in real.requests.items()
        }
        nodes = {i: (n.parent, n.start, len(n.tokens), n.blocks, n.refs, n.hits, n.last_used)
                 for i, n in state.nodes.items()}  # fmt: skip
        assert nodes == {
            i: (n.parent, n.start, len(n.tokens), n.blocks, n.refs, n.hits, n.last_used)
            for i, n in real.nodes.items()
        }
        played = EngineState(real.config)
        for record in records:
            played.apply(msgspec.json.decode(msgspec.json.encode(record), type=StepRecord))
        assert played.digest() == state.digest()


def common(a: RequestState, b: RequestState) -> int:
    """How many first tokens they share; none under different salts."""
    pairs = zip(a.tokens, b.tokens, strict=False) if a.salt == b.salt else ()
    return next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(a.tokens), len(b.tokens)))


@pytest.mark.parametrize("seed", range(20))
def test_prompts_part_where_they_did(seed: int) -> None:
    load = run_load(seed)
    state, _ = redacted(load.records, load.state)
    real = load.state.requests
    for a in real:
        for b in real:
            if real[a].salt == real[b].salt:
                assert common(state.requests[a], state.requests[b]) == common(real[a], real[b])
            else:
                assert not set(state.requests[a].tokens) & set(state.requests[b].tokens)


def test_no_number_of_a_token_stays() -> None:
    bench = Bench(lambda row: FIRST + row.end)
    params = SamplingParams(
        max_tokens=9,
        logit_bias={FIRST + 1: 1.0},
        stop_token_ids=(FIRST + 2,),
    )
    for seed in range(3):
        prompt = [FIRST + 100 * seed + i for i in range(11)]
        bench.engine.submit(prompt, params, salt="a-secret-of-tenant")
    bench.engine.abort(1, f"token {FIRST} is bad")
    bench.finish()
    state, records = redacted(bench.records, bench.state)
    for said in (msgspec.json.encode(records), msgspec.json.encode(state.snapshot())):
        assert not re.search(rb"9000\d{5}", said)
        assert b"secret" not in said and b"is bad" not in said
    assert b"9000" in msgspec.json.encode(bench.records)


def test_events_with_texts_lose_them() -> None:
    bench = Bench()
    grammar = Grammar("regex", "secret")
    logprobs = TokenLogprobs(-1.0, [(FIRST, -1.0)])
    bench.records.append(
        StepRecord(
            seq=0,
            step=1,
            events=[
                Submitted(0, [FIRST], SamplingParams(grammar=grammar)),
                Sampled([0], [FIRST], [logprobs]),
                StepFailed("secret"),
                Finished(0, "error", "secret"),
            ],
        )
    )
    _, told = redacted(bench.records, bench.state)
    assert [kind_of(event) for event in told[0].events] == [
        kind_of(event) for event in bench.records[0].events
    ]
    wire = msgspec.json.encode(told)
    assert b"secret" not in wire and str(FIRST).encode() not in wire
    for event in bench.records[0].events:
        stop = Stopped(StopReason.BREAKPOINT, 1, (Stop(1, "step", 1, 1, 0, event),))
        assert redacted_stop(stop).text == stop.text
        wire = msgspec.json.encode(redacted_stop(stop))
        assert b"secret" not in wire and str(FIRST).encode() not in wire


def test_two_processes_give_a_token_two_numbers() -> None:
    bench = Bench()
    bench.submit([1, 2, 3])
    bench.finish()
    (one, _), (two, _) = (redacted(bench.records, bench.state) for _ in range(2))
    assert one.requests[0].tokens != two.requests[0].tokens


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_a_redacted_recording_can_be_forked(first: int) -> None:
    """Unchanged it repeats itself, and with less room it comes to what the whole one comes to."""
    for seed in range(first, first + 20):
        load = run_load(seed)
        if not load.engine.step_count:
            continue
        state, records = redacted(load.records, load.state)
        bare, whole = history_of(records, state.config), history_of(load.records, load.config)
        same = fork(bare, bare.start, Changes())
        assert same.diverged is None
        fewer = Changes(num_blocks=max(1, load.config.num_blocks - 1), eviction_policy="fifo")
        one, other = fork(whole, whole.start, fewer), fork(bare, bare.start, fewer)
        assert one.diverged == other.diverged
        assert one.figures.all() == other.figures.all(), seed


def history_of(records: list[StepRecord], config: EngineConfig) -> History:
    state = EngineState(config)
    history = History.live(state)
    for record in records:
        state.apply(record)
        history.append(record, state)
    return history
