"""Copying, pictures, jumping, help for the pane one is in, and asking before something is lost."""

import base64
from pathlib import Path

import pytest
from minisgl_tui.tui.app import DebuggerApp
from minisgl_tui.tui.screens.help import HelpScreen, help_lines
from minisgl_tui.tui.screens.jump import JumpScreen, letters
from minisgl_tui.tui.text import plain

from .pilot import NARROW, Driver, all_sizes, running
from .toy import make_source


async def command(on: Driver, line: str) -> None:
    await on.press("colon", *line, "enter")


async def test_y_copies_prompt_and_answer_or_the_line() -> None:
    async with running(NARROW) as on:
        await on.step(6)
        await on.press("4", "y")
        assert "What is a radix tree?A radix tree" in on.app.clipboard
        assert any(toast.startswith("copied ") for toast in on.toasts())
        await on.press("5", "y")
        assert on.app.clipboard in on.text()
        await on.press("2", "y")
        assert on.app.clipboard.startswith("block 0")
        for what, begins in (("answer", "A radix"), ("prompt", "You are"), ("line", "#0")):
            await on.press("1")
            await command(on, f"copy {what}")
            assert on.app.clipboard.startswith(begins)
        await command(on, "copy command")
        assert "there is no command to copy yet" in on.text()


async def test_what_is_copied_goes_to_the_terminal_as_osc_52() -> None:
    async with running(NARROW) as on:
        written: list[str] = []
        driver = on.app._driver
        assert driver is not None
        driver.write = written.append  # pyright: ignore[reportAttributeAccessIssue]
        await on.press("4", "y")
        encoded = base64.b64encode(on.app.clipboard.encode()).decode()
        assert f"\x1b]52;c;{encoded}\a" in written


async def test_pictures_are_numbered_and_a_name_can_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with running(NARROW) as on:
        await on.press("P", "P")
        await command(on, "screenshot mine")
        await on.until(lambda: (tmp_path / "mine.svg").exists())
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == ["mine.svg", "minisgl-tui-step-0-2.svg", "minisgl-tui-step-0.svg"]
        assert str(tmp_path / "mine.svg") in on.toasts()
        assert "toy-135m" in (tmp_path / "mine.svg").read_text()
        await command(on, "screenshot no/such/folder/x")
        await on.until(lambda: any("cannot write no/such" in toast for toast in on.toasts()))


@all_sizes
async def test_jump_puts_a_letter_on_every_pane(size: tuple[int, int]) -> None:
    async with running(size) as on:
        await on.press("ctrl+o")
        assert isinstance(on.app.screen, JumpScreen)
        for letter, number in letters({n: p.view.name for n, p in on.main.panes.items()}).items():
            if not on.main.panes[number].display:
                name = on.main.panes[number].view.name
                assert f"{letter} {name}" in " ".join(on.text().split())
        await on.press("t")
        assert on.main.active == 3 and on.app.screen is on.main
        await on.press("ctrl+o", "escape")
        assert on.main.active == 3
        await on.press("ctrl+o", "comma", "l")
        assert on.main.active == 2


def test_letters_are_one_a_pane() -> None:
    names = {1: "Batch", 2: "Blocks", 3: "Bat", 4: "B"}
    assert letters(names) == {"b": 1, "l": 2, "a": 3, "4": 4}


@all_sizes
async def test_help_begins_with_the_pane_one_is_in(size: tuple[int, int]) -> None:
    async with running(size) as on:
        for key, words in (("2", "ready to be taken"), ("5", "it was admitted"), ("4", "waiting")):
            await on.press(key, "question_mark")
            assert isinstance(on.app.screen, HelpScreen)
            top = "\n".join(plain(line) for line in help_lines(on.main.pane.view)[:14])
            assert on.main.pane.view.about in top and words in top
            assert on.main.pane.view.about[:30] in on.text()
            await on.press("escape")


async def test_leaving_asks_only_when_what_was_typed_would_be_lost() -> None:
    async with running(NARROW) as on:
        await on.press("i", *"Hi", "enter", "q")
        assert on.app.return_code is None
        assert "is recorded nowhere" in on.toasts()[-1] or "are recorded nowhere" in on.toasts()[-1]
        await on.press("q")
        assert on.app.return_code == 0


async def test_leaving_does_not_ask_while_everything_is_recorded() -> None:
    app = DebuggerApp(make_source(), keeps=True)
    async with app.run_test(size=NARROW) as pilot:
        on = Driver(app, pilot)
        await on.until(lambda: app.main is not None and app.main.is_current)
        await on.press("i", *"Hi", "enter", "q")
        assert app.return_code == 0


async def test_the_command_that_started_the_program_can_be_copied() -> None:
    app = DebuggerApp(make_source(), command_line="minisgl-tui run --seed 3")
    async with app.run_test(size=NARROW) as pilot:
        on = Driver(app, pilot)
        await on.until(lambda: app.main is not None and app.main.is_current)
        await command(on, "copy command")
        assert app.clipboard == "minisgl-tui run --seed 3"
