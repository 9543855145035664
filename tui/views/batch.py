"""The batch pane: who is in this step and with what, who waits and why."""

from collections.abc import Sequence

from ...engine import events as ev
from ...engine.request import Status
from ...engine.snapshot import RequestState, RowState
from ...engine.wording import plural
from ..explain import why_deferred
from ..store import Store
from ..text import Line, bar, cell_len, clip, pad
from .base import Column, RequestLines, fit_table, for_ids, glyph_of, heading

COLUMNS = (
    Column("req", 5, ("req", 4)),
    Column("phase", 11, ("phase", 9), right=False),
    Column("tokens", 6, ("tok", 4)),
    Column("positions", 11, ("positions", 9), right=False),
    Column("chunk", 5, ("chunk", 5)),
    Column("blocks", 6, ("blk", 4)),
    Column("cached", 6, ("hit", 4)),
)
_PHASE = len("↩ preempted")  # the longest phase of those that wait


class BatchView(RequestLines):
    name = "Batch"
    is_of_requests = True
    about = "the requests of this step, then those that wait, with the reason"

    def update(self, store: Store, width: int, height: int) -> None:
        self._store, self._width = store, width
        state = store.state
        self._over = store.past.ends_record(store.position)  # one looks at a whole step
        self._rows: Sequence[RowState] = state.rows
        self._deferred = next((n for n in state.notes if isinstance(n, ev.Deferred)), None)
        self._preempted = {n.req: n for n in state.notes if isinstance(n, ev.Preempted)}
        self._starved = {n.req: n for n in state.notes if isinstance(n, ev.Starved)}
        ids = [row.req for row in self._rows]
        batch = set(ids)
        idle = [r for r in state.running if r not in batch]
        self._headings: dict[int, str] = {}
        if idle:
            words = "not in this step" if self._over else "not scheduled yet"
            self._headings[len(ids)] = f"running, {words}: {len(idle)}"
            ids += [-1, *idle]
        if state.waiting:
            self._headings[len(ids)] = f"waiting: {len(state.waiting)}"
            ids += [-1, *state.waiting]
        self.ids = ids
        self._table = fit_table(for_ids(COLUMNS, ids), width, 10)
        prefills = state.prefills
        self._prefill = sum(row.count for row in prefills)
        self._decode = len(self._rows) - len(prefills)
        self.subtitle = f"{plural(self._decode, 'decode')} · {len(prefills)} prefill"
        self.header = [*self._budget(), [], self._table.head]
        if not ids:
            self.header = self._budget()

    # --- the budget ------------------------------------------------------------------------------

    def _budget(self) -> list[Line]:
        budget = self._store.config.max_batch_tokens
        if self._store.state.began is None:
            return [[("budget ", "dim"), (f"{budget} tokens a step", "text")]]
        decode, prefill = self._decode, self._prefill
        unused = budget - decode - prefill
        words: Line = [
            ("  decode ", "dim"),
            (str(decode), "decode"),
            ("  prefill ", "dim"),
            (str(prefill), "prefill"),
            ("  unused ", "dim"),
            (str(unused), "text"),
        ]
        lead = f"budget {budget} "
        room = self._width - len(lead) - sum(len(text) for text, _ in words)
        parts = ((decode, "█", "decode"), (prefill, "▓", "prefill"), (unused, "░", "faint"))
        first: Line = [(lead, "dim"), *bar(parts, max(0, min(60, room))), *words]
        return [first, *self._why_unused(unused)]

    def _why_unused(self, unused: int) -> list[Line]:
        deferred = self._deferred
        if deferred is None or not unused:
            return []
        why = why_deferred(deferred)
        if deferred.why == "no_blocks":
            blocks = plural(deferred.need, "block")
            why = f"nobody more could be admitted, #{deferred.req} waits for {blocks}"
        text = f"{unused} unused: {why}"
        return [[(clip(text, self._width), "warn")]]

    # --- the rows --------------------------------------------------------------------------------

    def line(self, i: int) -> Line:
        if i < len(self._rows):
            return self._batch_row(self._rows[i])
        if i in self._headings:
            return heading(self._headings[i], self._width)
        request = self._store.state.requests[self.ids[i]]
        if request.status in (Status.WAITING, Status.PREEMPTED):
            return self._waiting_row(request)
        starved = self._starved.get(request.id)
        why = f"got nothing: {starved.why.replace('_', ' ')}" if starved else ""
        return self._reason_row(request, request.status.value, why)

    def _batch_row(self, row: RowState) -> Line:
        request = self._store.state.requests.get(row.req)
        phase, style = ("decode", "decode") if row.decode else ("prefill", "prefill")
        glyph = "●" if row.decode else "◐"
        if request is not None and not request.live:
            glyph, style = glyph_of(request)
        last = row.start + row.count - 1
        cells = [
            (f"#{row.req}", "strong"),
            (f"{glyph} {phase}", style),
            (str(row.count), "text"),
            (str(last) if row.count == 1 else f"{row.start}–{last}", "text"),
            ("" if row.decode else f"{row.chunk}/{row.chunks}", "text"),
            (str(len(request.block_table)) if request and request.live else "–", "text"),
            (str(request.cached_tokens) if request else "–", "text"),
        ]
        line = self._table.row(cells)
        if request is not None:
            line += self._outcome(request, row)
        return line

    def _outcome(self, request: RequestState, row: RowState) -> Line:
        """The token that came of it, and how the request ended if it did."""
        line: Line = []
        room = self._width - self._table.width
        if len(request.tokens) == row.start + row.count + 1:
            token = clip(f"“{self._store.texts.token(request.tokens[-1])}”", room)
            line.append((token, "strong"))
            room -= cell_len(token)
        if not request.live:
            ended = f"  {request.finish_reason}"
            if len(ended) <= room:
                line.append((ended, glyph_of(request)[1]))
        return line

    def _waiting_row(self, request: RequestState) -> Line:
        return self._reason_row(request, request.status.value, self._reason(request))

    def _reason_row(self, request: RequestState, phase: str, reason: str) -> Line:
        glyph, style = glyph_of(request)
        return [
            *self._table.row([(f"#{request.id}", "dim")]),
            (pad(f"{glyph} {phase}", _PHASE) + "  ", style),
            (clip(reason, self._width - self._table.width_of(1) - _PHASE - 2), "dim"),
        ]

    def _reason(self, request: RequestState) -> str:
        deferred, preempted = self._deferred, self._preempted.get(request.id)
        if preempted:
            gave = f"gave its blocks to #{preempted.for_req}"
            if preempted.for_req == request.id:
                gave = "could get no block to go on"
            return f"{gave}, {plural(preempted.lost_tokens, 'token')} of KV let go"
        if deferred and deferred.req == request.id:
            return why_deferred(deferred)
        if deferred and request.submitted_step < self._store.state.step:
            return f"behind #{deferred.req}"
        known = plural(len(request.tokens), "token")
        return f"{known} to compute, not looked at yet"
