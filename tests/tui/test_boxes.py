"""Keys that come together, before what the first of them does is done."""

import pytest
from minisgl_tui.tui.screens.box import Box
from minisgl_tui.tui.screens.filter import FilterScreen
from textual import events
from textual.widgets import Input

from .pilot import Driver, running


def burst(on: Driver, *keys: str) -> None:
    for key in keys:
        character = key if len(key) == 1 else "\r" if key == "enter" else None
        on.app.post_message(events.Key(key, character))


@pytest.mark.parametrize(
    "opens",
    ["colon", "slash", "w", "i", "B", "question_mark", "ctrl+o"],
)
@pytest.mark.parametrize("closes", ["enter", "escape"])
async def test_a_box_that_is_closed_twice_leaves_the_screen_below(opens: str, closes: str) -> None:
    async with running() as on:
        burst(on, opens, closes, closes, closes)
        await on.pilot.pause(0.3)
        while isinstance(on.app.screen, Box):
            await on.press("escape")
        assert on.app.screen is on.main
        await on.step()
        assert "step 1" in on.lines()[0]


async def test_a_letter_of_jump_mode_pressed_twice_jumps_once() -> None:
    async with running() as on:
        await on.press("ctrl+o")
        burst(on, "l", "l", "l")
        await on.until(lambda: on.app.screen is on.main)
        assert on.main.active == 2


async def test_two_lines_pasted_as_keys_send_the_first() -> None:
    async with running() as on:
        asked = len(on.store.state.requests)
        await on.press("i")
        burst(on, *"one", "enter", "enter", *"two", "enter")
        await on.until(lambda: len(on.store.state.requests) == asked + 1)
        assert on.app.screen is on.main or isinstance(on.app.screen, Box)


async def test_what_is_typed_takes_the_place_of_the_old_filter_however_early_it_comes() -> None:
    async with running() as on:
        for keys, text in (("kind pre", "kind pre"), ("req 2", "req 2"), ("node 1", "node 1")):
            await on.press("slash", *keys, "enter")
            assert on.main.events.filter is not None
            assert on.main.events.filter.text == text
        burst(on, "slash", *"kind")  # letters that come before the box is there
        await on.until(lambda: isinstance(on.app.screen, FilterScreen))
        await on.press(*" dec")
        assert on.app.screen.query_one(Input).value == "kind dec"
        await on.press("enter", "slash", "end", "o")
        assert on.app.screen.query_one(Input).value == "kind deco"
