"""`minisgl-tui fork`: two runs side by side in text, as JSON and in a file."""

import json
from pathlib import Path

import pytest
from minisgl_tui.engine.state import EngineState
from minisgl_tui.engine.trace_file import Trace
from minisgl_tui.tui.cli import main

from .test_replay import record_toy


@pytest.fixture
def run(tmp_path: Path) -> str:
    record_toy(tmp_path / "run.mtrace")
    return str(tmp_path / "run.mtrace")


def rows(text: str) -> dict[str, list[str]]:
    """The words after the name of each figure."""
    return {line[:32].strip(): line[32:].split() for line in text.splitlines() if line[:1].strip()}


def test_both_runs_stand_side_by_side(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fork", run, "--num-blocks", "400"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("run.mtrace from the start on, and a fork with num_blocks=400\n")
    figures = rows(out)
    before, after = figures["preemptions"][:2]
    assert int(before) > int(after) == 0
    assert figures["preemptions"][2:] == ["-100%", "better"]
    assert figures["answered to the end"] == ["4", "4"]
    assert figures["time"][2].startswith("~")
    assert "changed most, of " in out
    assert " on batches differ and times are estimated" in out


def test_what_fewer_answers_cost_is_no_gain(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fork", run, "--num-blocks", "2"]) == 0
    out = capsys.readouterr().out
    figures = rows(out)
    assert (
        figures["failed or refused"][:2] == ["0", "4"] and "worse" in figures["failed or refused"]
    )
    assert figures["prefill tokens computed"][1] == "0"
    assert "better" not in out
    assert "The fork answers fewer requests: what it costs less is no gain." in out


def test_nothing_changed_gives_the_same_twice(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fork", run, "--at", "50%"]) == 0
    out = capsys.readouterr().out
    assert "a fork with nothing changed" in out
    for name, words in rows(out).items():
        if len(words) == 2 and name != "run.mtrace":
            assert words[0] == words[1], name
    assert "every batch is the recorded one, and so are the times" in out


def test_a_fork_is_recorded_and_says_what_it_is_a_fork_of(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "fork.mtrace.gz"
    words = ["fork", run, "--at", "6", "--max-batch-tokens", "16", "--record", str(file)]
    assert main(words) == 0
    source, made = Trace.open(Path(run)), Trace.open(file)
    assert made.cut == ""
    forked = made.header.forked_from
    assert forked is not None
    assert forked.epoch == source.header.epoch != made.header.epoch
    assert forked.at == str(source.history.end_of_step(6))
    assert forked.changes == {"max_batch_tokens": 16}
    assert made.header.config.max_batch_tokens == 16
    assert made.vocabulary() == source.vocabulary()
    start = made.history.state_at(made.history.start)
    there = source.history.state_at(source.history.end_of_step(6))
    assert start.requests == there.requests and start.nodes == there.nodes
    end: EngineState = made.history.state_at(made.history.end)
    known = source.history.state_at(source.history.end)
    assert [r.output for r in end.requests.values()] == [r.output for r in known.requests.values()]
    assert main(words) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    assert main(["dump", str(file), "--at", "8"]) == 0
    assert "fork.mtrace.gz" in capsys.readouterr().out
    assert main(["fork", str(file), "--num-blocks", "300"]) == 0  # of a fork, too


def test_json_has_every_figure_and_request(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fork", run, "--schedule-policy", "sjf", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["at"] == "start"
    assert told["changes"] == {"schedule_policy": "sjf"}
    assert (
        told["figures"]["tokens_sampled"]["fork"] == told["figures"]["tokens_sampled"]["recorded"]
    )
    assert [r["id"] for r in told["requests"]] == [0, 1, 2, 3]
    assert all(r["fork"]["outputs"] == r["recorded"]["outputs"] for r in told["requests"])


def test_a_sweep_is_a_table_with_a_row_a_value(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fork", run, "--sweep", "num-blocks=20,40,400", "--eviction-policy", "lfu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    heads = [line.split("  ")[0] for line in lines[3:7]]
    assert heads == ["recorded"] + [f"num_blocks={n} eviction_policy=lfu" for n in (20, 40, 400)]
    evicted = [int(line[40:].split()[5]) for line in lines[4:7]]
    assert evicted == sorted(evicted, reverse=True) and evicted[-1] == 0


def test_texts_are_replaced_in_prompts(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fork", run, "--replace", "careful guide to inference engines", "block table"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    for request in told["requests"]:
        assert request["recorded"]["prompt"] - request["fork"]["prompt"] == 3
    assert "4 prompts were edited, -12 tokens in all" in told["notes"][0]
    assert main(["fork", run, "--replace", "preemption", "radix", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"][0].startswith("1 prompt was edited, ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--num-blocks", "0"], "--num-blocks is 0; it must be at least 1"),
        (["--eviction-policy", "best"], "--eviction-policy 'best' is not known"),
        (["--at", "9999"], "there is no step 9999"),
        (["--at", "end"], "no step comes after"),
        (["--sweep", "num_blocks"], "give NAME=A,B"),
        (["--sweep", "num_blocks=8,many"], "num_blocks is 'many'; it must be a whole number"),
        (["--sweep", "colour=red"], "'colour=red' is no change that a fork can make"),
        (["--sweep", "num_blocks=8,9", "--num-blocks", "7"], "leave --num-blocks"),
        (["--sweep", "num_blocks=8,9", "--record", "x.mtrace"], "--record takes one fork"),
        (["--replace", "(", "x"], "'(' is no regular expression"),
        (["--replace", "What", r"\7"], "cannot stand in for a match"),
        (["--replace", "What", "Ὀδυσσεύς"], "cannot be spelled"),
        (["--replace", "(?s).*", ""], "a prompt would be empty"),
    ],
)
def test_bad_input_is_told_in_a_line(
    run: str, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fork", run, *words]) == 2
    err = capsys.readouterr().err.splitlines()
    assert err[-1].startswith("minisgl-tui: ") and said in err[-1]


def test_a_recording_without_texts_or_of_nothing_cannot_be_edited_or_forked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record_toy(tmp_path / "ids.mtrace", spelled=False)
    assert main(["fork", str(tmp_path / "ids.mtrace"), "--num-blocks", "400"]) == 0
    assert main(["fork", str(tmp_path / "ids.mtrace"), "--replace", "a", "b"]) == 2
    assert "does not hold the texts of its tokens" in capsys.readouterr().err
    record_toy(tmp_path / "none.mtrace", steps=0)
    assert main(["fork", str(tmp_path / "none.mtrace")]) == 2
    assert "no step comes after" in capsys.readouterr().err


def test_a_recording_that_breaks_off_says_what_is_not_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record_toy(tmp_path / "run.mtrace", steps=20)
    assert main(["fork", str(tmp_path / "run.mtrace"), "--num-blocks", "400"]) == 0
    out = capsys.readouterr().out
    assert "were alive when the recording ended" in out
    assert rows(out)["aborted"] == ["0", "0"]
