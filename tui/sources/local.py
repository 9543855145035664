"""An engine in this process: one worker thread loads the model, owns the engine and steps it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ...engine.debugger import Arrival, Debugger
from ...engine.engine import Engine
from ...engine.errors import UserError
from ...engine.sampling import SamplingParams
from ...engine.trace import Model, RecordTo, Speller, new_header
from ..crash import write_log
from .base import (
    Encoder,
    Failed,
    ModelInfo,
    Progress,
    Ready,
    RecordingEnded,
    Rejected,
    Sink,
)
from .reporter import Reporter

ReportProgress = Callable[[str, float | None], None]


@dataclass(slots=True)
class Session:
    """A loaded engine, what the screens need besides its events, and the first requests."""

    engine: Engine
    codec: Encoder
    info: ModelInfo
    arrivals: list[Arrival] = field(default_factory=list)
    speller: Speller | None = None  # puts the texts of tokens into a recording
    path: str = ""  # of the model


OpenSession = Callable[[ReportProgress], Session]


class _Left(BaseException):
    """The user left while the model was loading. Not an `Exception`: nobody on the way may take it
    for a fault and carry on."""


class LocalSource:
    """Runs ``open_session``, submits the first requests, then obeys the switches until closed.

    ``params`` is how prompts typed at the screen are sampled. With ``record_to`` everything is
    recorded too.
    """

    def __init__(
        self,
        open_session: OpenSession,
        params: SamplingParams | None = None,
        record_to: RecordTo | None = None,
    ) -> None:
        self._open = open_session
        self._record_to = record_to
        self._params = params or SamplingParams()
        self._session: Session | None = None
        self._debugger: Debugger | None = None
        self._sink: Sink | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def start(self, sink: Sink) -> None:
        self._sink = sink
        # Not a daemon: the interpreter must not pull the rug from under a forward pass.
        self._thread = threading.Thread(target=self._work, name="engine")
        self._thread.start()

    # --- switches --------------------------------------------------------------------------------

    def step(self, count: int = 1) -> None:
        if self._debugger:
            self._debugger.step(count)

    def play(self, rate: float | None = None) -> None:
        if self._debugger:
            self._debugger.play(rate)

    def pause(self) -> None:
        if self._debugger:
            self._debugger.pause()

    def submit(self, text: str) -> None:
        if self._debugger and self._session and self._sink:
            try:
                prompt = self._session.codec.encode_chat(text, None)
            except UserError as error:
                self._sink.put(Rejected(str(error)))
            else:
                self._debugger.submit(prompt, self._params)

    def why_not(self, verb: str) -> str:
        return ""

    def abort(self, request: int) -> None:
        if self._debugger:
            self._debugger.abort(request)

    def until(self, condition: str, rate: float | None = None) -> None:
        if self._debugger:
            self._debugger.until(condition, rate)

    def add_breakpoint(self, condition: str, ignore: int = 0, log_only: bool = False) -> int:
        if not self._debugger:
            raise UserError("the engine is still loading; set the breakpoint when it is there")
        return self._debugger.add_breakpoint(condition, ignore=ignore, log_only=log_only)

    def remove_breakpoint(self, id: int) -> None:
        if self._debugger:
            self._debugger.remove(id)

    def enable_breakpoint(self, id: int, on: bool) -> None:
        if self._debugger:
            (self._debugger.enable if on else self._debugger.disable)(id)

    def close(self) -> None:
        self._closed = True
        if self._debugger:
            self._debugger.close()

    def wait(self, seconds: float | None) -> bool:
        if self._thread:
            self._thread.join(seconds)
            return not self._thread.is_alive()
        return True

    # --- the worker's thread ---------------------------------------------------------------------

    def _work(self) -> None:
        sink = self._sink
        assert sink is not None
        try:
            self._run(sink)
        except _Left:
            pass
        except UserError as error:
            sink.put(Failed(str(error)))
        except Exception as error:
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            sink.put(Failed(text, write_log(error)))

    def _run(self, sink: Sink) -> None:
        def report(stage: str, fraction: float | None = None) -> None:
            if self._closed:
                raise _Left
            sink.put(Progress(stage, fraction))

        session = self._open(report)
        engine = session.engine
        debugger = Debugger(engine, on_error=lambda message: sink.put(Rejected(message)))
        reporter = Reporter(debugger, sink)
        debugger.on_change = reporter.changed
        records_to = self._record_to.path.name if self._record_to else ""
        sink.put(Ready(engine.config, session.info, session.codec, records_to=records_to))
        engine.log.listen(sink.put)
        engine.log.listen(reporter.breakpoints)
        with self._recording(session, debugger, sink):
            self._submit_and_run(session, debugger)

    def _submit_and_run(self, session: Session, debugger: Debugger) -> None:
        for arrival in session.arrivals:
            at_step, prompt, params, priority = arrival
            debugger.submit(prompt, params, at_step, priority)
        self._session, self._debugger = session, debugger
        if self._closed:
            return
        debugger.run()

    @contextmanager
    def _recording(self, session: Session, debugger: Debugger, sink: Sink) -> Iterator[None]:
        """Everything that happens meanwhile is written to the file, if one is wanted."""
        if self._record_to is None:
            yield
            return
        engine, info, state = session.engine, session.info, debugger.state
        assert state
        model = Model(info.name, info.architecture, info.dtype, info.device, session.path)
        header = new_header(engine.config, model, engine.clock(), session.speller)
        with self._record_to.open(
            header, session.speller, lambda message: sink.put(RecordingEnded(message))
        ) as writer:
            # After the debugger, whose state is to include the record.
            engine.log.listen(lambda record: writer.write(record, state))
            yield
