"""How it looks where colours or UTF-8 are missing, and which flags say so."""

import argparse

import pytest
from minisgl_tui.tui.commands import OWN
from minisgl_tui.tui.palette import OWN_THEMES
from minisgl_tui.tui.screens.help import help_lines
from minisgl_tui.tui.start import THEMES, add_look_flags, speaks_utf8
from minisgl_tui.tui.text import plain

from .pilot import MEDIUM, running


@pytest.mark.parametrize(
    ("environ", "utf8"),
    [
        ({}, True),
        ({"LANG": "en_US.UTF-8"}, True),
        ({"LC_CTYPE": "UTF-8"}, True),
        ({"LANG": "de_DE.ISO-8859-1"}, False),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "C"}, False),
        ({"LANG": "C", "LC_ALL": "C.UTF-8"}, True),
        ({"LC_ALL": "", "LANG": "en_US.utf8"}, True),
    ],
)
def test_a_locale_without_utf8_is_drawn_in_ascii(environ: dict[str, str], utf8: bool) -> None:
    assert speaks_utf8(environ) is utf8


def test_the_flags_offer_the_themes_there_are() -> None:
    parser = argparse.ArgumentParser()
    add_look_flags(parser)
    assert set(THEMES) == OWN_THEMES.keys()
    assert parser.parse_args(["--theme", "ansi", "--ascii"]).theme == "ansi"


async def test_no_color_leaves_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    for asked in (False, True):
        if asked:
            monkeypatch.setenv("NO_COLOR", "1")
        async with running(MEDIUM) as on:
            await on.step(4)
            await on.press("4", "enter")
            strips = on.app.screen._compositor.render_strips()
            styles = {segment.style for strip in strips for segment in strip if segment.style}
            shades = [c.triplet for s in styles for c in (s.color, s.bgcolor) if c and c.triplet]
            grey = all(len({*shade}) == 1 for shade in shades)
            assert shades and grey is asked


def test_help_lists_every_command() -> None:
    text = "\n".join(plain(line) for line in help_lines())
    for command in OWN:
        assert f":{command.usage}"[:38] in text and command.about in text
