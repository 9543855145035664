"""Themes of one's own: a file each, and a line about what is wrong in one."""

from pathlib import Path

import platformdirs
import pytest
from minisgl_tui.engine.errors import UserError
from minisgl_tui.tui import cli, themes
from minisgl_tui.tui.palette import STYLE_NAMES, style_table

from .pilot import NARROW, running

MINE = 'base = "light"\n[screen]\nbackground = "#102030"\n[styles]\nprefill = "bold #010203"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(platformdirs, "user_config_dir", lambda name: str(tmp_path))
    themes.folder().mkdir()
    return themes.folder()


async def test_a_theme_of_ones_own_draws_what_it_gives_and_the_rest_as_its_base(
    folder: Path,
) -> None:
    (folder / "mine.toml").write_text(MINE)
    async with running(NARROW) as on:
        await on.press("colon", *"theme mine", "enter")
        assert on.app.theme == "mine"
        await on.step()
        mine = style_table(on.app.current_theme)
        base = style_table(on.app.available_themes["light"])
        assert str(mine["prefill", ""]) == "bold #010203"
        assert {key[0] for key in mine if mine[key] != base[key]} == {"prefill"}
        drawn = [s for strip in on.app.screen._compositor.render_strips() for s in strip if s.style]
        assert any("prefill" in s.text and str(s.style).startswith("bold #010203") for s in drawn)
        assert any("on #102030" in str(s.style) for s in drawn)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('base = "blue"', "base is 'blue'; give one of dark, light, high-contrast, ansi"),
        ('[colors]\nx = "red"', "'colors' is not known; there are base, [screen] and [styles]"),
        ('[styles]\ndecoded = "red"', "there is no 'decoded' in [styles]; there are text, strong"),
        ("[styles]\ndecode = 3", "decode is 3; give a colour"),
        ('[screen]\npanel = "reddish"', "panel is 'reddish'; give a colour"),
        ('styles = "red"', "styles is 'red'; write [styles]"),
        ("[styles", "Expected"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_file(folder: Path, text: str, says: str) -> None:
    file = folder / "mine.toml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        themes.load(file)
    assert says in str(caught.value) and str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_themes_there_are_and_where_ones_own_go(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "mine.toml").write_text(MINE)
    assert cli.main(["themes"]) == 0
    out = capsys.readouterr().out
    assert str(folder) in out and all(name in out for name in STYLE_NAMES)
    assert out.endswith("there are: dark, light, high-contrast, ansi, mine\n")
    (folder / "dark.toml").write_text(MINE)
    assert cli.main(["themes"]) == 2
    assert "there is a theme dark already" in capsys.readouterr().err
