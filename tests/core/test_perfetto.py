"""Exported traces: every slice nests, every arrow ends at a slice, every number is the engine's."""

from collections import defaultdict
from io import BytesIO
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from minisgl_tui.engine import perfetto
from minisgl_tui.engine.events import Decoding, Finished, Preempted, Scheduled, StepBegan
from minisgl_tui.engine.history import History
from minisgl_tui.engine.state import EngineState
from minisgl_tui.engine.trace import Header, Model
from test_oracle import Load, run_load

NEEDED = {
    "M": {"pid", "tid", "name", "args"},
    "X": {"pid", "tid", "name", "ts", "dur", "args"},
    "C": {"pid", "name", "ts", "args"},
    "i": {"pid", "tid", "name", "ts", "s", "args"},
    "s": {"pid", "tid", "name", "ts", "id", "cat"},
    "f": {"pid", "tid", "name", "ts", "id", "cat", "bp"},
}


def history_of(load: Load) -> History:
    state = EngineState(load.config)
    history = History.live(state)
    for record in load.records:
        state.apply(record)
        history.append(record, state)
    return history


def exported(load: Load) -> list[dict[str, Any]]:
    header = Header(epoch="e", config=load.config, model=Model("toy"), t0=0.0, clock=0.0)
    out = BytesIO()
    count = perfetto.write(header, history_of(load), out)
    document = msgspec.json.decode(out.getvalue())
    assert document["displayTimeUnit"] == "ms" and len(document["traceEvents"]) == count
    return document["traceEvents"]


def tracks(events: list[dict[str, Any]]) -> dict[tuple[int, int], list[tuple[float, float, str]]]:
    found = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            end = event["ts"] + event["dur"]
            found[event["pid"], event["tid"]].append((event["ts"], end, event["name"]))
    return found


@pytest.mark.parametrize("first", range(0, 100, 25))
def test_slices_nest_and_arrows_bind(first: int) -> None:
    for seed in range(first, first + 25):
        events = exported(run_load(seed))
        for event in events:
            assert set(event) == NEEDED[event["ph"]] | {"ph"}
        named = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
        of_track = tracks(events)
        assert set(of_track) <= named
        for (process, _), slices in of_track.items():
            steps = process == perfetto.ENGINE  # with their phases inside
            slices.sort(key=(lambda s: (s[0], -s[1])) if steps else None)
            for (begin, end, _), (next_begin, next_end, name) in pairwise(slices):
                inside = steps and next_end <= end + 0.002
                assert next_begin >= end - 0.002 or inside, (seed, begin, end, next_begin, name)
        starts = {e["id"]: e for e in events if e["ph"] == "s"}
        ends = {e["id"]: e for e in events if e["ph"] == "f"}
        assert starts.keys() == ends.keys()
        for arrow in (*starts.values(), *ends.values()):
            here = of_track[arrow["pid"], arrow["tid"]]
            assert any(begin <= arrow["ts"] <= end for begin, end, _ in here), (seed, arrow)


@pytest.mark.parametrize("seed", range(20))
def test_every_step_chunk_and_preemption_is_there_once(seed: int) -> None:
    load = run_load(seed)
    events, found = exported(load), [e for r in load.records for e in r.events]
    slices = [e for e in events if e["ph"] == "X"]

    def named(word: str) -> list[dict[str, Any]]:
        return [e for e in slices if e["name"].split()[0] == word]

    assert len(named("step")) == sum(isinstance(e, StepBegan) for e in found)
    chunks = [e for e in found if isinstance(e, Scheduled)]
    assert [e["args"]["tokens"] for e in named("prefill")] == [e.count for e in chunks]
    preemptions = sum(isinstance(e, Preempted) for e in found)
    assert len(named("preempted")) == preemptions
    decoding = sum(len(e.reqs) for e in found if isinstance(e, Decoding))
    assert sum(e["args"]["decode"] for e in named("step")) == decoding
    ended = [e for e in found if isinstance(e, Finished)]
    reasons = [e["name"] for e in events if e["ph"] == "i" and e["pid"] == perfetto.REQUESTS]
    assert reasons == [e.reason for e in ended]
    blocks = [e["args"] for e in events if e["ph"] == "C" and e["name"] == "KV blocks"]
    assert len(blocks) == len(load.records)
    assert all(sum(b.values()) == load.config.num_blocks for b in blocks)
    assert blocks[-1]["used"] == 0


def test_a_recording_that_breaks_off_leaves_its_slices_closed() -> None:
    load = run_load(2)
    load.records = load.records[: len(load.records) // 2]
    unfinished = [e for e in exported(load) if e["ph"] == "X" and e["args"].get("unfinished")]
    assert unfinished
