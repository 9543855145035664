"""`bench --watch` measures every way to be watched; no times are asserted."""

import json

import pytest
from minisgl_tui.api.watch_cost import SETUPS
from minisgl_tui.tui.cli import main


def test_every_way_to_be_watched_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["bench", "--watch", "--step-ms", "2", "--streams", "4", "--repeats", "2", "--json"]
    assert main(flags) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["setup"]["name"] for one in found] == [setup.name for setup in SETUPS]
    assert found[0]["share"] == found[0]["least"] == found[0]["most"] == 1
    for one in found:
        assert one["tokens_per_s"] > 0 and 0 < one["least"] <= one["share"] <= one["most"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--url", "http://127.0.0.1:1"], "--watch and --url are benchmarks apart"),
        (["--workload", "mixed"], "--workload: not for --watch"),
        (["--step-ms", "2", "--model", "x"], "--model: not with --step-ms"),
        (["--streams", "1", "--streams", "2"], "--streams may be given once for --watch"),
    ],
)
def test_what_does_not_go_with_it_is_refused(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--watch", *words]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
