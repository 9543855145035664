"""A recording at one position, or a server now, as plain text: the panes without a terminal.

The lines are the panes' own; only the block map is left at its counts. `as_json` has the state
itself and the step's events for programs.
"""

import asyncio
from math import inf
from pathlib import Path

import msgspec

from ..engine import positions
from ..engine.debugger import Mode
from ..engine.events import AnyEvent, Position
from ..engine.feed import Joining
from ..engine.snapshot import Snapshot
from ..engine.state import EngineState
from ..engine.trace import Header, pieces
from ..engine.trace_file import Trace
from .explain import explain
from .sources.base import Link, ModelInfo
from .sources.recorded import RecordedCodec, ready
from .sources.server import DebugServer
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
    return _text(
        store, position, [f"position {position} of {store.past.end}", *store.recording.notes]
    )


def server_as_text(url: str, api_key: str | None) -> str:
    """The panes as a running server would show them now. Raises `UserError` if it does not."""
    joining, server = _ask(url, api_key)
    header, model = joining.header, joining.header.model
    codec = RecordedCodec(header, dict(pieces(joining.vocab)))
    info = ModelInfo(model.name, model.architecture, model.dtype, model.device)
    store = Store(header.config, info, codec, start=EngineState.restore(joining.state))
    store.mode = Mode.PAUSED if joining.paused else Mode.PLAYING
    store.link = Link(server)
    return _text(store, store.position, [f"after record {joining.seq} of run {joining.epoch}"])


def server_as_json(url: str, api_key: str | None) -> str:
    """The state of a running server as a `Dump`."""
    joining, _ = _ask(url, api_key)
    dump = Dump(
        recording=joining.header,
        notes=[],
        position=str(joining.step),
        digest=EngineState.restore(joining.state).digest(),
        state=joining.state,
        events=[],
    )
    return msgspec.json.encode(dump).decode()


def _ask(url: str, api_key: str | None) -> tuple[Joining, str]:
    async def ask() -> tuple[Joining, str]:
        async with DebugServer(url, api_key) as server:
            return await server.state(), server.url

    return asyncio.run(ask())


def _text(store: Store, position: Position, notes: list[str]) -> str:
    lines = [plain(line) for line in status_lines(store, WIDTH)]
    lines += [f" {note}" for note in notes]
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
    store.reads = False  # panes of a position need no records before it
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
