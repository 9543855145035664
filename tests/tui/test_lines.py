"""What `LineWidget` draws of its own accord is what Textual would have drawn."""

import pytest
from minisgl_tui.tui.widgets.lines import LineWidget
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from .pilot import Driver, all_sizes, running


def drawn_alike(on: Driver) -> None:
    for widget in on.main.query(LineWidget):
        if not (widget.display and widget.outer_size):
            continue
        whole = Region(0, 0, *widget.outer_size)
        drawn = widget.render_lines(whole)
        widget._styles_cache.clear()
        theirs = Widget.render_lines(widget, whole)
        assert [strip.text for strip in drawn] == [strip.text for strip in theirs]
        assert list(map(_looks, drawn)) == list(map(_looks, theirs))


def _looks(strip: Strip) -> list[object]:
    """The style of every cell."""
    return [style for text, style, _ in strip for _ in text]


@all_sizes
async def test_lines_and_frames_are_as_textual_would_draw_them(size: tuple[int, int]) -> None:
    async with running(size=size) as on:
        await on.step(3)
        drawn_alike(on)
        for keys in ("tab", "2", "z", "z", "5", "x"):
            await on.press(keys)
            drawn_alike(on)
        await on.step()
        drawn_alike(on)


@pytest.mark.parametrize("theme", ["light", "ansi", "nord"])
async def test_they_are_in_every_theme(theme: str) -> None:
    async with running() as on:
        await on.step(2)
        on.app.theme = theme
        await on.pilot.pause()
        drawn_alike(on)


async def test_they_are_in_ascii() -> None:
    async with running() as on:
        await on.step(2)
        on.app.set_ascii(True)
        await on.pilot.pause()
        drawn_alike(on)
        assert all(line.isascii() for line in on.lines())
        on.app.set_ascii(False)
