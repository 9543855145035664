"""An engine in this process: one worker thread loads the model, owns the engine and steps it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from ...engine.debugger import Arrival, Debugger
from ...engine.engine import Engine
from ...engine.errors import UserError
from ...engine.sampling import SamplingParams
from ...engine.trace import Header, Model, RecordTo, Speller, new_header
from .base import (
    Encoder,
    ModelInfo,
    Progress,
    Ready,
    RecordingEnded,
    Rejected,
    Sink,
)
from .debugged import Debugged
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


class LocalSource(Debugged):
    """Runs ``open_session``, submits the first requests, then obeys the switches until closed.

    ``params`` is how prompts typed at the screen are sampled. With ``record_to`` everything is
    recorded too.
    """

    thread_name = "engine"  # no daemon: nobody may pull the rug from under a forward pass

    def __init__(
        self,
        open_session: OpenSession,
        params: SamplingParams | None = None,
        record_to: RecordTo | None = None,
    ) -> None:
        super().__init__()
        self._open = open_session
        self._record_to = record_to
        self._params = params or SamplingParams()
        self._session: Session | None = None

    # --- switches --------------------------------------------------------------------------------

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

    # --- the worker's thread ---------------------------------------------------------------------

    def _work(self) -> None:
        with suppress(_Left):
            super()._work()

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
        info = session.info
        model = Model(info.name, info.architecture, info.dtype, info.device, session.path)
        header = new_header(engine.config, model, engine.clock(), session.speller)
        sink.put(
            Ready(
                engine.config,
                info,
                session.codec,
                records_to=self._record_to.path.name if self._record_to else "",
                header=header,
                speller=session.speller,
            )
        )
        engine.log.listen(sink.put)
        engine.log.listen(reporter.breakpoints)
        with self._recording(session, header, debugger, sink):
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
    def _recording(
        self, session: Session, header: Header, debugger: Debugger, sink: Sink
    ) -> Iterator[None]:
        """Everything that happens meanwhile is written to the file, if one is wanted."""
        if self._record_to is None:
            yield
            return
        engine, state = session.engine, debugger.state
        assert state
        with self._record_to.open(
            header, session.speller, lambda message: sink.put(RecordingEnded(message))
        ) as writer:
            # After the debugger, whose state is to include the record.
            engine.log.listen(lambda record: writer.write(record, state))
            yield
