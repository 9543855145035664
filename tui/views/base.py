"""The contract between a pane and what it shows, and the parts that tables share.

A view is asked for the lines that are visible and formats no others: a map of 10⁵ blocks costs what
the screen's rows cost.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from ...engine.events import Position
from ...engine.request import Status
from ...engine.snapshot import RequestState
from ..palette import STATUS_GLYPHS
from ..selection import Links, Target
from ..store import Store
from ..text import Line, pad, pad_left


class View:
    """One pane's content. ``update`` prepares; ``line`` formats body line ``i``.

    ``header`` and ``footer`` do not scroll. ``keys[i]`` is what body line ``i`` is about: None for
    a heading. ``per_line`` items share a body line (1, except in the block map).
    """

    name = ""
    about = ""
    newest_first = False  # new lines come in at the top, and a cursor that is there stays there
    is_of_requests = False  # every line is about one request as a whole
    marks = True  # lines are marked that are selected or linked to what is
    gutter = 2  # cells the pane keeps free for cursor and selection marks
    sideways_does = ""  # what left and right do here; empty if nothing
    scale_does = ""  # what + and - do here; empty if nothing
    busy = False  # there is more to find: ask for an update again soon

    def __init__(self) -> None:
        self.header: list[Line] = []
        self.footer: list[Line] = []
        self.keys: Sequence[Target | None] = []
        self.subtitle = ""
        self.per_line = 1
        self.cursor = 0  # set by the pane; for views that describe what is under it

    def update(self, store: Store, width: int, height: int) -> None:
        raise NotImplementedError

    def line(self, i: int) -> Line:
        raise NotImplementedError

    def first_linked(self, links: Links) -> int | None:
        """The first item that is linked to the selection."""
        keys = (self.target(i) for i in range(self.items))
        return next((i for i, key in enumerate(keys) if key and links.has(key)), None)

    @property
    def items(self) -> int:
        """What a cursor can be on."""
        return len(self.keys)

    @property
    def body_lines(self) -> int:
        return -(-self.items // self.per_line)

    def target(self, item: int) -> Target | None:
        return self.keys[item] if 0 <= item < len(self.keys) else None

    def place(self, item: int) -> Position | None:
        """Where in the run the item leads, if it is about one event."""
        return None

    def rests(self, item: int) -> bool:
        """Whether the cursor may stay on it: on all that is no heading."""
        return self.target(item) is not None

    def anchor(self, item: int) -> object:
        """What the cursor holds on to while lines come and go; `find` says where that is now."""
        return self.target(item)

    def find(self, anchor: object) -> int | None:
        keys: Sequence[object] = self.keys
        return keys.index(anchor) if anchor in keys else None

    def item_at(self, body_line: int, x: int) -> int:
        """The item drawn at column ``x`` (gutter included) of a body line."""
        return body_line

    def open(self, item: int) -> bool:
        """Enter on something that opens rather than being selected; false if it does not."""
        return False

    def sideways(self, item: int, by: int) -> int:
        """Left or right, with the cursor on ``item``: gives where the cursor is then."""
        return item + by

    def scale(self, item: int, by: int) -> int:
        """Closer (``by`` = 1) or farther (-1); gives where the cursor is then."""
        return item


class RequestLines(View):
    """A view of requests: ``ids[i]`` is the one that body line ``i`` is about, -1 for a heading."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[int] = []

    @property
    def items(self) -> int:
        return len(self.ids)

    def target(self, item: int) -> Target | None:
        if 0 <= item < len(self.ids) and self.ids[item] >= 0:
            return Target("request", self.ids[item])
        return None

    def find(self, anchor: object) -> int | None:
        if isinstance(anchor, Target) and anchor.id in self.ids:
            return self.ids.index(anchor.id)
        return None


class Column(NamedTuple):
    """A column of a table; ``right`` for numbers. ``short`` is its title and width where room is
    scarce."""

    title: str
    width: int
    short: tuple[str, int]
    right: bool = True


class Table:
    """Lays rows out in columns: two blanks apart, or one and narrower in the ``tight`` version."""

    def __init__(self, columns: Sequence[Column], tight: bool) -> None:
        gap = 1 if tight else 2
        self._columns = [
            (c.short if tight else (c.title, c.width), pad_left if c.right else pad)
            for c in columns
        ]
        self._gap = " " * gap
        self.widths = [width for (_, width), _ in self._columns]
        self.width = sum(self.widths) + gap * len(columns)
        self.head = self.row([(title, "heading") for (title, _), _ in self._columns])

    def row(self, cells: Sequence[tuple[str, str]]) -> Line:
        """A line of (text, style) cells; with fewer cells than columns, of the first columns."""
        return [
            (fit(text, width) + self._gap, style)
            for ((_, width), fit), (text, style) in zip(self._columns, cells, strict=False)
        ]

    def width_of(self, count: int) -> int:
        """Cells that the first ``count`` columns take."""
        return sum(self.widths[:count]) + len(self._gap) * count


def for_ids(columns: tuple[Column, ...], ids: Sequence[int]) -> tuple[Column, ...]:
    """``columns``, the first with room for the largest of ``ids``."""
    first, *rest = columns
    least = len(f"#{max(ids, default=0)}")
    title, short = first.short
    wide = first._replace(width=max(first.width, least), short=(title, max(short, least)))
    return (wide, *rest)


@lru_cache(maxsize=256)
def fit_table(columns: tuple[Column, ...], width: int, spare: int) -> Table:
    """The roomy table if it leaves ``spare`` cells of ``width``, else the tight one, less the
    last columns if even that is too wide."""
    roomy = Table(columns, tight=False)
    if roomy.width + spare <= width:
        return roomy
    while Table(columns, tight=True).width > width and len(columns) > 1:
        columns = columns[:-1]
    return Table(columns, tight=True)


def glyph_of(request: RequestState) -> tuple[str, str]:
    """Glyph and style of a request's status, or of how it ended."""
    key = request.finish_reason if request.status is Status.FINISHED else request.status
    return STATUS_GLYPHS.get(key, ("?", "dim"))


def heading(text: str, width: int) -> Line:
    """A rule with a word in it, between the parts of a list."""
    rest = "─" * max(0, width - len(text) - 4)
    return [("── ", "faint"), (text, "dim"), (" " + rest, "faint")]
