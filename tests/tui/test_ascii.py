"""Drawing with ASCII alone: nothing of ours is left out, states stay apart, texts are escaped."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from minisgl_tui.tui import cells, stops, text
from minisgl_tui.tui.ascii import STAND_INS, to_ascii
from minisgl_tui.tui.changes import CHANGES
from minisgl_tui.tui.explain import NOTES
from minisgl_tui.tui.palette import STATUS_GLYPHS
from minisgl_tui.tui.views.timeline import LEGEND
from rich.cells import cell_len

from .pilot import MEDIUM, NARROW, TINY, WIDE, running
from .toy import make_source

TUI = Path(__file__).parents[2] / "tui"


@pytest.fixture(autouse=True)
def escapes_end() -> Iterator[None]:
    yield
    text.escape_texts(False)


def _strings(path: Path) -> Iterator[str]:
    """The texts in a source file, without its docstrings."""
    tree = ast.parse(path.read_text())
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


def test_every_glyph_in_the_sources_of_the_screens_has_a_stand_in() -> None:
    paths = [path for path in TUI.rglob("*.py") if path.name != "ascii.py"]
    used = {char for path in paths for part in _strings(path) for char in part}
    assert {char for char in used if not char.isascii()} <= STAND_INS.keys()


def test_stand_ins_are_as_wide_as_what_they_stand_for() -> None:
    for glyph, stand_in in STAND_INS.items():
        assert len(stand_in) == 1 == cell_len(glyph) and stand_in.isascii(), glyph
    assert to_ascii("漢é") == "???"


@pytest.mark.parametrize(
    "family",
    [
        cells.GLYPHS,
        [glyph for glyph, _ in dict(STATUS_GLYPHS).values()],
        [*{glyph for glyph, *_ in NOTES.values()}, stops.GLYPH, stops.LOGGED],
        [*{glyph for glyph, *_ in CHANGES.values()}],
        [glyph for _, glyph, _, _ in LEGEND],
    ],
    ids=["blocks", "requests", "decisions", "changes", "timeline"],
)
def test_states_that_a_glyph_tells_apart_stay_apart(family: list[str]) -> None:
    assert len({to_ascii(glyph) for glyph in family}) == len(set(family))


def test_the_punctuation_of_our_sentences_is_kept_where_they_are_wrapped() -> None:
    text.escape_texts(True)
    (line,) = text.wrap("after “é█” – that is → here", 80)
    assert to_ascii(line) == 'after "\\xe9\\u2588" - that is > here'


def test_a_bound_stays_a_bound() -> None:
    assert to_ascii("entropy ≥ 1.25 bits") == "entropy >=1.25 bits"


@pytest.mark.parametrize("size", [TINY, NARROW, MEDIUM, WIDE])
async def test_no_cell_is_beyond_ascii_and_texts_are_escaped(size: tuple[int, int]) -> None:
    source = make_source(questions=("Où est la 漢字?", "Second"))
    async with running(size, source) as on:
        await on.until(lambda: bool(on.store.state.waiting))
        on.app.set_ascii(True)
        await on.step(5)
        overlays = ("question_mark", "colon", "B", "ctrl+o", "t")
        for key in (*"123456789", "4", "enter", *(k for o in overlays for k in (o, "escape"))):
            await on.press(key)
            assert on.text().isascii(), [c for c in on.text() if not c.isascii()]
        await on.press("4", "z")
        assert size == TINY or "O\\xf9 est la \\u6f22\\u5b57?" in on.text().replace("\n", "")
        on.app.set_ascii(False)
        await on.until(lambda: size == TINY or "漢字" in on.text())
        assert not on.text().isascii()


async def test_it_can_be_set_from_the_command_line() -> None:
    async with running(NARROW) as on:
        await on.press("colon", *"set ascii on", "enter")
        await on.pilot.pause()
        assert on.app.ascii and on.text().isascii()
        await on.press("colon", *"set ascii", "enter")
        assert "there is: set ascii on, set ascii off" in on.text()
