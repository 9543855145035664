"""A server that is watched over HTTP: what `following.py` gathers, for the screens.

One thread with an event loop of its own follows the server, and tells once a second how it stands
with the connection. A screen that is behind makes it wait, and so the connection: the server then
drops what is too old, and says so.
"""

import asyncio
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ...engine.conditions import parse
from ...engine.debugger import Mode
from ...engine.errors import UserError
from ...engine.events import Position, StepRecord
from ...engine.feed import Beat
from ...engine.stops import Stopped
from ...engine.trace import RecordTo
from ..crash import write_log
from ..live_recording import LiveRecording
from .base import (
    BreakpointsChanged,
    Failed,
    Link,
    ModeChanged,
    ModelInfo,
    Progress,
    Ready,
    RecordingEnded,
    Rejected,
    Sink,
)
from .following import Following, Joined, Lost, News
from .recorded import NO_TEXTS, RecordedCodec
from .server import DebugServer

SILENT = 3.0  # seconds without a sign of life that are worth a word
_GOODBYE = 2.0  # seconds to give the server back


class HttpSource:
    """Watches the server at ``url``. With ``record_to`` all that is seen is recorded too; as
    ``holder``, a name, it may stop the engine, and holds the server until that plays freely.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        record_to: RecordTo | None = None,
        holder: str = "",
    ) -> None:
        self._server = DebugServer(url, api_key)
        self._following = Following(self._server)
        self._recording = LiveRecording(record_to, self._recording_ended) if record_to else None
        self.holder = holder
        self._holds = False
        self._asking = asyncio.Lock()  # one after the other
        self._sink: Sink | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = threading.Event()
        self._heard = 0.0  # when the last sign of life came
        self._lost: Lost | None = None
        self._next_at = 0.0
        self._beat: Beat | None = None
        self._link: Link | None = None
        self._stop: Stopped | None = None

    def start(self, sink: Sink) -> None:
        self._sink = sink
        self._thread = threading.Thread(target=self._run, name="attach", daemon=True)
        self._thread.start()

    # --- switches --------------------------------------------------------------------------------

    def why_not(self, verb: str) -> str:
        if verb in ("submit", "abort"):
            return "requests come to the server from its own clients; this viewer watches them"
        if not self.holder:
            return "this viewer only watches: attach --control, of serve --debug-control, may stop"
        link = self._link
        if link and link.lost:
            return "there is no connection to the server"
        if link and link.holder and not link.mine:
            return f"the server is held by {link.holder}, {link.lease} s"
        return ""

    def step(self, count: int = 1) -> None:
        self._ask(op="step", count=count)

    def play(self, rate: float | None = None) -> None:
        """At full speed and with no breakpoints set there is nothing to hold the server for."""
        bare = rate is None and not (self._beat and self._beat.breakpoints)
        self._ask(op="release") if bare else self._ask(op="resume", rate=rate)

    def pause(self) -> None:
        self._ask(op="pause")

    def submit(self, text: str) -> None:
        raise UserError(self.why_not("submit"))

    def abort(self, request: int) -> None:
        raise UserError(self.why_not("abort"))

    def until(self, condition: str, rate: float | None = None) -> None:
        self._ask(op="until", condition=parse(condition).text, rate=rate)

    def read_to(self, position: Position) -> None:
        """Not called: there is no recording."""

    def add_breakpoint(self, condition: str, ignore: int = 0, log_only: bool = False) -> None:
        self._ask(op="break", condition=parse(condition).text, ignore=ignore, log_only=log_only)

    def remove_breakpoint(self, id: int) -> None:
        self._ask(op="unbreak", id=id)

    def enable_breakpoint(self, id: int, on: bool) -> None:
        self._ask(op="enable" if on else "disable", id=id)

    @property
    def recorded_to(self) -> list[Path]:
        """The files that were made."""
        return self._recording.paths if self._recording else []

    def close(self) -> None:
        self._closed.set()
        if self._loop and self._task:
            with suppress(RuntimeError):  # it has come to its end already
                self._loop.call_soon_threadsafe(self._task.cancel)

    def wait(self, seconds: float | None) -> bool:
        if self._thread:
            self._thread.join(seconds)
            return not self._thread.is_alive()
        return True

    # --- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        assert self._sink
        try:
            with suppress(asyncio.CancelledError):
                asyncio.run(self._watch())
        except UserError as error:
            self._sink.put(Failed(str(error)))
        except Exception as error:
            self._sink.put(Failed(f"{type(error).__name__}: {error}", write_log(error)))

    async def _watch(self) -> None:
        assert self._sink
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._sink.put(Progress(f"attaching to {self._server.url}"))
        ticking = asyncio.create_task(self._tick())
        async with self._server:
            try:
                async for news in self._following.news():
                    if self._closed.is_set():
                        break
                    self._take(news)
            finally:
                ticking.cancel()
                await self._let_go()
                if self._recording:
                    self._recording.close()

    def _take(self, news: News) -> None:
        assert self._sink
        if isinstance(news, Lost):
            self._lost, self._next_at = news, time.monotonic() + news.wait
        else:
            self._lost, self._heard = None, time.monotonic()
        if isinstance(news, StepRecord):
            if self._recording:
                self._recording.write(news, self._following.state)
            self._sink.put(news)
        elif isinstance(news, Joined):
            self._begin(news)
        elif isinstance(news, Beat):
            self._take_beat(news)
        if not isinstance(news, StepRecord):
            self._tell_link()

    def _begin(self, joined: Joined) -> None:
        assert self._sink
        following = self._following
        header, model = following.header, following.header.model
        records_to = ""
        if self._recording and not self._recording.error:
            self._recording.begin(header, following.state, following.vocabulary)
            records_to = self._recording.paths[-1].name
        self._beat = None
        origin = joined.origin
        if header.redacted:
            origin = replace(origin, note="; ".join(filter(None, (origin.note, NO_TEXTS))))
        self._sink.put(
            Ready(
                header.config,
                ModelInfo(model.name, model.architecture, model.dtype, model.device),
                RecordedCodec(header, following.vocabulary),
                state=following.copy(),
                records_to=records_to,
                rate=None,
                origin=origin,
            )
        )

    def _take_beat(self, beat: Beat) -> None:
        """Tell what has changed; of a stop before the mode that it led to."""
        assert self._sink
        before, self._beat = self._beat, beat
        if beat.stop is not None and beat.stop != self._stop:
            self._stop = beat.stop
            if before or beat.mode is Mode.PAUSED:
                self._sink.put(beat.stop)
        if beat.breakpoints != (before.breakpoints if before else ()):
            self._sink.put(BreakpointsChanged(beat.breakpoints))
        mode = beat.mode, beat.rate, beat.idle
        if not before or mode != (before.mode, before.rate, before.idle):
            self._sink.put(ModeChanged(*mode))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1)
            if self._following.joined:
                self._tell_link()
            if self._holds and not self._lost and not self._asking.locked():
                await self._control(op="renew")

    def _tell_link(self) -> None:
        """How it stands with the connection, if that has changed."""
        assert self._sink
        now, lost, beat = time.monotonic(), self._lost, self._beat
        silent = now - self._heard
        lease = beat.lease if beat else None
        link = Link(
            self._server.url,
            silent=int(silent) if silent >= SILENT and not lost else 0,
            lost=lost.reason if lost else "",
            attempt=lost.attempt if lost else 0,
            next_in=max(0, round(self._next_at - now)) if lost else 0,
            holder=lease.holder if lease else "",
            lease=round(lease.seconds) if lease else 0,
            mine=lease is not None and lease.holder == self.holder,
            unknown=self._following.unknown.total(),
        )
        if link != self._link:
            self._link = link
            self._sink.put(link)

    # --- control ---------------------------------------------------------------------------------

    def _ask(self, **fields: object) -> None:
        """Have the server do something, soon."""
        if self._loop:
            asyncio.run_coroutine_threadsafe(self._control(**fields), self._loop)

    async def _control(self, **fields: object) -> None:
        assert self._sink
        if reason := self.why_not(str(fields["op"])):
            self._sink.put(Rejected(reason))
            return
        async with self._asking:
            try:
                done = await self._server.control({**fields, "holder": self.holder})
                self._holds = done.lease is not None
            except UserError as error:
                self._holds = False
                self._sink.put(Rejected(str(error)))

    async def _let_go(self) -> None:
        """Give the server back, unless it is gone."""
        if self._holds and not self._lost:
            with suppress(UserError, TimeoutError):
                async with asyncio.timeout(_GOODBYE):
                    await self._server.control({"op": "release", "holder": self.holder})

    def _recording_ended(self, message: str) -> None:
        if self._sink:
            self._sink.put(RecordingEnded(message))
