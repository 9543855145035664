"""A state can be put aside and taken up again, and nobody can tell by what follows."""

import random
import subprocess
import sys
import time

import msgspec
import pytest
from helpers import Bench
from minisgl_tui.engine.config import EngineConfig
from minisgl_tui.engine.events import StepRecord
from minisgl_tui.engine.sampling import SamplingParams, TokenLogprobs
from minisgl_tui.engine.snapshot import NodeState, RequestState, Snapshot
from minisgl_tui.engine.state import EngineState
from test_oracle import run_load


def through_the_wire(snapshot: Snapshot) -> Snapshot:
    return msgspec.json.decode(msgspec.json.encode(snapshot), type=Snapshot)


def played(records: list[StepRecord], state: EngineState) -> EngineState:
    for record in records:
        state.apply(record)
    return state


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_a_restored_state_equals_the_one_played_forward_and_goes_on_like_it(first: int) -> None:
    for seed in range(first, first + 20):
        load = run_load(seed)
        rng = random.Random(seed)
        cut = rng.randint(0, len(load.records))
        state = played(load.records[:cut], EngineState(load.config))
        kept = state.snapshot()
        sent = through_the_wire(kept)
        before = state.digest()
        for record in load.records[cut:]:
            state.apply(record)
        assert state == load.state
        for snapshot in (kept, sent, kept):  # a snapshot is not used up, nor changed, by restoring
            restored = EngineState.restore(snapshot)
            assert restored.digest() == before
            assert restored == played(load.records[:cut], EngineState(load.config))
            for record in load.records[cut:]:
                restored.apply(record)
            assert restored == load.state
            assert restored.digest() == load.state.digest()


@pytest.mark.parametrize("seed", range(10))
def test_equal_states_have_one_digest_and_others_another(seed: int) -> None:
    load = run_load(seed)
    state, seen = EngineState(load.config), []
    for record in load.records:
        state.apply(record)
        seen.append((state.digest(), EngineState.restore(state.snapshot())))
    for a, (digest, one) in enumerate(seen):
        for other_digest, other in seen[a : a + 5]:
            assert (digest == other_digest) == (one == other)


def test_the_digest_tells_the_smallest_change_anywhere() -> None:
    bench = Bench(num_blocks=8)
    bench.submit([1] * 12, max_tokens=12)
    bench.submit([2] * 12, max_tokens=12)
    bench.step(6)
    seen = {bench.state.digest()}

    def differs(name: str) -> None:
        digest = other.digest()
        assert digest not in seen, name
        assert other != bench.state
        seen.add(digest)

    for name in ("step", "now", "free", "evictable", "step_seconds"):
        other = EngineState.restore(through_the_wire(bench.state.snapshot()))
        setattr(other, name, getattr(other, name) + 1)
        differs(name)
    for change in (
        lambda s: s.requests[0].tokens.append(5),
        lambda s: s.requests[0].block_table.reverse(),
        lambda s: s.nodes[1].tokens.append(5),
        lambda s: s.block_owner.__setitem__(3, 77),
        lambda s: s.block_state.__setitem__(3, 0),
        lambda s: s.stats.itl.add(0.5),
        lambda s: s.stats.measured.clear(),
        lambda s: s.stats.live.popitem(),
        lambda s: s.notes.clear(),
        lambda s: s.rows.clear(),
        lambda s: s.waiting.append(8),
        lambda s: s.timings.clear(),
    ):
        other = EngineState.restore(through_the_wire(bench.state.snapshot()))
        change(other)
        differs("a change")


def test_numbers_written_as_whole_ones_have_the_digest_of_what_is_read_back() -> None:
    bench = Bench()
    bench.engine.submit([1, 2, 3], SamplingParams(temperature=0, logit_bias={7: 1}, max_tokens=2))
    back = EngineState(bench.config)
    for record in bench.records:
        back.apply(msgspec.json.decode(msgspec.json.encode(record), type=StepRecord))
    assert back == bench.state
    assert back.digest() == bench.state.digest()


def test_a_digest_is_the_same_in_another_process() -> None:
    code = "from test_oracle import run_load; print(run_load(11).state.digest())"
    path = f"import sys; sys.path[:0] = {sys.path!r}; "
    run = subprocess.run([sys.executable, "-c", path + code], capture_output=True, text=True)
    assert run.stdout.strip() == run_load(11).state.digest(), run.stderr


def test_logprobs_survive_with_the_request() -> None:
    bench = Bench()
    bench.submit([1, 2, 3])
    bench.step()
    bench.state.requests[0].logprobs = [TokenLogprobs(-0.25, [(5, -0.25)]), None]
    restored = EngineState.restore(through_the_wire(bench.state.snapshot()))
    assert restored == bench.state


def large_state(blocks: int, nodes: int, requests: int) -> EngineState:
    state = EngineState(EngineConfig(num_blocks=blocks))
    size = 16 * blocks // nodes
    for i in range(1, nodes + 1):
        state.nodes[i] = NodeState(i, 0, 0, 0, list(range(size)), list(range(size // 16)))
    for i in range(requests):
        params = SamplingParams()
        state.requests[i] = RequestState(i, list(range(1000)), 500, params, 0, 0.0)
    return state


def test_a_large_state_is_copied_in_tens_of_milliseconds() -> None:
    state = large_state(blocks=100_000, nodes=10_000, requests=1000)
    kept = state.snapshot()
    took: dict[str, float] = {}
    for name, work in (("snapshot", state.snapshot), ("restore", lambda: state.restore(kept))):
        times = []
        for _ in range(3):
            began = time.process_time()
            made = work()
            times.append(time.process_time() - began)
            del made
        took[name] = min(times)
    print({name: f"{1e3 * seconds:.1f} ms" for name, seconds in took.items()})
    assert max(took.values()) < 0.25  # 25 ms on a quiet machine
