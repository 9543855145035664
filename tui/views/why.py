"""The why pane: every decision as a sentence, the newest step first."""

from bisect import bisect_right
from itertools import accumulate, takewhile

from ...engine.wording import plural
from ..selection import Target
from ..step_notes import StepNotes
from ..stops import Hit
from ..store import Store
from ..text import Line, wrap
from .base import View, heading

_Lines = list[tuple[Line, Target | None]]


class WhyView(View):
    """Sentences are wrapped once for each width, and again only those of the newest step."""

    name = "Why"
    about = "the scheduler's decisions in words, newest step first"
    newest_first = True

    def __init__(self) -> None:
        super().__init__()
        self._width = 0
        self._made_of: object = None
        self._upto = 0  # pages of steps before this one are as they will always be
        self._pages: list[tuple[int, _Lines]] = []  # step and lines, the newest step first
        self._ends: list[int] = []  # lines up to the end of each page

    def update(self, store: Store, width: int, height: int) -> None:
        history, latest, stops = store.history, store.history[0], store.stops
        made_of = (history, width, stops.fired)
        if made_of != self._made_of:
            self._made_of, self._width, self._pages = made_of, width, []
            self._upto = history[-1].step
        pages: list[tuple[int, _Lines]] = []
        step = store.state.step
        if step and not latest.notes and not stops.hits(latest.step):
            quiet: Line = [("  nothing to decide, all running go on", "dim")]
            pages.append((step, [(heading(f"step {step}", width), None), (quiet, None)]))
        for entry in takewhile(lambda entry: entry.step >= self._upto, history):
            hits = stops.hits(entry.step)
            if entry.notes or hits:
                pages.append((entry.step, self._page(entry, hits)))
        anew = sum(1 for _ in takewhile(lambda page: page[0] >= self._upto, self._pages))
        self._pages[:anew] = pages
        while self._pages and self._pages[-1][0] < history[-1].step:
            self._pages.pop()
        self._upto = latest.step
        self._ends = list(accumulate([len(lines) for _, lines in self._pages]))
        self.subtitle = f"step {latest.step} · {plural(len(latest.notes), 'decision')}"

    @property
    def items(self) -> int:
        return self._ends[-1] if self._ends else 0

    def target(self, item: int) -> Target | None:
        return self._at(item)[1] if 0 <= item < self.items else None

    def line(self, i: int) -> Line:
        return self._at(i)[0]

    def anchor(self, item: int) -> object:
        if not 0 <= item < self.items:
            return None
        page = bisect_right(self._ends, item)
        return self._pages[page][0], item - self._ends[page]  # counted from the page's end

    def find(self, anchor: object) -> int | None:
        for (step, lines), end in zip(self._pages, self._ends, strict=True):
            if isinstance(anchor, tuple) and anchor[0] == step and -anchor[1] <= len(lines):
                return end + anchor[1]
        return None

    def _at(self, item: int) -> tuple[Line, Target | None]:
        page = bisect_right(self._ends, item)
        return self._pages[page][1][item - self._ends[page]]

    def _page(self, entry: StepNotes, hits: list[Hit]) -> _Lines:
        """A heading and the sentences of a step."""
        lines: _Lines = [(heading(f"step {entry.step}", self._width), None)]
        for note in (*(hit.note for hit in hits), *entry.notes):
            target = Target("request", note.req) if note.req >= 0 else None
            for k, part in enumerate(wrap(note.sentence, self._width - 2)):
                lead = f"{note.glyph} " if k == 0 else "  "
                lines.append(([(lead, note.style), (part, "text")], target))
        return lines
