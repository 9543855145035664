"""The why pane: every decision as a sentence, the newest step first."""

from ..selection import Target
from ..stops import Hit
from ..store import StepNotes, Store
from ..text import Line, plural, wrap
from .base import View, heading


class WhyView(View):
    """Sentences are wrapped once for each width; only a step that got new ones is wrapped again."""

    name = "Why"
    about = "the scheduler's decisions in words, newest step first"
    newest_first = True

    def __init__(self) -> None:
        super().__init__()
        self._width = 0
        self._wrapped: dict[int, tuple[int, list[tuple[Line, Target | None]]]] = {}

    def update(self, store: Store, width: int, height: int) -> None:
        if width != self._width:
            self._width, self._wrapped = width, {}
        self._lines: list[tuple[Line, Target | None]] = []
        latest = store.history[0]
        if store.state.step and not latest.notes and not store.stops.hits(latest.step):
            quiet: Line = [("  nothing to decide, all running go on", "dim")]
            self._lines += [(heading(f"step {store.state.step}", width), None), (quiet, None)]
        for entry in store.history:
            if entry.notes or store.stops.hits(entry.step):
                self._lines.append((heading(f"step {entry.step}", width), None))
                self._lines += self._sentences(entry, store.stops.hits(entry.step))
        if len(self._wrapped) > 2 * len(store.history):
            kept = {entry.step for entry in store.history}
            self._wrapped = {k: v for k, v in self._wrapped.items() if k in kept}
        self.keys = [key for _, key in self._lines]
        self.subtitle = f"step {latest.step} · {plural(len(latest.notes), 'decision')}"

    def line(self, i: int) -> Line:
        return self._lines[i][0]

    def _sentences(self, entry: StepNotes, hits: list[Hit]) -> list[tuple[Line, Target | None]]:
        known = self._wrapped.get(entry.step)
        size = len(entry.notes) + len(hits)
        if known and known[0] == size:
            return known[1]
        lines: list[tuple[Line, Target | None]] = []
        for note in (*(hit.note for hit in hits), *entry.notes):
            target = Target("request", note.req) if note.req >= 0 else None
            for k, part in enumerate(wrap(note.sentence, self._width - 2)):
                lead = f"{note.glyph} " if k == 0 else "  "
                lines.append(([(lead, note.style), (part, "text")], target))
        self._wrapped[entry.step] = (size, lines)
        return lines
