"""The benchmark of the screens runs every pane at both sizes; no times are asserted."""

import json
import signal
import subprocess
import sys
import time

import pytest
from minisgl_tui.engine.bench.measures import Spread
from minisgl_tui.tui import ticks
from minisgl_tui.tui.cli import main
from minisgl_tui.tui.ticks import Ticks


def test_every_pane_is_measured_at_both_sizes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure = ticks.measure
    monkeypatch.setattr(ticks, "measure", lambda **sizes: measure(**sizes, ticks=1))
    flags = ["bench", "--tui", "--running", "12", "--nodes", "30", "--blocks", "400", "--json"]
    assert main(flags) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 18
    assert {entry["size"] for entry in found} == {"80×24", "200×50"}
    assert {entry["pane"] for entry in found} >= {"Batch", "Timeline", "Lints"}
    for entry in found:
        assert min(entry["apply"], entry["sync"], entry["paint"]) > 0
        assert entry["total"]["p50"] <= entry["total"]["max"] and entry["beside"] >= 0


def test_what_is_over_its_target_is_said() -> None:
    totals = {
        "all under 10": Spread(100, 7.0, 8.0, 9.0, 9.5),
        "p95 under 10": Spread(100, 7.0, 8.0, 11.0, 12.0),
        "over 10": Spread(100, 11.0, 11.0, 11.0, 12.0),
    }
    found = [Ticks("80×24", "Batch", 2.0, 3.0, 6.0, t, 0.1, 10.0) for t in totals.values()]
    for line, verdict in zip(ticks.show(found).splitlines()[3:], totals, strict=True):
        assert line.endswith(f" {verdict}")


def test_every_way_through_a_recording_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--seek", "--running", "4", "--steps", "300", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [entry["way"] for entry in found] == [
        "anywhere", "a step back", "an event back", "a step on",
    ]  # fmt: skip
    assert all(0 < entry["ms"]["p50"] <= entry["ms"]["max"] for entry in found)


def test_a_signal_ends_it() -> None:
    command = [sys.executable, "-m", "minisgl_tui.tui.cli", "bench", "--tui", "--nodes", "30"]
    sizes = ["--running", "12", "--blocks", "400"]
    with subprocess.Popen([*command, *sizes], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        process.stderr.readline()  # the load is being made; what comes later the screens keep
        time.sleep(3)
        process.terminate()
        assert process.wait(20) == 128 + signal.SIGTERM
