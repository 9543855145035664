"""README's three investigations: its keys bring the cause to the screen, and its cure cures.

The demos run on the default model. Nothing here depends on how long anything took, except that a
step of a thousand prefill tokens takes longer than two of six decodes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from minisgl_tui.demos.pictures import PICTURES, draw
from minisgl_tui.engine import events as ev
from minisgl_tui.engine.trace_file import Trace
from minisgl_tui.tui.cli import main
from minisgl_tui.tui.sources.recorded import RecordedSource

from .pilot import MEDIUM, running


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recordings")


def record(demo: str, folder: Path) -> Path:
    """What ``minisgl-tui record --demo`` makes, in a process of its own as PyTorch is slow to
    share; once for all tests."""
    file = folder / f"{demo}.mtrace.gz"
    if not file.exists():
        program = [sys.executable, "-m", "minisgl_tui.tui.cli"]
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        command = [*program, "record", "--demo", demo, "-o", str(file)]
        subprocess.run(command, check=True, capture_output=True, env=environment)
    return file


async def seen(file: Path, *keys: str) -> str:
    """The pane that ``keys`` lead to, as one line of words."""
    assert len(keys) < 10
    async with running(MEDIUM, RecordedSource(file)) as on:
        await on.until(lambda: bool(on.store.state.waiting))
        for key in keys:
            await on.press(key)
            await on.until(lambda: on.store.reading is None and not on.store.hunting)
        view = on.main.pane.view
        lines = (view.line(i) for i in range(view.items))
        return " ".join(" ".join("".join(text for text, _ in line).split()) for line in lines)


def forked(file: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """Each figure of ``minisgl-tui fork``: recorded, fork."""
    capsys.readouterr()
    assert main(["fork", str(file), *words, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    return {name: (pair["recorded"], pair["fork"]) for name, pair in figures.items()}


async def test_a_timestamp_hides_the_prefix_until_it_stands_behind_it(
    recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = record("timestamp", recordings)
    found = await seen(file, "L", "9")
    assert "requests 6 and 7 differ at position 24" in found
    assert "move what varies, such as a date, behind what does not" in found
    why = await seen(file, "L", "9", "x")
    assert "16 of the 211 tokens of its prompt came from the cache." in why
    assert "differs at token 24: after “ 09:41:0” this has “8. You are the assistant" in why

    cured = forked(file, capsys, "--replace", r"(It is [^.]*\.) (.*)", r"\2 \1")
    assert cured["answered_to_the_end"] == (8, 8)
    assert cured["prefill_tokens_computed"] == (1576, 456)
    before, after = cured["prompt_tokens_cached"]
    assert before < 0.07 and after > 0.72


async def test_a_preemption_storm_ends_with_a_pool_that_holds_all(
    recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = record("preemption-storm", recordings)
    why = await seen(file, "right_square_bracket", "x")
    assert "#15 waits to be readmitted: it was preempted." in why
    assert "#15 preempted for #4, which was 1 block short with free 0 and evictable 0" in why
    assert "48 of 48 blocks are held: free 0 + evictable 0." in why
    worst = await seen(file, "L", "9")
    assert "request 14 was preempted 3 times, the last 1 step after it was admitted" in worst
    assert "raise --num-blocks" in worst

    cured = {blocks: forked(file, capsys, "--num-blocks", str(blocks)) for blocks in (64, 112, 128)}
    assert [figures["preemptions"] for figures in cured.values()] == [(17, 9), (17, 2), (17, 0)]
    assert cured[128]["prefill_tokens_computed"] == (599, 231)
    assert cured[128]["steps"] == (109, 49)


async def test_a_long_prefill_stalls_decodes_until_the_budget_cuts_it(
    recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = record("long-prefill", recordings)
    why = await seen(file, "L", "9", "enter", "x")
    assert "Step 17 took " in why and " for 983 prefill tokens and 6 decodes. " in why
    assert "#6 took 983 tokens of the 2048 that a step has: chunk 1 of its prefill." in why
    assert "Step 16 took " in why and " for 6 decodes. " in why

    again = recordings / "cured.mtrace.gz"
    cured = forked(file, capsys, "--max-batch-tokens", "128", "--record", str(again))
    assert longest_chunk_beside_decodes(file) == 983
    assert longest_chunk_beside_decodes(again) == 128 - 6
    assert cured["answered_to_the_end"] == (7, 7)
    assert cured["prefill_tokens_computed"] == (1075, 1075)
    assert cured["steps"] == (48, 48)


async def test_the_pictures_show_what_they_are_of(recordings: Path) -> None:
    file = record("preemption-storm", recordings)
    for name, words in (
        ("why", "#15 waits to be readmitted"),
        ("timeline", "16 requests · 1 step"),
        ("fork", "Figures from 9:15 on, with num_blocks=128"),
    ):
        picture = next(p for p in PICTURES if p.name == name)
        assert picture.demo == "preemption-storm"
        screen = await draw(RecordedSource(file), picture.size, picture.keys)
        assert words in screen.replace("&#160;", " ")


def longest_chunk_beside_decodes(file: Path) -> int:
    """The most prefill tokens that a step computed in which somebody decoded."""
    most = 0
    for record in Trace.open(file).history.records():
        if any(isinstance(event, ev.Decoding) for event in record.events):
            chunks = [e.count for e in record.events if isinstance(e, ev.Scheduled)]
            most = max(most, sum(chunks))
    return most
