"""Everything the screens read, in one place: the state, and what only eyes need.

The store takes messages in; it knows nothing of widgets. The engine's own objects are never seen
from here.

``state`` is the picture at the position looked at. That is the end of the run, where it follows
what comes in, until `look_at` goes elsewhere: then records are still taken in, but only ``now``
follows them.
"""

import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from ..engine import events as ev
from ..engine.chronicle import Chronicle
from ..engine.config import EngineConfig
from ..engine.debugger import Mode
from ..engine.events import Position
from ..engine.history import History
from ..engine.lints import Lints
from ..engine.state import EngineState
from ..engine.windows import Windows
from .causes import why
from .cells import CellMap
from .decoding import Texts
from .every_event import EveryEvent
from .inquiry import Cause
from .record import Record
from .sampled import SampledSteps
from .selection import NOTHING, Links, Target, resolve
from .sources.base import Codec, Link, ModeChanged, ModelInfo, Origin, Recording
from .spans import Spans
from .step_notes import LatestNotes, notes_until
from .steps import StepSeries
from .stops import Stops
from .watches import Watches
from .weights import Weights


class Follower(Protocol):
    """An index over the run: hears every record once, in order, and forgets by itself what is too
    old to be kept."""

    def apply(self, record: ev.StepRecord, state: EngineState) -> None:
        """Take in one record, which ``state`` includes."""
        ...


class Question(NamedTuple):
    """Why ``target`` was as it was at ``position``, and the answer."""

    target: Target
    position: Position
    causes: list[Cause]


