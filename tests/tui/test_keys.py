"""Every key does what the table says, on a small terminal and on a large one."""

from collections.abc import Iterable

import pytest
from minisgl_tui.engine.debugger import Mode
from minisgl_tui.engine.state import ROOT
from minisgl_tui.tui.actions import ACTIONS, APP
from minisgl_tui.tui.screens.help import HelpScreen, help_lines
from minisgl_tui.tui.screens.prompt import PromptScreen
from minisgl_tui.tui.selection import Target
from minisgl_tui.tui.text import plain
from textual import events
from textual.binding import Binding
from textual.command import CommandPalette
from textual.widgets import Input

from .pilot import NARROW, WIDE, running
from .toy import ROOMY, make_source

both = pytest.mark.parametrize("size", [NARROW, WIDE], ids=["80x24", "200x50"])


@both
async def test_s_takes_one_step(size: tuple[int, int]) -> None:
    async with running(size) as on:
        assert "press s to take the first step, space to run, ? for help" in on.text()
        await on.step()
        assert on.store.state.step == 1
        assert "step 1" in on.lines()[0]
        assert "◐ prefill" in on.text()
        await on.until(lambda: on.store.mode is Mode.PAUSED)


@both
async def test_space_plays_and_pauses(size: tuple[int, int]) -> None:
    async with running(size, make_source(ROOMY, tokens=200)) as on:
        await on.until(lambda: len(on.store.state.waiting) == 4)
        await on.press("space")
        await on.until(lambda: on.store.state.step >= 2)
        assert "▶ playing 4 steps/s" in on.lines()[0]
        assert "space pause" in on.lines()[-1]
        await on.press("space")
        await on.until(lambda: on.store.mode is Mode.PAUSED)
        assert "⏸ paused" in on.lines()[0]


@both
async def test_angle_brackets_change_the_speed(size: tuple[int, int]) -> None:
    async with running(size, make_source(ROOMY, tokens=200)) as on:
        await on.until(lambda: len(on.store.state.waiting) == 4)
        await on.press("greater_than_sign")
        assert "space will run 8 steps/s" in on.toasts()
        await on.press("space")
        await on.until(lambda: on.store.mode is Mode.PLAYING)
        await on.press("less_than_sign", "less_than_sign")
        await on.until(lambda: on.store.rate == 2)
        assert "▶ playing 2 steps/s" in on.lines()[0]
        await on.press(*["greater_than_sign"] * 5)
        assert any("highest speed" in toast for toast in on.toasts())


@both
async def test_i_sends_a_prompt(size: tuple[int, int]) -> None:
    async with running(size) as on:
        await on.press("i")
        assert isinstance(on.app.screen, PromptScreen)
        await on.press(*"Hi there", "enter")
        await on.until(lambda: len(on.store.state.waiting) == 5)
        assert not isinstance(on.app.screen, PromptScreen)
        assert "#4 arrived" in "".join(note.sentence for note in on.store.history[0].notes)


@both
async def test_an_empty_prompt_is_refused_and_escape_cancels(size: tuple[int, int]) -> None:
    async with running(size) as on:
        await on.press("i", "enter")
        assert "an empty prompt cannot be sent" in on.text()
        await on.press("escape")
        assert not isinstance(on.app.screen, PromptScreen)
        assert len(on.store.state.waiting) == 4


async def test_a_prompt_of_several_lines_can_be_pasted() -> None:
    async with running() as on:
        await on.press("i")
        on.app.screen.post_message(events.Paste("one two\n\n  three\r\nfour\n"))
        await on.pilot.pause()
        assert on.app.screen.query_one(Input).value == "one two three four"
        on.app.screen.post_message(events.Paste("\n"))
        await on.press("ctrl+c")  # nothing is selected that it could copy
        assert on.app.return_code == 0


@both
async def test_digits_choose_the_pane(size: tuple[int, int]) -> None:
    async with running(size) as on:
        await on.step(4)
        for key, shows in [
            ("1", "unused"),
            ("2", "evictable"),
            ("3", "You are a careful guide"),
            ("4", "status"),
            ("5", "#3 admitted: "),
            ("6", "step 4: running 4, waiting 0"),
            ("7", "░ queued"),
            ("8", "── slowest"),
            ("9", "nothing bad was found so far"),
        ]:
            await on.press(key)
            assert on.main.active == int(key)
            assert on.main.pane.has_focus
            assert shows in on.text()


@both
async def test_tab_goes_round_the_panes(size: tuple[int, int]) -> None:
    async with running(size) as on:
        seen = []
        for _ in range(9):
            await on.press("tab")
            seen.append(on.main.active)
        assert seen == [2, 3, 4, 5, 6, 7, 8, 9, 1]
        await on.press("shift+tab")
        assert on.main.active == 9


@both
async def test_z_gives_the_pane_all_the_room_and_takes_it_back(size: tuple[int, int]) -> None:
    async with running(size) as on:
        await on.step(4)
        before = on.main.panes[1].size
        await on.press("z")
        assert on.main.panes[1].size.height > before.height
        assert [n for n, pane in on.main.panes.items() if pane.display] == [1]
        assert "unzoom" in on.lines()[-1]
        await on.press("3")
        assert [n for n, pane in on.main.panes.items() if pane.display] == [3]
        await on.press("escape")
        await on.press("1")
        assert on.main.panes[1].size == before


