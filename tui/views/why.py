"""The why pane: every decision as a sentence, the newest step first."""

from bisect import bisect_right
from itertools import accumulate

from ..selection import Target
from ..step_notes import StepNotes
from ..stops import Hit
from ..store import Store
from ..text import Line, plural, wrap
from .base import View, heading

_Lines = list[tuple[Line, Target | None]]


class WhyView(View):
    """Sentences are wrapped once for each width; only a step that got new ones is wrapped again."""

    name = "Why"
    about = "the scheduler's decisions in words, newest step first"
    newest_first = True

    def __init__(self) -> None:
        super().__init__()
        self._width = 0
        self._wrapped: dict[int, tuple[int, _Lines]] = {}
        self._pages: list[tuple[int, _Lines]] = []  # step and lines, the newest step first
        self._ends: list[int] = []  # lines up to the end of each page

    def update(self, store: Store, width: int, height: int) -> None:
        if width != self._width:
            self._width, self._wrapped = width, {}
        self._pages = []
        latest = store.history[0]
        if store.state.step and not latest.notes and not store.stops.hits(latest.step):
            quiet: Line = [("  nothing to decide, all running go on", "dim")]
            step = store.state.step
            self._pages.append((step, [(heading(f"step {step}", width), None), (quiet, None)]))
        for entry in store.history:
            hits = store.stops.hits(entry.step)
            if entry.notes or hits:
                self._pages.append((entry.step, self._page(entry, hits)))
        self._ends = list(accumulate(len(lines) for _, lines in self._pages))
        if len(self._wrapped) > 2 * len(store.history):
            kept = {entry.step for entry in store.history}
            self._wrapped = {k: v for k, v in self._wrapped.items() if k in kept}
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
        known = self._wrapped.get(entry.step)
        size = len(entry.notes) + len(hits)
        if known and known[0] == size:
            return known[1]
        lines: _Lines = [(heading(f"step {entry.step}", self._width), None)]
        for note in (*(hit.note for hit in hits), *entry.notes):
            target = Target("request", note.req) if note.req >= 0 else None
            for k, part in enumerate(wrap(note.sentence, self._width - 2)):
                lead = f"{note.glyph} " if k == 0 else "  "
                lines.append(([(lead, note.style), (part, "text")], target))
        self._wrapped[entry.step] = (size, lines)
        return lines
