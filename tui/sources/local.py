"""An engine in this process: one worker thread loads the model, owns the engine and steps it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from ...engine.debugger import Arrival, Debugger
from ...engine.engine import Engine
from ...engine.errors import UserError
from ...engine.sampling import SamplingParams
from ..crash import write_log
from .base import Codec, Failed, ModeChanged, ModelInfo, Progress, Ready, Rejected, Sink

ReportProgress = Callable[[str, float | None], None]


@dataclass(slots=True)
class Session:
    """A loaded engine, what the screens need besides its events, and the first requests."""

    engine: Engine
    codec: Codec
    info: ModelInfo
    arrivals: list[Arrival] = field(default_factory=list)


OpenSession = Callable[[ReportProgress], Session]


class _Left(BaseException):
    """The user left while the model was loading. Not an `Exception`: nobody on the way may take it
    for a fault and carry on."""


class LocalSource:
    """Runs ``open_session``, submits the first requests, then obeys the switches until closed.

    ``params`` is how prompts typed at the screen are sampled.
    """

    can_control = True

    def __init__(
        self,
        open_session: OpenSession,
        params: SamplingParams | None = None,
    ) -> None:
        self._open = open_session
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
        debugger.on_change = lambda: sink.put(
            ModeChanged(debugger.mode, debugger.rate, debugger.idle)
        )
        sink.put(Ready(engine.config, session.info, session.codec))
        engine.log.listen(sink.put)
        for arrival in session.arrivals:
            at_step, prompt, params, priority = arrival
            debugger.submit(prompt, params, at_step, priority)
        self._session, self._debugger = session, debugger
        if self._closed:
            return
        debugger.run()
