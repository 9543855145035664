"""A recording as a trace for https://ui.perfetto.dev, in the JSON format that Chrome writes.

One process holds a track of steps with their phases inside, and the counters; another one a track a
request: queued, each chunk of its prefill, decode, preempted. Arrows lead from a request that gave
its blocks back to the one that needed them, and from a step's evictions to whom they made room.

Format: "Trace Event Format", documented with Perfetto; the kinds of event used here are M (names),
X (slices), C (counters), i (instants), s and f (arrows). Times are in microseconds from the moment
the recording began.
"""

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any, BinaryIO

import msgspec

from . import events as ev
from .history import History
from .state import EngineState
from .trace import Header

TraceEvent = dict[str, Any]

ENGINE, REQUESTS = 1, 2  # processes
STEPS = 1  # the engine's thread; a request's is its id + 1


def write(header: Header, history: History, out: BinaryIO) -> int:
    """Write all of ``history`` to ``out``; the number of trace events."""
    about = {"model": header.model.name, "epoch": header.epoch, "program": header.program}
    out.write(b'{"displayTimeUnit":"ms","otherData":%b,"traceEvents":[\n' % _encode(about))
    written = 0
    for event in trace_events(header, history):
        out.write((b",\n" if written else b"") + _encode(event))
        written += 1
    out.write(b"\n]}\n")
    return written


def trace_events(header: Header, history: History) -> Iterator[TraceEvent]:
    """The trace events of ``history``, in the order of its records."""
    yield _name("process_name", ENGINE, 0, "engine")
    yield _name("thread_name", ENGINE, STEPS, "steps")
    yield _name("process_name", REQUESTS, 0, "requests")
    state = history.state_at(history.start)
    tracks = _Tracks(header.clock)
    tracks.resume(state)
    for record in history.records():
        state.apply(record)
        yield from tracks.take(record)
        yield from _counters(tracks.at(state.now), state)
    yield from tracks.leave_off(state.now)


def _counters(at: float, state: EngineState) -> Iterator[TraceEvent]:
    free, evictable = state.free, state.evictable
    used = state.config.num_blocks - free - evictable
    values = {"used": used, "cached": evictable, "free": free}
    yield {"ph": "C", "pid": ENGINE, "ts": at, "name": "KV blocks", "args": values}
    queues = {"running": len(state.running), "waiting": len(state.waiting)}
    yield {"ph": "C", "pid": ENGINE, "ts": at, "name": "requests", "args": queues}


class _Open:
    """A slice of a request's track that goes on."""

    __slots__ = ("args", "name", "since")

    def __init__(self, name: str, since: float, **args: Any) -> None:
        self.name = name
        self.since = since
        self.args = args


