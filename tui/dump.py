"""A recording at one position, as plain text: what the panes show, without a terminal.

The lines are the panes' own; only the block map is left at its counts. `as_json` has the state
itself and the step's events for programs.
"""

from math import inf
from pathlib import Path

import msgspec

from ..engine import positions
from ..engine.events import AnyEvent, Position
from ..engine.snapshot import Snapshot
from ..engine.trace import Header
from ..engine.trace_file import Trace
from .explain import explain
from .sources.recorded import ready
from .store import Store
from .text import Line, plain
from .views.base import View
from .views.batch import BatchView
from .views.blocks import BlocksView
from .views.requests import RequestsView
from .views.status import status_lines, step_summary
from .views.tree import TreeView
from .views.why import WhyView

WIDTH = 120


class DumpedEvent(msgspec.Struct):
    """An event of the step, and the sentence that the screens have for it, if any."""

    position: str
    event: AnyEvent
    sentence: str = ""


class Dump(msgspec.Struct):
    """``events`` are those of the step, up to ``position``."""

    recording: Header
    notes: list[str]
    position: str
    digest: str
    state: Snapshot
    events: list[DumpedEvent]


def as_text(path: Path, at: str) -> str:
    """The panes at position ``at``. Raises `UserError` for what cannot be read or is not there."""
    store, position = _open(path, at)
    assert store.recording
    lines = [plain(line) for line in status_lines(store, WIDTH)]
    lines += [
        f" position {position} of {store.past.end}",
        *(f" {n}" for n in store.recording.notes),
    ]
    lines += [f" {summary}"] if (summary := step_summary(store)) else []
    store.history = type(store.history)(e for e in store.history if e.step == position.step)
    for view in (BatchView(), WhyView(), RequestsView(inf), TreeView(), BlocksView()):
        lines += ["", *_pane(view, store)]
    return "\n".join(line.rstrip() for line in lines)


def as_json(path: Path, at: str) -> str:
    """The state and the step's events at position ``at``, as one `Dump`."""
    trace = Trace.open(path)
    history = trace.history
    position = positions.parse(at, history)
    state = history.state_at(position)
    events: list[DumpedEvent] = []
    first = history.records_until(history.step_before(position) or history.start)
    for record in history.records(first, history.records_until(position)):
        for index, event in enumerate(record.events):
            if record.position(index) <= position:
                note = explain(event)
                where = str(record.position(index))
                events.append(DumpedEvent(where, event, note.sentence if note else ""))
    dump = Dump(
        recording=trace.header,
        notes=[trace.cut] if trace.cut else [],
        position=str(position),
        digest=state.digest(),
        state=state.snapshot(),
        events=events,
    )
    return msgspec.json.encode(dump).decode()


def _open(path: Path, at: str) -> tuple[Store, Position]:
    message = ready(Trace.open(path))
    assert message.recording
    store = Store(message.config, message.info, message.codec, message.recording)
    position = positions.parse(at, store.past)
    store.look_at(position)
    return store, position


def _pane(view: View, store: Store) -> list[str]:
    view.update(store, WIDTH - 2, 10_000)
    title = f"── {view.name} ── {view.subtitle} "
    lines: list[Line] = [*view.header]
    if not isinstance(view, BlocksView):
        lines += [view.line(i) for i in range(view.body_lines)]
    return [title + "─" * max(0, WIDTH - len(title)), *(f" {plain(line)}" for line in lines)]
