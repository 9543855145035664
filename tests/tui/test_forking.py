"""Forks on the screens: what is typed, both runs under each other, and the fork in all panes."""

import pytest
from minisgl_tui.engine.errors import UserError
from minisgl_tui.tui.forking import read_changes
from minisgl_tui.tui.screens.command import CommandScreen
from minisgl_tui.tui.screens.fork import ForkingScreen, ForkScreen

from .pilot import MEDIUM, NARROW, TINY, WIDE, Driver, running
from .toy import CONFIG


async def forked(on: Driver, line: str, goto: str = "4") -> None:
    """The whole of the toy's run, then a fork from ``goto``."""
    await on.press("c")
    await on.until(lambda: on.store.done)
    await on.press("colon", *f"goto {goto}", "enter", "F")
    await on.press(*line, "enter")
    await on.until(lambda: not isinstance(on.app.screen, ForkingScreen))


@pytest.mark.parametrize("size", [TINY, NARROW, MEDIUM, WIDE])
async def test_both_runs_stand_under_each_other_with_figures(size: tuple[int, int]) -> None:
    async with running(size) as on:
        await forked(on, "num_blocks=200")
        assert isinstance(on.app.screen, ForkScreen)
        assert "Timelines from 4:" in on.text()
        assert "  #0   run " in on.text() and "      fork " in on.text()
        ran = [line for line in on.lines() if "   run " in line and "#" in line]
        fork = [line for line in on.lines() if "      fork " in line]
        assert any("×" in line for line in ran) and not any("×" in line for line in fork)
        if size[1] < 34:
            assert "preemptions" not in on.text()
            await on.press("tab")
        assert "answered to the end" in on.text() and "better" in on.text()
        await on.press("escape")
        assert on.app.screen is on.main


async def test_a_fork_is_looked_at_in_all_panes_beside_the_run_it_was_made_from() -> None:
    async with running(MEDIUM) as on:
        await forked(on, "num_blocks=200 eviction_policy=lfu")
        run = on.main
        await on.press("enter")
        await on.until(lambda: on.main is not run and on.main.is_current)
        assert "fork from 4:" in on.lines()[0] and "of 200" in on.lines()[1]
        assert "a fork with num_blocks=200 eviction_policy=lfu" in on.text()
        assert run.store.guesses_from is None and on.main.store.guessed == "~"
        assert on.main.store.state.stats.preemptions == 0 < run.store.now.stats.preemptions
        answers = {id: request.output for id, request in run.store.now.requests.items()}
        assert {id: r.output for id, r in on.main.store.now.requests.items()} == answers
        await on.press("S", "4", "x")
        assert "why #" in on.text()
        await on.press("s", "s")
        assert any("this run is over: a fork with" in toast for toast in on.toasts())
        await on.press("right_curly_bracket")
        assert on.main is run
        await on.press("left_curly_bracket")
        assert on.main is not run


async def test_texts_of_prompts_are_replaced() -> None:
    async with running(MEDIUM) as on:
        await forked(on, "'s/radix tree/block table/'", "start")
        await on.press("enter")
        await on.until(lambda: "fork from start" in on.lines()[0])
        first = on.main.store.now.requests[0]
        assert "What is a block table?" in on.main.store.texts.prompt(first)


async def test_a_text_that_is_nowhere_is_said_to_replace_nothing() -> None:
    async with running(WIDE) as on:
        await forked(on, "s/lighthouse/castle/", "start")
        await on.press("tab", "G")
        assert "no prompt was edited" in on.text()


async def test_what_cannot_be_forked_is_said_on_the_line() -> None:
    async with running(NARROW) as on:
        await forked(on, "num_blocks=3")
        assert isinstance(on.app.screen, ForkScreen | CommandScreen)
        await on.press("escape")
        for line, says in (
            ("blocks=3", "no change that a fork can make"),
            ("num_blocks=x", "must be a whole number"),
            ("s/(/x/", "no regular expression"),
            ("eviction_policy=oldest", "is not known; choose one of"),
        ):
            await on.press("F", *line, "enter")
            await on.until(lambda: isinstance(on.app.screen, CommandScreen))
            assert says in " ".join(on.text().split()), on.text()
            await on.press("escape")


async def test_nobody_has_to_wait_for_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from minisgl_tui.tui.screens import fork as fork_module

    ended = threading.Event()

    def endless(of: object, at: object, changes: object, progress: object) -> object:
        try:
            while True:
                progress("running the fork", 0.42)  # pyright: ignore[reportCallIssue]
                threading.Event().wait(0.01)
        finally:
            ended.set()

    monkeypatch.setattr(fork_module, "fork", endless)
    async with running(NARROW) as on:
        await on.step(3)
        await on.press("F", *"num_blocks=40", "enter")
        await on.until(lambda: "42 %" in on.text())
        assert "running the fork" in on.text() and "fork with num_blocks=40" in on.text()
        await on.press("escape")
        assert on.app.screen is on.main and ended.wait(5)


def test_changes_are_read_from_words_and_substitutions() -> None:
    changes = read_changes("num-blocks=60 's/at 12:0./at noon/'", CONFIG)
    assert changes.num_blocks == 60 and changes.replace == (("at 12:0.", "at noon"),)
    for line, says in (
        ("s/x", "replaces nothing; write s/PATTERN/TEXT/"),
        ("'s/x/y/", "cannot be read"),
        ("num_blocks", "no change that a fork can make"),
    ):
        with pytest.raises(UserError, match=says):
            read_changes(line, CONFIG)
