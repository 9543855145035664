"""The pictures in README: each a demo that is recorded, opened, and looked at by pressing keys, and
one of a server while clients ask it.

    .venv/bin/python -m minisgl_tui.demos.pictures        # all of them, beside this file

What the screens show is real, so times differ from one making to the next.
"""

import asyncio
import re
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from tempfile import TemporaryDirectory
from typing import NamedTuple

from ..tui.app import DebuggerApp
from ..tui.cli import main
from ..tui.screens.fork import ForkingScreen
from ..tui.sources.base import Source
from ..tui.sources.http import HttpSource
from ..tui.sources.recorded import RecordedSource

PLACE = Path(__file__).parent
PROGRAM = Path(sys.executable).with_name("minisgl-tui")
SETTLED = 0.5  # seconds until what a key brings about is drawn
UNDER_WAY = 8.0  # until a server has something to show


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


@contextmanager
def server(demo: str) -> Iterator[str]:
    """One that has twelve of the prompts of ``demo`` in work while the others wait, at its URL."""
    sizes = ("--max-running-requests", "12", "--num-blocks", "600")
    serve = (PROGRAM, "serve", "--port", "0", "--debug", *sizes)
    with Popen(serve, stdout=PIPE, stderr=DEVNULL, text=True) as running:
        assert running.stdout is not None
        try:
            urls = (re.search(r" at (http://\S+)/v1", line) for line in running.stdout)
            url = next(found[1] for found in urls if found)
            ask = ("--concurrency", "40", "--repeats", "1", "--tokenizer", "smollm2-135m")
            workload = ("--workload", PLACE / f"{demo}.toml")
            bench = (PROGRAM, "bench", "--url", url, *workload, *ask)
            with Popen(bench, stdout=DEVNULL, stderr=DEVNULL) as clients:
                try:
                    yield url
                finally:
                    clients.terminate()
        finally:
            running.terminate()


async def draw(
    source: Source, size: tuple[int, int], keys: tuple[str, ...] = (), wait: float = 0
) -> str:
    """What is on the screen after ``wait`` seconds and ``keys``, as SVG."""
    app = DebuggerApp(source)
    async with app.run_test(size=size) as pilot:
        while app.main is None or not app.main.is_current:
            await pilot.pause(SETTLED)
        await pilot.pause(wait)
        for key in keys:
            await pilot.press(key)
            await pilot.pause(SETTLED)
            while isinstance(app.screen, ForkingScreen):
                await pilot.pause(SETTLED)
        return app.export_screenshot()


def keep(name: str, drawing: Coroutine[None, None, str]) -> None:
    svg = asyncio.run(drawing)
    (PLACE / f"{name}.svg").write_text(svg, encoding="utf-8")
    print(f"{name}.svg: {len(svg) >> 10} kB")


def make() -> None:
    with TemporaryDirectory() as folder:
        for picture in PICTURES:
            file = record(picture.demo, Path(folder))
            keep(picture.name, draw(RecordedSource(file), picture.size, picture.keys))
    with server("hundred-chats") as url:
        keep("attach", draw(HttpSource(url), (200, 50), wait=UNDER_WAY))


if __name__ == "__main__":
    make()
