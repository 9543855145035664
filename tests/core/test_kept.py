"""A history that is a recording at any moment: opened while it is written, it is what was seen."""

import shutil
from pathlib import Path

import pytest
from helpers import Bench
from minisgl_tui.engine import trace as trace_module
from minisgl_tui.engine.events import Position
from minisgl_tui.engine.kept import KeptHistory
from minisgl_tui.engine.state import EngineState
from minisgl_tui.engine.trace import Header, Model, Piece
from minisgl_tui.engine.trace_file import Trace
from test_oracle import run_load


class Speller:
    drops_first_space = False

    def chat_frame(self) -> tuple[str, str]:
        return "", ""

    def piece(self, token: int) -> Piece:
        return Piece(f" t{token}", f" t{token}".encode())


def kept(path: Path, state: EngineState) -> KeptHistory:
    header = Header(epoch="x", config=state.config, model=Model("none"), t0=0.0, clock=0.0)
    return KeptHistory(header, path.open("w+b"), Speller())


@pytest.mark.parametrize("seed", range(4))
def test_it_can_be_opened_at_any_moment_and_holds_all_that_came(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_module, "SPARSEST", 2000)
    load = run_load(seed)
    state = EngineState(load.config)
    history = kept(tmp_path / "session", state)
    digests = [state.digest()]
    for number, record in enumerate(load.records):
        state.apply(record)
        history.append(record, state)
        digests.append(state.digest())
        if number % 40 == 39:
            for settled in (False, True):
                if settled:
                    history.settle()
                shutil.copy(tmp_path / "session", tmp_path / "seen")
                seen = Trace.open(tmp_path / "seen")
                assert len(seen.history) == number + 1
                # Unsettled, a keyframe may just be on its way into the file.
                on_its_way = not settled and "cut off in" in seen.cut
                assert on_its_way or seen.cut == "the recording stops without an end"
                assert seen.history.state_after(number + 1).digest() == digests[-1]
                seen.close()
    history.finish()
    trace = Trace.open(tmp_path / "session")
    assert not trace.cut and not trace.skipped
    assert trace.history._keyframes  # written while records went on
    for number in reversed(range(len(digests))):
        assert trace.history.state_after(number).digest() == digests[number]
        assert history.state_after(number).digest() == digests[number]


def test_it_spells_what_comes_and_remembers_where_one_looked(tmp_path: Path) -> None:
    bench = Bench()
    history = kept(tmp_path / "session", bench.state)
    bench.engine.log.listen(lambda record: history.append(record, bench.state))
    bench.submit([5, 6, 7])
    bench.step(3)
    assert Trace.open(tmp_path / "session").looked_at is None
    history.look(Position(2, 1))
    trace = Trace.open(tmp_path / "session")
    assert trace.looked_at == Position(2, 1)
    spelled = trace.vocabulary()
    assert {5, 6, 7} < spelled.keys() and spelled[6].text == " t6"
    assert {*bench.state.requests[0].tokens} == spelled.keys()
    history.look(None)
    assert Trace.open(tmp_path / "session").looked_at is None


def test_a_full_disk_ends_it_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench()
    history = kept(tmp_path / "session", bench.state)
    bench.engine.log.listen(lambda record: history.append(record, bench.state))
    bench.submit([5, 6, 7])

    def full(line: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(history, "_write", full)
    bench.submit([8, 9])
    history.look(Position(0, 0))
    bench.finish()
    history.finish()
    assert len(history) == 1 and history.gap.endswith("No space left on device")
