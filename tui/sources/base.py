"""What a screen needs of whatever it watches: a stream of messages, and a few switches.

A `Source` runs somewhere else (a thread here, a server or a file elsewhere) and leaves messages in
a `Sink`, in order: progress, then `Ready` once, then records and mode changes, or a failure. It
never touches a widget.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ...engine.breakpoints import BreakpointInfo
from ...engine.config import EngineConfig
from ...engine.debugger import Mode
from ...engine.events import Position, StepRecord
from ...engine.fork import Spelling
from ...engine.history import History
from ...engine.state import EngineState
from ...engine.stops import Stop, Stopped
from ...engine.trace import Header, Speller


class Detokenizer(Protocol):
    """Gives the text that further tokens complete, never half a character."""

    def feed(self, *tokens: int) -> str: ...


class Codec(Protocol):
    """Token ids to text; ``token`` is the text of a single one, for display, ``detokenizer``
    follows an answer after ``prompt`` token by token, ``chat_frame`` is what the chat template puts
    before and after a question, and ``spelling`` is for replacing texts in prompts."""

    def decode(self, ids: Sequence[int]) -> str: ...

    def detokenizer(self, prompt: Sequence[int]) -> Detokenizer: ...

    def token(self, token_id: int) -> str: ...

    def chat_frame(self) -> tuple[str, str]: ...

    def spelling(self) -> Spelling: ...


class Encoder(Codec, Protocol):
    """A codec that knows the way back too, from what somebody types to token ids."""

    def encode_chat(self, text: str, system: str | None = None) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What runs, in short strings for the status line; empty ones are left out."""

    name: str
    architecture: str = ""
    dtype: str = ""
    device: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the start has got to; ``fraction`` is None when nobody can tell."""

    stage: str
    fraction: float | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """A run that is over. ``notes`` say in a line each what is not as one would expect of it: that
    it breaks off, say."""

    name: str
    history: History
    notes: tuple[str, ...] = ()
    look_at: Position | None = None  # first; None: the start


@dataclass(frozen=True, slots=True)
class Origin:
    """Why a picture begins where it does: ``note`` says what came before and was not seen, and
    ``ended`` what ended the picture before this one. Both empty for a run seen from its start."""

    note: str = ""
    ended: str = ""


@dataclass(frozen=True, slots=True)
class Ready:
    """Records follow; the state before the first is ``state``, or else that of an empty engine, or
    the one that the ``recording`` starts from. Where one came before, the screens begin anew and
    keep that for reading. ``header`` and ``speller`` are for whoever writes a recording of it."""

    config: EngineConfig
    info: ModelInfo
    codec: Codec
    recording: Recording | None = None
    state: EngineState | None = None
    records_to: str = ""  # the file that all of it is being written to
    rate: float | None = 4  # steps a second that play runs at, at first; None: all it can
    origin: Origin = Origin()
    header: Header | None = None
    speller: Speller | None = None


@dataclass(frozen=True, slots=True)
class ModeChanged:
    """``idle``: nothing is alive or to come, so there is nothing to step."""

    mode: Mode
    rate: float | None
    idle: bool


@dataclass(frozen=True, slots=True)
class Link:
    """How it stands with the server at ``url``, told as often as anything of it changes.

    ``silent`` are the whole seconds since a sign of life, once they are too many. ``lost`` says why
    there is no connection, ``attempt`` how many have been made to get one back and ``next_in`` when
    the next will be, in seconds. ``holder`` has the right to stop the server for another ``lease``
    seconds; ``mine`` if that is this viewer. ``unknown`` counts what a newer program told.
    """

    url: str
    silent: int = 0
    lost: str = ""
    attempt: int = 0
    next_in: int = 0
    holder: str = ""
    lease: int = 0
    mine: bool = False
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class BreakpointsChanged:
    """``all`` that are set now, and the hits that log-only ones noted ``logged`` since the last."""

    all: tuple[BreakpointInfo, ...]
    logged: tuple[Stop, ...] = ()


@dataclass(frozen=True, slots=True)
class RecordingEnded:
    """Nothing more can be written to the file; everything else goes on."""

    message: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """A command could not be carried out; everything else goes on."""

    message: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The source is done for. ``log`` is the file with the traceback; empty if the message, being
    a `UserError`'s, is the whole story."""

    message: str
    log: str = ""


# `Stopped` comes before the `ModeChanged` that says it is paused.
Message = (
    Progress
    | Ready
    | StepRecord
    | ModeChanged
    | Link
    | Stopped
    | BreakpointsChanged
    | RecordingEnded
    | Rejected
    | Failed
)


class Sink(Protocol):
    """Takes messages from any thread; may make the caller wait when it is far ahead."""

    def put(self, message: Message) -> None: ...


class Source(Protocol):
    """Something to watch. Every call returns at once and may come from the screen's thread.

    Not every source can do everything: nobody sends a prompt to a recording. What `why_not` gives
    a reason against is not called.
    """

    def why_not(self, verb: str) -> str:
        """Why the method called ``verb`` cannot work here, in a line; empty if it can."""
        ...

    def start(self, sink: Sink) -> None: ...

    def step(self, count: int = 1) -> None: ...

    def play(self, rate: float | None = None) -> None: ...

    def pause(self) -> None: ...

    def submit(self, text: str) -> None: ...

    def abort(self, request: int) -> None: ...

    def until(self, condition: str, rate: float | None = None) -> None:
        """Play to the step in which ``condition`` comes true. Raises `UserError` if unreadable."""
        ...

    def read_to(self, position: Position) -> None:
        """Have the records up to the end of that step taken in, whatever breakpoints say. Only
        called where `Ready` came with a recording."""
        ...

    def add_breakpoint(self, condition: str, ignore: int = 0, log_only: bool = False) -> int | None:
        """Stop, or only note it, when ``condition`` says so; gives the id, if it is known by now.
        Raises `UserError`."""
        ...

    def remove_breakpoint(self, id: int) -> None: ...

    def enable_breakpoint(self, id: int, on: bool) -> None: ...

    def close(self) -> None:
        """End it, after the step in progress."""
        ...

    def wait(self, seconds: float | None) -> bool:
        """Wait for the end that `close` asked for; false if it has not come within ``seconds``."""
        ...