class _Tracks:
    """The slices of steps and requests, from records in order."""

    def __init__(self, zero: float) -> None:
        self._zero = zero
        self._open: dict[int, _Open] = {}
        self._known: set[int] = set()
        self._arrows = count(1)

    def at(self, t: float) -> float:
        """The engine's time ``t`` in microseconds of the trace, to the nanosecond."""
        return round((t - self._zero) * 1e6, 3)

    def resume(self, state: EngineState) -> None:
        """Begin under way, with the requests that live in ``state``."""
        for req in state.waiting:
            self._open[req] = _Open("queued", self.at(state.now))

    def take(self, record: ev.StepRecord) -> Iterator[TraceEvent]:
        begin, end = self.at(record.t), self.at(record.t + record.seconds)
        busy: set[int] = set()  # who has a slice all through this step
        arrows: list[tuple[str, int, int, int]] = []  # name, process, thread, to which request
        scheduled: dict[str, int] = {"decode": 0, "prefill": 0}
        for event in record.events:
            if isinstance(event, ev.Submitted):
                yield from self._introduce(event.req)
                self._open[event.req] = _Open("queued", begin, prompt=len(event.prompt))
            elif isinstance(event, ev.Admitted):
                yield from self._close(event.req, begin, cached_tokens=event.cached_tokens)
            elif isinstance(event, ev.Scheduled):
                yield from self._introduce(event.req)
                scheduled["prefill"] += event.count
                busy.add(event.req)
                name = f"prefill {event.chunk}/{event.chunks}"
                args = {"step": record.step, "start": event.start, "tokens": event.count}
                yield self._slice(REQUESTS, event.req + 1, name, begin, end, args)
            elif isinstance(event, ev.Decoding):
                scheduled["decode"] += len(event.reqs)
                busy.update(event.reqs)
                for req in event.reqs:
                    if req not in self._open:
                        yield from self._introduce(req)
                        self._open[req] = _Open("decode", begin, first_step=record.step)
            elif isinstance(event, ev.Preempted):
                yield from self._close(event.req, begin)
                self._open[event.req] = _Open("preempted", begin, lost_tokens=event.lost_tokens)
                if event.for_req != event.req:
                    arrows.append(("preemption", REQUESTS, event.req + 1, event.for_req))
            elif isinstance(event, ev.Evicted):
                yield _instant(ENGINE, STEPS, begin, f"evicted {len(event.blocks)}", event)
                if event.for_req >= 0:
                    arrows.append(("eviction", ENGINE, STEPS, event.for_req))
            elif isinstance(event, ev.Finished):
                yield from self._close(event.req, end)
                yield from self._introduce(event.req)
                yield _instant(REQUESTS, event.req + 1, end, event.reason, event)
            elif isinstance(event, ev.StepFailed):
                yield _instant(ENGINE, STEPS, end, "step failed", event)
        if any(isinstance(event, ev.StepBegan) for event in record.events):
            yield from self._step(record, begin, end, scheduled)
            yield from self._draw(arrows, busy, begin, end)

    def leave_off(self, now: float) -> Iterator[TraceEvent]:
        """The slices that were still going on when the recording ended."""
        for req in list(self._open):
            yield from self._close(req, self.at(now), unfinished=True)

    def _step(
        self, record: ev.StepRecord, begin: float, end: float, scheduled: dict[str, int]
    ) -> Iterator[TraceEvent]:
        args = {"step": record.step, **scheduled}
        yield self._slice(ENGINE, STEPS, f"step {record.step}", begin, end, args)
        at = record.t
        for phase in ev.PHASES:
            if seconds := record.timings.get(phase):
                until = min(end, self.at(at + seconds))
                yield self._slice(ENGINE, STEPS, phase, min(self.at(at), until), until, {})
                at += seconds

    def _draw(
        self,
        arrows: Iterable[tuple[str, int, int, int]],
        busy: set[int],
        begin: float,
        end: float,
    ) -> Iterator[TraceEvent]:
        """Arrows within this step, to those requests that have a slice for them to end at."""
        at = round((begin + end) / 2, 3)
        for name, process, thread, req in arrows:
            if req not in busy:
                continue
            arrow = {"cat": name, "name": name, "id": next(self._arrows), "ts": at}
            yield {"ph": "s", "pid": process, "tid": thread, **arrow}
            yield {"ph": "f", "bp": "e", "pid": REQUESTS, "tid": req + 1, **arrow}

    def _introduce(self, req: int) -> Iterator[TraceEvent]:
        if req not in self._known:
            self._known.add(req)
            yield _name("thread_name", REQUESTS, req + 1, f"#{req}")

    def _close(self, req: int, at: float, **args: Any) -> Iterator[TraceEvent]:
        found = self._open.pop(req, None)
        if found is not None:
            yield from self._introduce(req)
            yield self._slice(
                REQUESTS, req + 1, found.name, found.since, at, {**found.args, **args}
            )

    def _slice(
        self, process: int, thread: int, name: str, begin: float, end: float, args: dict[str, Any]
    ) -> TraceEvent:
        duration = round(max(0.0, end - begin), 3)
        what = {"name": name, "ts": begin, "dur": duration, "args": args}
        return {"ph": "X", "pid": process, "tid": thread, **what}


def _name(kind: str, process: int, thread: int, name: str) -> TraceEvent:
    return {"ph": "M", "pid": process, "tid": thread, "name": kind, "args": {"name": name}}


def _instant(process: int, thread: int, at: float, name: str, event: ev.AnyEvent) -> TraceEvent:
    args = msgspec.to_builtins(event)
    return {
        "ph": "i",
        "s": "t",
        "pid": process,
        "tid": thread,
        "ts": at,
        "name": name,
        "args": args,
    }


_encode = msgspec.json.Encoder().encode
