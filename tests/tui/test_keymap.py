"""The user's own keys, and what is wrong with a file of them, in a line."""

from collections.abc import Iterator
from pathlib import Path

import platformdirs
import pytest
from minisgl_tui.engine.errors import UserError
from minisgl_tui.tui import actions, cli, keymap
from textual.binding import Binding

from .pilot import NARROW, running
from .toy import make_source


@pytest.fixture(autouse=True)
def keys_end() -> Iterator[None]:
    yield
    actions.use(actions.ACTIONS)


def _file(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "keys.toml"
    file.write_text(text)
    return file


async def test_a_key_of_ones_own_works_and_is_shown_everywhere(tmp_path: Path) -> None:
    text = '[keys]\nstep = "n"\nmatch-1 = "ctrl+n"\nprompt = ["?", "f2"]\nhelp = "H"\n'
    actions.use(keymap.load(_file(tmp_path, text)))
    async with running(NARROW) as on:
        assert "press n to take the first step, space to run, H for help" in on.text()
        assert " n step" in on.lines()[-1] and "? f2 prompt" in on.lines()[-1]
        await on.press("s")
        await on.press("n")
        await on.until(lambda: on.store.state.step == 1)
        await on.press("H")
        assert "n      Step" in on.text() or "^n" in on.text()
        await on.press("escape")
        titles = {command.title for command in on.app.get_system_commands(on.main)}
        assert "Step (n)" in titles and "Next match (^n)" in titles
        await on.press("question_mark", *"Hi", "enter")
        await on.until(lambda: len(on.store.state.requests) == 5)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[keys]\nstepp = "n"', "there is no action 'stepp'; did you mean step?"),
        ("[keys]\nstep = 3", "step is 3; give a key"),
        ("[keys]\nstep = []", "step is []; give a key"),
        ('[keys]\nstep = "nn"', "step has the key 'nn', which is none"),
        ('[keys]\nstep = "i"', "i is both step and prompt; give one another key"),
        ('[keys]\nhelp = "space"', "space is both play and help"),
        ('[colors]\nstep = "n"', "'colors' is not known; there is [keys] alone"),
        ("keys = 3", "keys is 3; write [keys]"),
        ("[keys", "Expected"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_file(tmp_path: Path, text: str, says: str) -> None:
    file = _file(tmp_path, text)
    with pytest.raises(UserError) as caught:
        keymap.load(file)
    assert says in str(caught.value) and str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_swapping_two_keys_is_no_clash_and_quit_keeps_ctrl_c(tmp_path: Path) -> None:
    table = keymap.remapped({"step": "i", "prompt": "s", "quit": "Q"})
    keys = {action.id: action.keys for action in table}
    assert (keys["step"], keys["prompt"], keys["quit"]) == ("i", "s", "Q,ctrl+c")
    assert keymap.load(tmp_path / "nowhere.toml") is actions.ACTIONS


def test_every_key_of_ours_is_one_that_can_be_given() -> None:
    for action in actions.ACTIONS:
        given = action.keys.split(",")
        (again,) = (a for a in keymap.remapped({action.id: given}) if a.id == action.id)
        assert set(given) <= set(again.keys.split(","))
        assert isinstance(Binding(again.keys, again.call), Binding)


def test_keys_prints_the_table_and_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(platformdirs, "user_config_dir", lambda name: str(tmp_path))
    assert cli.main(["keys"]) == 0
    out = capsys.readouterr().out
    assert str(tmp_path / "keys.toml") in out and "(not there yet)" in out
    assert all(action.id in out and action.about in out for action in actions.ACTIONS)
    _file(tmp_path, "[keys]\nnonsense = 'x'")
    assert cli.main(["keys"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("minisgl-tui: ") and err.count("\n") == 1


async def test_every_theme_draws_the_same_text() -> None:
    async with running(NARROW, make_source()) as on:
        for theme in ("light", "high-contrast", "ansi", "dark"):
            on.app.theme = theme
            await on.pilot.pause()
            assert "press s to take the first step" in on.text()
