"""`LineWidget`: a widget of styled lines, drawn and repainted where they have changed.

Textual draws the frame, out of the style sheet. It would ask the style sheet about every line, too;
what is within the frame takes its looks from the palette alone, so the lines are put between the
frame's sides here, once for each change.
"""

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, Self

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget

from ..ascii import AsciiFilter
from ..palette import StyleTable, style_table
from ..text import cell_len, set_cell_size

Run = tuple[str, str, str]  # text, style, ground
Row = tuple[Run, ...]


class LineWidget(Widget):
    """A widget of styled lines that repaints only those that changed."""

    def __init__(self, **options: str | None) -> None:
        self._drawn: dict[int, Strip] = {}  # the frame and what is in it, by y
        self._sides: tuple[list[Segment], list[Segment]] | None = None  # of the frame
        self._size_drawn = Size(0, 0)
        super().__init__(**options)  # pyright: ignore[reportArgumentType]
        self._rows: list[Row] = []
        self._table: StyleTable = {}
        self._looks: dict[tuple[str, str], Style | None] = {}  # as they come out on the screen

    def rows(self, width: int, height: int) -> list[Row]:
        """The ``height`` lines to show now. For subclasses to fill."""
        raise NotImplementedError

    def sync(self) -> None:
        """Work out what to show, and repaint where that is new."""
        if not self.display:
            return
        gutter, outer = self.styles.gutter, self.outer_size
        width, height = outer.width - gutter.width, outer.height - gutter.height
        if width <= 0 or height <= 0:
            return
        rows = self.rows(width, height)
        before, self._rows = self._rows, rows
        if len(before) != len(rows):
            self.refresh()
            return
        dirty = [y for y in range(len(rows)) if rows[y] != before[y]]
        if dirty:
            # With the frame's sides: to leave them out, Textual would have to cut every line.
            bands = _bands(dirty)
            self.refresh(*(Region(-gutter.left, y, outer.width, high) for y, high in bands))

    def forget(self) -> None:
        """Paint every line anew when next drawn: something about all of them has changed."""
        self._rows = []

    def refresh(self, *regions: Region, **what: Any) -> Self:
        """Draw ``regions`` of the lines anew, or the whole widget."""
        if regions:
            top = self.styles.gutter.top
            for region in regions:
                for y in region.line_range:
                    self._drawn.pop(top + y, None)
        else:
            self._redraw()
        return super().refresh(*regions, **what)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._table, self._looks = {}, {}
        self._redraw()

    def on_resize(self) -> None:
        self._rows = []
        self.sync()

    # --- drawing ---------------------------------------------------------------------------------

    def render_lines(self, crop: Region) -> list[Strip]:
        if self._size_drawn != self.outer_size:
            self._size_drawn = self.outer_size
            self._redraw()
        width = self._size_drawn.width
        missing = [y for y in crop.line_range if y not in self._drawn]
        if missing:
            self._draw(missing)
        strips = [self._drawn[y] for y in crop.line_range]
        if crop.column_span != (0, width):
            strips = [strip.crop(*crop.column_span) for strip in strips]
        return strips

    def render_line(self, y: int) -> Strip:
        width = self.content_size.width
        return Strip(self._segments(y, width), width)

    def _redraw(self) -> None:
        """Draw everything anew when it is next painted."""
        self._drawn.clear()
        self._sides = None

    def _draw(self, missing: list[int]) -> None:
        """Draw those of the lines, counted from the top of the frame."""
        gutter, (width, height) = self.styles.gutter, self._size_drawn
        inside = range(gutter.top, height - gutter.bottom)
        of_texts = [one for one in self.get_line_filters() if isinstance(one, AsciiFilter)]
        for y in missing:
            if y not in inside:
                self._drawn[y] = self._framed(y)
                continue
            segments = self._segments(y - gutter.top, width - gutter.width)
            for filter in of_texts:
                segments = filter.apply(segments, self.background_colors[1])
            if gutter.width:
                left, right = self._sides = self._sides or self._find_sides(y)
                segments = [*left, *segments, *right]
            self._drawn[y] = Strip(segments, width)

    def _framed(self, y: int) -> Strip:
        """As Textual draws it."""
        return super().render_lines(Region(0, y, self._size_drawn.width, 1))[0]

    def _find_sides(self, y: int) -> tuple[list[Segment], list[Segment]]:
        """What is to the left and to the right of a line in the frame: of any line, as of ``y``."""
        gutter, strip = self.styles.gutter, self._framed(y)
        end = self._size_drawn.width - gutter.right
        return list(strip.crop(0, gutter.left)), list(strip.crop(end))

    def _segments(self, y: int, width: int) -> list[Segment]:
        """Row ``y`` in exactly ``width`` cells, neighbours that look alike in one piece."""
        row = self._rows[y] if y < len(self._rows) else ()
        used = 0
        segments: list[Segment] = []
        ground = ""
        for look, runs in groupby(row, _LOOK):
            text = "".join(map(_TEXT, runs))
            ground = look[1]
            cells = cell_len(text)
            if used + cells > width:
                text = set_cell_size(text, width - used)
                cells = width - used
            segments.append(self._segment(text, look))
            used += cells
            if used >= width:
                break
        if used < width:
            # The ground of a marked row reaches to the end of the line; that of a cell does not.
            look = ("text", ground if ground in ("cursor", "linked") else "")
            segments.append(self._segment(" " * (width - used), look))
        return segments

    def _segment(self, text: str, look: tuple[str, str]) -> Segment:
        """``text`` in the style that the filters make of ``look``: each is asked for once."""
        style = self._looks.get(look)
        if style is None:
            style = self._looks[look] = self._look(look)
        return Segment(text, style)

    def _look(self, look: tuple[str, str]) -> Style | None:
        self._table = self._table or style_table(self.app.current_theme)
        segments = [Segment(" ", self.rich_style + self._table[look])]
        for filter in self.get_line_filters():
            segments = filter.apply(segments, self.background_colors[1])
        return segments[0].style


_TEXT, _LOOK = itemgetter(0), itemgetter(1, 2)


def _bands(lines: list[int]) -> Iterator[tuple[int, int]]:
    """Lines next to each other in one: the first, and how many.

    >>> list(_bands([2, 3, 4, 7]))
    [(2, 3), (7, 1)]
    """
    first = 0
    for end in range(1, len(lines) + 1):
        if end == len(lines) or lines[end] != lines[end - 1] + 1:
            yield lines[first], end - first
            first = end
