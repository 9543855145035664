"""A recording on the screens: a `Playback` with a debugger in a thread of its own.

What is asked of it goes the way of `LocalSource`, so play, step, breakpoints and run-until work as
they do on an engine. The texts of tokens are in the recording.
"""

import codecs
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...engine.debugger import Debugger
from ...engine.errors import UserError
from ...engine.events import Position
from ...engine.fork import Spelling
from ...engine.playback import ONLY_PLAYED, Playback
from ...engine.trace import Header, Piece
from ...engine.trace_file import Trace
from .base import Detokenizer, ModelInfo, Progress, Ready, Recording, Rejected, Sink
from .debugged import Debugged
from .reporter import Reporter

if TYPE_CHECKING:
    from ...engine.tokenizer import Tokenizer

NO_TEXTS = "prompts and answers are redacted: ▒ is a token"

_TAIL = 8  # tokens of a prompt that may hold the first bytes of a character
_REDACTED = Piece("▒", "▒".encode())


class RecordedCodec:
    """Texts of token ids by a recording's vocabulary; an id that it does not spell is ``⟨id⟩``, and
    any that is redacted ``▒``."""

    def __init__(self, header: Header, vocabulary: Mapping[int, Piece]) -> None:
        self._header = header
        self._frame = header.chat
        self._drops_space = header.drops_first_space
        self._vocabulary = vocabulary
        self._unspelled = (lambda token: _REDACTED) if header.redacted else unspelled

    def decode(self, ids: Sequence[int]) -> str:
        text = b"".join(map(self.raw, ids)).decode(errors="replace")
        return text.removeprefix(" ") if self._drops_space else text

    def detokenizer(self, prompt: Sequence[int]) -> Detokenizer:
        return _Following(self, prompt)

    def token(self, token_id: int) -> str:
        return (self._vocabulary.get(token_id) or self._unspelled(token_id)).text

    def chat_frame(self) -> tuple[str, str]:
        return self._frame

    def spelling(self) -> Spelling:
        """By the recording, and by its model's tokenizer if that is here; which then gives the
        texts of tokens that the recording does not hold, too."""
        tokenizer = tokenizer_of(self._header)
        if tokenizer is None:
            return Spelling(self._vocabulary)
        if self._vocabulary and not self._header.redacted:
            self._unspelled = tokenizer.piece
        return Spelling(self._vocabulary, tokenizer.encode_within)

    def raw(self, token_id: int) -> bytes:
        """The bytes that a token adds to a text."""
        return (self._vocabulary.get(token_id) or self._unspelled(token_id)).raw


def tokenizer_of(header: Header) -> "Tokenizer | None":
    """The tokenizer of a recording's model, None where it is not; loading it takes a second or
    two."""
    from ...engine.tokenizer import Tokenizer, has_tokenizer

    path = Path(header.model.path)
    if not header.model.path or not path.is_dir() or not has_tokenizer(path):
        return None
    tokenizer = Tokenizer(path)
    return tokenizer if tokenizer.has_token_bytes else None


def unspelled(token_id: int) -> Piece:
    """What stands for a token whose text is not known."""
    text = f"⟨{token_id}⟩"
    return Piece(text, text.encode())


class _Following:
    """An answer after ``prompt``, whose last bytes may begin the answer's first character."""

    def __init__(self, codec: RecordedCodec, prompt: Sequence[int]) -> None:
        self._codec = codec
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._utf8.decode(b"".join(map(codec.raw, prompt[-_TAIL:])))

    def feed(self, *tokens: int) -> str:
        return self._utf8.decode(b"".join(map(self._codec.raw, tokens)))


def ready(trace: Trace, look_at: Position | None = None) -> Ready:
    """What the screens have to know of a recording before its first record, and where to look."""
    header, model = trace.header, trace.header.model
    vocabulary = trace.vocabulary()
    skipped = [f"{count} of kind {kind!r}" for kind, count in sorted(trace.skipped.items())]
    notes = [trace.cut] if trace.cut else []
    if skipped:
        notes.append(f"lines of a newer program were passed over: {', '.join(skipped)}")
    if header.redacted:
        notes.append(NO_TEXTS)
    elif not vocabulary and len(trace.history):
        notes.append("it holds no texts, so token ids are shown")
    return Ready(
        header.config,
        ModelInfo(model.name, model.architecture, model.dtype, model.device),
        RecordedCodec(header, vocabulary),
        Recording(trace.path.name, trace.history, tuple(notes), look_at),
    )


class RecordedSource(Debugged):
    """Opens the recording at ``path``, then obeys the switches until closed. With ``resume`` the
    screens begin where somebody looked last, else at the start."""

    thread_name = "replay"
    daemon = True

    def __init__(self, path: Path, resume: bool = False) -> None:
        super().__init__()
        self._path = path
        self._resume = resume
        self._playback: Playback | None = None
        self._wanted = 0  # records that are to be read, whatever else is pressed
        self._reading = False

    # --- switches --------------------------------------------------------------------------------

    def why_not(self, verb: str) -> str:
        return ONLY_PLAYED if verb in ("submit", "abort") else ""

    def submit(self, text: str) -> None:
        raise UserError(ONLY_PLAYED)

    def abort(self, request: int) -> None:
        raise UserError(ONLY_PLAYED)

    def read_to(self, position: Position) -> None:
        playback, debugger, sink = self._playback, self._debugger, self._sink
        if not (playback and debugger and sink):
            return
        history = playback.history
        wanted = history.records_until(history.end_of_step(position.step))

        def want() -> None:
            self._wanted = max(self._wanted, wanted)
            if not self._reading:
                self._read(playback, debugger, sink)

        debugger.call(want)

    # --- the thread ------------------------------------------------------------------------------

    def _read(self, playback: Playback, debugger: Debugger, sink: Sink) -> None:
        """On to what is wanted, until another switch is pressed, which comes first. There is one
        such reading at a time: of two, each would give way to the other for ever."""
        before, self._reading = playback.records, False
        try:
            while playback.records < self._wanted and not debugger.asked:
                sink.put(playback.skip())
        finally:
            if playback.records > before:
                debugger.rejoin(playback.history.state_after(playback.records))
        if playback.records < self._wanted and not self._closed:
            self._reading = True
            debugger.call(lambda: self._read(playback, debugger, sink))

    def _run(self, sink: Sink) -> None:
        stage = f"opening {self._path.name}"
        sink.put(Progress(stage))
        trace = Trace.open(self._path, lambda done: sink.put(Progress(stage, done)))
        playback = Playback(trace.history)
        state = trace.history.state_at(trace.history.start)
        debugger = Debugger(playback, on_error=lambda said: sink.put(Rejected(said)), state=state)
        reporter = Reporter(debugger, sink)
        debugger.on_change = reporter.changed
        self._playback, self._debugger = playback, debugger
        look_at = trace.looked_at or trace.history.end if self._resume else None
        sink.put(ready(trace, look_at))
        playback.log.listen(sink.put)
        playback.log.listen(reporter.breakpoints)
        playback.begin()
        reporter.changed()
        if not self._closed:
            debugger.run()
