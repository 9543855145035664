"""The requests pane: a line a request; the selected one unfolds to its whole prompt and answer."""

from ...engine.snapshot import RequestState
from ..store import Store
from ..text import Line, clip, clip_left, plural, visible, wrap
from .base import Column, RequestLines, fit_table, glyph_of

COLUMNS = (
    Column("req", 5, ("req", 4)),
    Column("status", 12, ("status", 12), right=False),
    Column("prompt", 6, ("prompt", 6)),
    Column("cached", 6, ("hit", 4)),
    Column("output", 9, ("output", 7)),
    Column("pre", 3, ("pre", 3)),
)


class RequestsView(RequestLines):
    name = "Requests"
    is_of_requests = True
    about = "all requests: running, waiting, then the finished ones, latest first"

    def update(self, store: Store, width: int, height: int) -> None:
        self._store, self._width = store, width
        self._table = fit_table(COLUMNS, width, 20)
        state = store.state
        ids = [*state.running, *state.waiting, *reversed(state.finished)]
        self._unfolded: list[Line] = []
        self._at = len(ids)
        selected = store.selected
        if selected and selected.kind == "request" and selected.id in state.requests:
            self._at = ids.index(selected.id) + 1
            self._unfolded = self._unfold(state.requests[selected.id])
            ids[self._at : self._at] = [selected.id] * len(self._unfolded)
        self.ids = ids
        parts = (("run", state.running), ("wait", state.waiting), ("done", state.finished))
        self.subtitle = " · ".join(f"{len(ids)} {word}" for word, ids in parts)
        self.header = (
            [[*self._table.head, (clip("text", width - self._table.width), "heading")]]
            if ids
            else [[("no request yet: press i to send a prompt", "dim")]]
        )

    def line(self, i: int) -> Line:
        if self._at <= i < self._at + len(self._unfolded):
            return self._unfolded[i - self._at]
        return self._row(self._store.state.requests[self.ids[i]])

    def _row(self, request: RequestState) -> Line:
        glyph, style = glyph_of(request)
        output = len(request.tokens) - request.prompt_len
        body = "text" if request.live else "dim"
        cells = [
            (f"#{request.id}", "strong" if request.live else "dim"),
            (f"{glyph} {request.finish_reason or request.status.value}", style),
            (str(request.prompt_len), body),
            (str(request.cached_tokens), body),
            (f"{output}/{request.params.max_tokens}", body),
            (str(request.preemptions) if request.preemptions else "", "bad"),
        ]
        return [*self._table.row(cells), self._gist(request)]

    def _gist(self, request: RequestState) -> tuple[str, str]:
        """The end of the answer; before there is one, the end of the question."""
        room = self._width - self._table.width
        if request.message:
            return clip(visible(request.message), room), "bad"
        answer = self._store.texts.answer(request)
        if answer:
            tail = visible(answer[-2 * room :]) if room > 0 else ""
            whole = len(answer) <= len(tail)
            shown = clip_left(tail, room) if whole else clip_left("…" + tail, room)
            return shown, "text" if request.live else "dim"
        question = visible(self._store.texts.question(request).strip()[-4 * max(1, room) :])
        return clip_left("“" + question + "”", room), "dim"

    def _unfold(self, request: RequestState) -> list[Line]:
        """Prompt and answer in full, wrapped, behind a rule."""
        texts, width = self._store.texts, self._width - 4
        given = request.tokens[request.prompt_len :]
        parts = (
            (plural(request.prompt_len, "prompt token"), texts.prompt(request), "dim"),
            (plural(len(given), "output token"), texts.answer(request), "text"),
            ("why it ended", request.message, "bad"),
        )
        lines: list[Line] = []
        for title, text, style in parts:
            if text:
                lines.append([("  ┌ ", "faint"), (title, "heading")])
                lines += [[("  │ ", "faint"), (part, style)] for part in wrap(text, width)]
        if lines:
            lines.append([("  └", "faint")])
        return lines
