"""The pictures in README: each a demo that is recorded, opened, and looked at by pressing keys.

    .venv/bin/python -m minisgl_tui.demos.pictures        # all of them, beside this file

What the screens show is real, so times differ from one making to the next.
"""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from ..tui.app import DebuggerApp
from ..tui.cli import main
from ..tui.screens.fork import ForkingScreen
from ..tui.sources.recorded import RecordedSource

PLACE = Path(__file__).parent
SETTLED = 0.5  # seconds until what a key brings about is drawn


class Picture(NamedTuple):
    """The screen of ``size`` columns and rows after ``keys`` in a recording of ``demo``."""

    name: str
    demo: str
    size: tuple[int, int]
    keys: tuple[str, ...]


PICTURES = (
    Picture("screen", "hundred-chats", (200, 50), (":", *"goto 4", "enter", "enter")),
    Picture("why", "preemption-storm", (140, 44), ("right_square_bracket", "x")),
    Picture("tokens", "three-chats", (120, 30), ("L", "t", *"jjjj")),
    Picture("timeline", "preemption-storm", (120, 30), ("L", "7", "z")),
    Picture(
        "fork",
        "preemption-storm",
        (120, 46),
        ("right_square_bracket", "F", *"num_blocks=128", "enter", *"jjjjjjjjjjjjj"),
    ),
)


def record(demo: str, folder: Path) -> Path:
    """A recording of ``demo``, made unless it is there."""
    file = folder / f"{demo}.mtrace.gz"
    if not file.exists():
        main(["record", "--demo", demo, "-o", str(file)])
    return file


async def draw(picture: Picture, file: Path) -> str:
    """What is on the screen at last, as SVG."""
    app = DebuggerApp(RecordedSource(file))
    async with app.run_test(size=picture.size) as pilot:
        while app.main is None or not app.main.is_current:
            await pilot.pause(SETTLED)
        for key in picture.keys:
            await pilot.press(key)
            await pilot.pause(SETTLED)
            while isinstance(app.screen, ForkingScreen):
                await pilot.pause(SETTLED)
        return app.export_screenshot()


def make() -> None:
    with TemporaryDirectory() as folder:
        for picture in PICTURES:
            file = record(picture.demo, Path(folder))
            svg = asyncio.run(draw(picture, file))
            (PLACE / f"{picture.name}.svg").write_text(svg, encoding="utf-8")
            print(f"{picture.name}.svg: {picture.demo}, {len(svg) >> 10} kB")


if __name__ == "__main__":
    make()
