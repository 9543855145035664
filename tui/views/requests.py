"""The requests pane: a line a request; the selected one unfolds to its whole prompt and answer.

One that has ended stays for some seconds, dimmed, with how it ended. Then it is folded away with
all that ended earlier, as long as others are alive or a server is watched.
"""

from itertools import takewhile

from ...engine.snapshot import RequestState
from ...engine.wording import plural
from ..actions import key
from ..store import Store
from ..text import Line, clip, clip_left, visible, wrap
from .base import Column, RequestLines, fit_table, for_ids, glyph_of

STAY = 6.0  # seconds, as in tokio-console
_FOLD = -2  # the id of the line of those that are folded away
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
    about = "all requests: running, waiting, then those that ended lately, the latest first"

    def __init__(self, stay: float = STAY) -> None:
        super().__init__()
        self._stay = stay
        self._all = False  # list those, too, that ended earlier

    def update(self, store: Store, width: int, height: int) -> None:
        self._store, self._width = store, width
        state = store.state
        lately, earlier = self._ended(store)
        self._earlier = len(earlier)
        every = (*state.running, *state.waiting, *state.finished)
        self._table = fit_table(for_ids(COLUMNS, every), width, 20)
        ids = [*state.running, *state.waiting, *lately]
        if earlier:
            ids += [_FOLD, *(earlier if self._all else ())]
        self._unfolded: list[Line] = []
        self._at = len(ids)
        selected = store.selected
        if selected and selected.kind == "request" and selected.id in state.requests:
            if selected.id not in ids:
                ids.append(selected.id)
            self._at = ids.index(selected.id) + 1
            self._unfolded = self._unfold(state.requests[selected.id])
            ids[self._at : self._at] = [selected.id] * len(self._unfolded)
        self.ids = ids
        parts = (("run", state.running), ("wait", state.waiting), ("done", state.finished))
        self.subtitle = " · ".join(f"{len(those)} {word}" for word, those in parts)
        self.header = (
            [[*self._table.head, (clip("text", width - self._table.width), "heading")]]
            if ids
            else [[(f"no request yet{'' if store.link else ': press i to send a prompt'}", "dim")]]
        )

    def _ended(self, store: Store) -> tuple[list[int], list[int]]:
        """Those that ended lately, and those that are folded away; the latest first."""
        ended = store.state.finished[::-1]
        if not (store.live or store.link):
            return ended, []
        since, requests = store.clock - self._stay, store.state.requests
        lately = list(takewhile(lambda id: (requests[id].finished_at or 0) >= since, ended))
        return lately, ended[len(lately) :]

    def rests(self, item: int) -> bool:
        return super().rests(item) or self._folds(item)

    def open(self, item: int) -> bool:
        if not self._folds(item):
            return False
        self._all = not self._all
        return True

    def _folds(self, item: int) -> bool:
        return 0 <= item < self.items and self.ids[item] == _FOLD

    def line(self, i: int) -> Line:
        if self._at <= i < self._at + len(self._unfolded):
            return self._unfolded[i - self._at]
        if self._folds(i):
            words = f"{self._earlier:,} ended earlier: {key('select')} "
            words += "hides them" if self._all else "lists them"
            return [(clip(words, self._width), "dim")]
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
            ("its name", visible(request.name), "dim"),
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
