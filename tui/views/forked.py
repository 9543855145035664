"""A fork beside the run it was made from: the requests of both under each other, and figures."""

from collections.abc import Sequence

from ...engine.wording import plural
from ..fork_report import MOST, estimated, judged, most_changed, notes, request_lines, shown
from ..forking import Forked, Side
from ..selection import Target
from ..store import Store
from ..text import Line, pad, pad_left, wrap
from .base import View
from .timeline import LABEL, MOST_LEVELS, TimelineView, legend, painted

HINT = "enter all panes · tab other · esc"
_NAME, _CELL, _VERDICT = 29, 9, 14


class ForkTimelines(TimelineView):
    """Two lines a request, on the same steps: as it ran, and in the fork."""

    name = "Timelines"
    about = "every request as it ran, and below that in the fork"

    def __init__(self, start: int, sides: Sequence[Side]) -> None:
        super().__init__()
        self._start, self._sides = start, sides
        self._ids: list[int] = []
        self._fitted = False

    def update(self, store: Store, width: int, height: int) -> None:
        self._room = max(8, width - LABEL)
        self._now, self._last = self._start, max(side.last for side in self._sides)
        if not self._fitted:
            self._fit()
        self._lay_out(store)
        first, end = self._left << self.level, (self._left + self._room) << self.level
        lives = (side.spans.between(first, end - 1) for side in self._sides)
        self._ids = sorted({life.id for those in lives for life in those})
        self.subtitle = f"{plural(1 << self.level, 'step')} a column · {HINT}"
        self.header = self._ruler(("req", "of"))
        self.footer = [[], *legend(width)] if height >= 18 else []

    def _fit(self) -> None:
        """As close as shows both runs to their ends."""
        self._fitted = True
        while self.level < MOST_LEVELS and (
            self._columns(self._last + 1) - self._columns(self._start) >= self._room
        ):
            self.level += 1

    def _columns(self, step: int) -> int:
        return step >> self.level

    def _lay_out(self, store: Store) -> None:
        oldest, newest = self._columns(self._start), self._columns(self._last + 1)
        self._back = max(oldest - newest, min(self._back, 0))
        self._left = oldest - self._back

    @property
    def items(self) -> int:
        return len(self._sides) * len(self._ids)

    def target(self, item: int) -> Target | None:
        if not 0 <= item < self.items:
            return None
        return Target("request", self._ids[item // len(self._sides)])

    def find(self, anchor: object) -> int | None:
        if not isinstance(anchor, Target) or anchor.id not in self._ids:
            return None
        return self._ids.index(anchor.id) * len(self._sides)

    def anchor(self, item: int) -> object:
        """The line stays where it is: nothing moves here."""
        return None

    def line(self, i: int) -> Line:
        number, of = divmod(i, len(self._sides))
        side, id = self._sides[of], self._ids[number]
        head = "" if of else f"#{id}"
        lead: Line = [(f"{head:>6} ", "strong"), (f"{side.name:>5} ", "dim")]
        life = side.spans.of(id)
        return lead if life is None else [*lead, *painted(life, self._codes(life, side.last))]


class ForkFigures(View):
    """What both runs came to, the requests that change most, and what is estimated."""

    name = "Figures"
    about = "what both runs came to; ~ is estimated"
    marks = False

    def __init__(self, forked: Forked) -> None:
        super().__init__()
        self._fork = forked.fork
        self._lines: list[Line] = []

    def update(self, store: Store, width: int, height: int) -> None:
        fork = self._fork
        self.subtitle = HINT
        name = min(_NAME, width - 2 * _CELL - _VERDICT)
        self.header = [
            [(pad("", name) + pad_left("run", _CELL) + pad_left("fork", _CELL), "heading")]
        ]
        self._lines = []
        for a, b, verdict in judged(fork):
            told = " ".join(verdict.split())
            style = {"better": "good", "worse": "bad"}.get(told.rpartition(" ")[2], "dim")
            cells = pad_left(shown(a), _CELL) + pad_left(estimated(b, fork), _CELL)
            self._lines.append(
                [(pad(a.name, name), "text"), (cells, "strong"), (f"  {told}", style)]
            )
        changed = most_changed(fork.recorded, fork.figures)
        if changed:
            words = f"changed most, of {plural(len(changed), 'request')}"
            self._lines += [[], [(words, "heading")]]
            rows = [row for pair in changed[:MOST] for row in request_lines(pair, fork)]
            self._lines += [[(row, "text")] for row in rows]
        for note in notes(fork):
            self._lines += [[], *([(part, "dim")] for part in wrap(note, width))]

    @property
    def items(self) -> int:
        return len(self._lines)

    def rests(self, item: int) -> bool:
        return 0 <= item < self.items

    def line(self, i: int) -> Line:
        return self._lines[i]