@both
async def test_the_cursor_moves_with_arrows_and_with_letters(size: tuple[int, int]) -> None:
    async with running(size, make_source(ROOMY)) as on:
        await on.press("2")
        pane = on.main.pane
        across = pane.view.per_line
        for key, expected in [
            ("down", across), ("j", 2 * across), ("right", 2 * across + 1), ("l", 2 * across + 2),
            ("left", 2 * across + 1), ("h", 2 * across), ("up", across), ("k", 0),
        ]:  # fmt: skip
            await on.press(key)
            assert pane.cursor == expected, key
        await on.press("down")
        assert f"block {across} ·" in on.text()


@both
async def test_top_bottom_and_half_pages(size: tuple[int, int]) -> None:
    async with running(size, make_source(ROOMY)) as on:
        await on.press("2", "G")
        pane = on.main.pane
        assert pane.cursor == ROOMY.num_blocks - 1
        assert f"block {ROOMY.num_blocks - 1} ·" in on.text()
        await on.press("g")
        assert pane.cursor == 0
        await on.press("ctrl+d")
        down = pane.cursor
        assert down > 0
        await on.press("ctrl+u")
        assert pane.cursor == 0
        for alias, expected in [
            ("end", ROOMY.num_blocks - 1),
            ("home", 0),
            ("pagedown", down),
            ("pageup", 0),
        ]:
            await on.press(alias)
            assert pane.cursor == expected, alias


@both
async def test_enter_selects_and_escape_clears(size: tuple[int, int]) -> None:
    async with running(size) as on:
        await on.step(3)
        await on.press("1", "down", "enter")
        assert on.store.selected == Target("request", 1)
        assert "◆ #1 holds" in on.text()
        await on.press("escape")
        assert on.store.selected is None
        await on.press("escape")
        assert "nothing is selected" in on.toasts()


@both
async def test_question_mark_shows_help(size: tuple[int, int]) -> None:
    async with running(size) as on:
        await on.press("question_mark")
        assert isinstance(on.app.screen, HelpScreen)
        assert "take one step, then pause" in on.text()
        before = on.text()
        await on.press("j", "j", "k")
        if size == NARROW:
            assert on.text() != before
        await on.press("q")
        assert on.app.screen is on.main


@both
async def test_the_palette_finds_and_runs_actions(size: tuple[int, int]) -> None:
    async with running(size) as on:
        await on.press("ctrl+p")
        assert isinstance(on.app.screen, CommandPalette)
        await on.press(*"Radi")
        await on.pilot.pause(0.3)
        await on.press("escape")
        commands = {c.title: c for c in on.app.get_system_commands(on.main)}
        await commands["Tree (3)"].callback()
        await on.pilot.pause()
        assert on.main.active == 3


@both
@pytest.mark.parametrize("key", ["q", "ctrl+q", "ctrl+c"])
async def test_q_quits(size: tuple[int, int], key: str) -> None:
    async with running(size) as on:
        await on.press(key)
        assert not on.app.is_running or on.app._exit
        assert on.app.return_code == 0
        assert on.app.fatal is None


@both
async def test_keys_that_cannot_work_say_why(size: tuple[int, int]) -> None:
    async with running(size, make_source(questions=())) as on:
        await on.press("s", "space", "left", "enter")
        assert on.toasts()[0] == "there is nothing to run: press i to send a prompt"
        assert len(on.toasts()) == len(set(on.toasts())) == 3  # s and space have the same to say
        assert any("left and right do nothing in this list" in toast for toast in on.toasts())
        assert "there is nothing to select on this line" in on.toasts()
        assert "step" not in on.lines()[-1]  # and the footer does not offer them


async def test_a_click_selects_and_focuses() -> None:
    async with running(WIDE) as on:
        await on.step(3)
        pane = on.main.panes[3]
        await on.pilot.click(pane, offset=(10, 2))
        await on.pilot.pause()
        assert on.main.active == 3
        assert on.store.selected == Target("node", on.store.weights.heaviest(ROOT, 1)[0])
        await on.pilot.click(on.main.panes[2], offset=(6, 3))
        await on.pilot.pause()
        assert on.store.selected == Target("block", 0)


async def test_the_footer_can_be_clicked() -> None:
    async with running(WIDE) as on:
        at = on.lines()[-1].index("s step")
        await on.pilot.click("#keys", offset=(at, 0))
        await on.until(lambda: on.store.state.step == 1)


def _bindings(owner: object) -> Iterable[Binding]:
    for binding in owner.BINDINGS:  # pyright: ignore[reportAttributeAccessIssue]
        assert isinstance(binding, Binding)
        yield binding


async def test_every_binding_has_an_id_and_a_tooltip_and_is_in_palette_and_help() -> None:
    async with running() as on:
        found = [*_bindings(on.app), *_bindings(on.main)]
        assert {b.id for b in found} == {a.id for a in ACTIONS}
        assert len({b.id for b in found}) == len(found)
        commands = {c.title for c in on.app.get_system_commands(on.main)}
        text = "\n".join(plain(line) for line in help_lines())
        for action in ACTIONS:
            binding = next(b for b in found if b.id == action.id)
            assert binding.tooltip and binding.description == action.title
            assert binding.group is not None
            in_palette = f"{action.title} ({action.shown})" in commands
            assert in_palette or action.name == "command_palette"
            assert action.title in text and action.about in text
            owner = on.app if action.group == APP else on.main
            assert hasattr(owner, f"action_{action.name}")
        for screen in (HelpScreen, PromptScreen):
            assert all(b.id and b.tooltip for b in _bindings(screen))
