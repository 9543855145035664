"""What a server says to those who watch it, and what they may ask of it: the debug protocol.

`GET /debug/state` answers with a `Joining`: the state at the end of some record. From there
`GET /debug/events?from=SEQ&epoch=EPOCH` goes on, as server-sent events whose data are lines of a
recording (`trace.py`) and the two messages here:

    event: vocab    a `Vocab`, before the first record that needs those tokens
    event: step     a `StepRecord`, as in a recording; ``id`` is its ``seq``
    event: beat     a `Beat`, every second, and at once when anything in it changes
    event: reset    a `Joining`: what came after ``from`` is gone, or is of another run

So there is no silent gap: records come with consecutive numbers, or a state comes in their place.
`POST /debug/control` takes a `Control` and answers with a `Controlled`.
"""

from typing import Literal

import msgspec

from .breakpoints import BreakpointInfo
from .debugger import Mode
from .snapshot import Snapshot
from .stops import Stopped
from .trace import Header, Vocab

LEASE_SECONDS = 30.0  # a pause lasts, without a word from who made it
BEAT_SECONDS = 1.0


class Joining(msgspec.Struct, frozen=True, kw_only=True):
    """The state after record number ``seq`` (-1: before the first) of the run ``epoch``; ``vocab``
    spells the tokens in it."""

    epoch: str
    seq: int
    step: int
    paused: bool
    header: Header
    vocab: Vocab
    state: Snapshot


class Lease(msgspec.Struct, frozen=True):
    """``holder`` alone may control the server, for another ``seconds`` unless he renews it."""

    holder: str
    seconds: float


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """A sign of life, and how the engine stands. ``t`` is its clock; ``dropped`` counts the records
    that the server could no longer give to viewers who fell behind, all of them together."""

    epoch: str
    seq: int
    step: int
    t: float
    mode: Mode
    rate: float | None = None
    idle: bool = False
    lease: Lease | None = None
    dropped: int = 0
    stop: Stopped | None = None  # the last
    breakpoints: tuple[BreakpointInfo, ...] = ()


Op = Literal[
    "pause", "resume", "step", "until", "break", "unbreak", "enable", "disable", "renew", "release"
]


class Control(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something to do for ``holder``, who holds the lease from then on for ``lease_seconds``.

    ``resume`` plays at ``rate`` steps a second, ``step`` takes ``count`` steps, ``until`` plays to
    where ``condition`` comes true, ``break`` sets a breakpoint on it. The next three are about the
    breakpoint ``id``. ``release`` gives the lease back: the server plays, and the breakpoints go.
    """

    op: Op
    holder: str
    lease_seconds: float = LEASE_SECONDS
    count: int = 1
    rate: float | None = None
    condition: str = ""
    ignore: int = 0
    log_only: bool = False
    id: int = 0


class Controlled(msgspec.Struct, frozen=True):
    """It is done, or under way. ``id`` is that of a breakpoint that was set."""

    lease: Lease | None = None
    id: int = 0