class Store:
    """The picture of one engine at some position of its run, which begins empty or at ``start``.

    ``past`` is the record of the run. With a recording it is complete from the beginning, and the
    records taken in are its own; else it grows with them.
    """

    def __init__(
        self,
        config: EngineConfig,
        info: ModelInfo,
        codec: Codec,
        recording: Recording | None = None,
        start: EngineState | None = None,
        past: History | None = None,
    ) -> None:
        self.config = config
        self.info = info
        self.recording = recording
        self.origin = Origin()
        self.over = ""  # what ended the picture, if another one goes on
        self.guesses_from: int | None = None  # the step from which on times are estimated
        self.link: Link | None = None  # to the server that is watched
        self.records_to = ""  # the file that all of it is being written to
        self.now = start or EngineState(config)  # at the end of what has come in
        if recording:
            self.past = recording.history
            self.now = self.past.state_at(self.past.start)
        else:
            self.past = History.live(self.now) if past is None else past
        self._taken = 0  # records that have come in
        self.reads = True  # all up to what is looked at come in, soon if not yet
        self.state = self.now
        self.chronicle = Chronicle(self.now)
        self.replays = recording is not None
        self.cells = CellMap.of(self.now)
        self.steps = StepSeries(self.now)
        self.windows = Windows(self.now)
        self.spans = Spans(self.now)
        self.events = EveryEvent(self.past)
        self.lints = Lints()
        self.texts = Texts(codec)
        self._latest = LatestNotes(self.now)
        self.history = self._latest.steps
        self._looked_at: Position | None = None  # None: the end, wherever that moves
        self.stops = Stops()
        self.watches = Watches()
        self.sampled = SampledSteps(self.now)
        self._followers: tuple[Follower, ...] = (
            self.chronicle,
            self.steps,
            self.windows,
            self.spans,
            self.events,
            self.lints,
            self.watches,
            self.sampled,
            self._latest,
        )
        self.mode = Mode.PAUSED
        self.rate: float | None = None
        self.idle = True
        self.slow = False  # drawing takes so long that it is done less often
        self.on_look: Callable[[Position | None], object] = lambda position: None
        self.failure = ""
        self.question: Question | None = None
        self.marks: dict[str, Position] = {}
        self.wall: Callable[[], float] = time.monotonic
        self._heard = self.wall()  # when the last record came in
        self.hunting = ""  # how far the search for a stop has come, if there is one
        self.selected: Target | None = None
        self.links: Links = NOTHING
        self._weights: Weights | None = None

    @property
    def guessed(self) -> str:
        """The mark of times that are estimated, where those are that one looks at; else nothing."""
        return "" if self.guesses_from is None or self.state.step < self.guesses_from else "~"

    def apply(self, record: ev.StepRecord) -> None:
        """Take in one record."""
        if self.follows:
            self.cells.apply(self.state, record)
            if self._weights is not None:
                self._weights.apply(record.events)
        else:
            self.now.apply(record)
        if not self.replays:
            self.past.append(record, self.now)
        self._taken += 1
        self._heard = self.wall()
        for follower in self._followers:
            follower.apply(record, self.now)
        self.idle = self.idle and not (self.now.waiting or self.now.running)

    def change_mode(self, message: ModeChanged) -> None:
        self.mode, self.rate, self.idle = message.mode, message.rate, message.idle

    def settle(self) -> None:
        """Bring what depends on the whole picture up to date, once for many records."""
        if self._looked_at == self.newest:
            self.follow()
        self._link()
        self.texts.forget(self.state)

    def select(self, target: Target | None) -> None:
        self.selected = target
        self._link()

    def _link(self) -> None:
        target = self.selected
        came = target is None or self.chronicle.came(*target, self.position)
        self.links = resolve(self.state, target, came, self._refusal(target))

    def _refusal(self, target: Target | None) -> ev.Refused | None:
        """How ``target`` was refused, if it is a request that ended so, or one no longer kept."""
        if target is None or target.kind != "request":
            return None
        request = self.state.requests.get(target.id)
        if request is not None and request.finish_reason != "error":
            return None
        at = Record(self.past, self.chronicle).refusal_of(target.id, self.position)
        event = self.past.event(at) if at else None
        return event if isinstance(event, ev.Refused) else None

    def ask(self, target: Target) -> None:
        """Find out why ``target`` is as it is at the position looked at."""
        record = Record(self.past, self.chronicle)
        causes = why(record, target, self.position, self.texts.run)
        self.question = Question(target, self.position, causes)

    # --- time ------------------------------------------------------------------------------------

    @property
    def follows(self) -> bool:
        """What is looked at is the end of the run, and moves with it."""
        return self._looked_at is None

    @property
    def clock(self) -> float:
        """The engine's clock where one looks. At the end of a run it goes on between two records,
        unless the engine is paused or gone, or has nothing to do and is not a server's."""
        rests = self.mode is Mode.PAUSED or (self.idle and not self.link)
        if not self.follows or self.replays or rests or self.over or self.failure:
            return self.state.now
        return self.state.now + (self.wall() - self._heard)

    @property
    def position(self) -> Position:
        """The last event that the picture includes."""
        return self._looked_at or self.newest

    @property
    def newest(self) -> Position:
        """The last event that has come in."""
        return self.past.position_after(min(self._taken, len(self.past)))

    @property
    def last_step(self) -> int:
        """The last step of the run, whatever is looked at."""
        return self.past.end.step

    @property
    def reading(self) -> float | None:
        """What share of the records up to the position looked at has come in; None if all have, or
        no more will."""
        if not self.reads:
            return None
        wanted = self.past.records_until(self.position)
        return self._taken / wanted if self._taken < wanted else None

    def look_at(self, position: Position) -> None:
        """Show the run as it was right after the event at ``position``.

        Raises `UserError` if there is no such event.
        """
        if position == self.newest:
            self.follow()
            return
        state, cells = self._picture(position)
        self._looked_at, self.state, self.cells = position, state, cells
        self.history = notes_until(self.past, position)
        self._look_anew()
        self.on_look(position)

    def follow(self) -> None:
        """Show the end of the run, and go on with it."""
        if self.follows:
            return
        _, self.cells = self._picture(self.newest)
        self._looked_at, self.state, self.history = None, self.now, self._latest.steps
        self._look_anew()
        self.on_look(None)

    def _look_anew(self) -> None:
        self._weights = None
        self.select(self.selected)

    def _picture(self, position: Position) -> tuple[EngineState, CellMap]:
        """State and map at ``position``; on the map is marked what the step has changed so far."""
        past = self.past
        state = past.state_at(past.step_before(position) or past.start)
        cells = CellMap.of(state)
        first = past.records_until(past.step_before(position) or past.start)
        for number in range(first, past.records_until(position)):
            record = past.record(number)
            reached = position.event - record.first + 1
            if reached < len(record.events):
                cells.apply_part(state, record, reached)
            else:
                cells.apply(state, record)
        return state, cells

    @property
    def weights(self) -> Weights:
        """What hangs below each node of the tree; worked out when first asked for, then kept."""
        if self._weights is None:
            self._weights = Weights(self.state)
        return self._weights

    @property
    def live(self) -> int:
        return len(self.state.waiting) + len(self.state.running)

    @property
    def done(self) -> bool:
        """Everything that was asked has been answered, and that is looked at."""
        return self.follows and self.idle and not self.live and bool(self.state.finished)

    @property
    def played_out(self) -> bool:
        """A recording has come to its end, and that is looked at."""
        return self.replays and self.follows and self._taken == len(self.past)

    @property
    def hit_rate(self) -> float | None:
        """Cached share of all prompt tokens admitted so far, in percent."""
        stats = self.state.stats
        return 100 * stats.hit_rate if stats.prompt_tokens else None
