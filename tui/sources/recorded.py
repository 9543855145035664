"""A recording on the screens: a `Playback` with a debugger in a thread of its own.

What is asked of it goes the way of `LocalSource`, so play, step, breakpoints and run-until work as
they do on an engine. The texts of tokens are in the recording.
"""

import codecs
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...engine.debugger import Debugger
from ...engine.errors import UserError
from ...engine.playback import ONLY_PLAYED, Playback
from ...engine.trace import Header, Piece
from ...engine.trace_file import Trace
from ..crash import write_log
from .base import Detokenizer, Failed, ModelInfo, Progress, Ready, Recording, Rejected, Sink
from .reporter import Reporter

_TAIL = 8  # tokens of a prompt that may hold the first bytes of a character


class RecordedCodec:
    """Texts of token ids by a recording's vocabulary; an id that it does not spell is ``⟨id⟩``."""

    def __init__(self, header: Header, vocabulary: Mapping[int, Piece]) -> None:
        self._frame = header.chat
        self._drops_space = header.drops_first_space
        self._vocabulary = vocabulary

    def decode(self, ids: Sequence[int]) -> str:
        text = b"".join(map(self.raw, ids)).decode(errors="replace")
        return text.removeprefix(" ") if self._drops_space else text

    def detokenizer(self, prompt: Sequence[int]) -> Detokenizer:
        return _Following(self, prompt)

    def token(self, token_id: int) -> str:
        piece = self._vocabulary.get(token_id)
        return piece.text if piece else f"⟨{token_id}⟩"

    def chat_frame(self) -> tuple[str, str]:
        return self._frame

    def raw(self, token_id: int) -> bytes:
        """The bytes that a token adds to a text."""
        piece = self._vocabulary.get(token_id)
        return piece.raw if piece else f"⟨{token_id}⟩".encode()


class _Following:
    """An answer after ``prompt``, whose last bytes may begin the answer's first character."""

    def __init__(self, codec: RecordedCodec, prompt: Sequence[int]) -> None:
        self._codec = codec
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._utf8.decode(b"".join(map(codec.raw, prompt[-_TAIL:])))

    def feed(self, *tokens: int) -> str:
        return self._utf8.decode(b"".join(map(self._codec.raw, tokens)))


def ready(trace: Trace) -> Ready:
    """What the screens have to know of a recording before its first record."""
    header, model = trace.header, trace.header.model
    vocabulary = trace.vocabulary()
    skipped = [f"{count} of kind {kind!r}" for kind, count in sorted(trace.skipped.items())]
    notes = [trace.cut] if trace.cut else []
    if skipped:
        notes.append(f"lines of a newer program were passed over: {', '.join(skipped)}")
    if not vocabulary and len(trace.history):
        notes.append("it holds no texts, so token ids are shown")
    return Ready(
        header.config,
        ModelInfo(model.name, model.architecture, model.dtype, model.device),
        RecordedCodec(header, vocabulary),
        Recording(trace.path.name, trace.history, tuple(notes)),
    )


class RecordedSource:
    """Opens the recording at ``path``, then obeys the switches until closed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._debugger: Debugger | None = None
        self._sink: Sink | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def start(self, sink: Sink) -> None:
        self._sink = sink
        self._thread = threading.Thread(target=self._work, name="replay", daemon=True)
        self._thread.start()

    # --- switches --------------------------------------------------------------------------------

    def why_not(self, verb: str) -> str:
        return ONLY_PLAYED if verb in ("submit", "abort") else ""

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
        raise UserError(ONLY_PLAYED)

    def abort(self, request: int) -> None:
        raise UserError(ONLY_PLAYED)

    def until(self, condition: str, rate: float | None = None) -> None:
        if self._debugger:
            self._debugger.until(condition, rate)

    def add_breakpoint(self, condition: str, ignore: int = 0, log_only: bool = False) -> int:
        if not self._debugger:
            raise UserError("the recording is still being opened; set the breakpoint after that")
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

    # --- the thread ------------------------------------------------------------------------------

    def _work(self) -> None:
        sink = self._sink
        assert sink is not None
        try:
            self._run(sink)
        except UserError as error:
            sink.put(Failed(str(error)))
        except Exception as error:
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            sink.put(Failed(text, write_log(error)))

    def _run(self, sink: Sink) -> None:
        stage = f"opening {self._path.name}"
        sink.put(Progress(stage))
        trace = Trace.open(self._path, lambda done: sink.put(Progress(stage, done)))
        playback = Playback(trace.history)
        state = trace.history.state_at(trace.history.start)
        debugger = Debugger(playback, on_error=lambda said: sink.put(Rejected(said)), state=state)
        reporter = Reporter(debugger, sink)
        debugger.on_change = reporter.changed
        sink.put(ready(trace))
        playback.log.listen(sink.put)
        playback.log.listen(reporter.breakpoints)
        playback.begin()
        reporter.changed()
        self._debugger = debugger
        if not self._closed:
            debugger.run()
