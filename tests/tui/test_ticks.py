"""The benchmark of the screens runs every pane at both sizes; no times are asserted."""

import json

import pytest
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
        assert entry["total"] <= entry["p95"] + 1e-9


def test_what_is_over_its_target_is_said() -> None:
    slow = Ticks("80×24", "Batch", 2.0, 3.0, 6.0, 11.0, 12.0, 10.0)
    fast = Ticks("80×24", "Tree", 2.0, 3.0, 4.0, 9.0, 12.0, 10.0)
    _, _, first, second = ticks.show([slow, fast]).splitlines()
    assert first.endswith("over 10") and second.endswith("(< 10)")
