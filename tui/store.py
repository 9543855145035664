"""Everything the screens read, in one place: the state, and what only eyes need.

The store takes messages in and counts versions; it knows nothing of widgets. The engine's own
objects are never seen from here.
"""

from collections import deque
from dataclasses import dataclass, field

from ..engine import events as ev
from ..engine.config import EngineConfig
from ..engine.debugger import Mode
from ..engine.lints import Lints
from ..engine.state import ROOT, EngineState
from .cells import CellMap
from .decoding import Texts
from .explain import Note, explain
from .recent import Recent
from .selection import NOTHING, Links, Target, resolve
from .sources.base import Codec, ModeChanged, ModelInfo
from .spans import Spans
from .steps import StepSeries

KEEP_STEPS = 300  # steps whose notes can be scrolled back to


@dataclass(slots=True)
class StepNotes:
    """The decisions of one step, in order. ``version`` tells whether any were added."""

    step: int
    notes: list[Note] = field(default_factory=list)


class Store:
    """The picture of one engine, as of the last record taken in."""

    def __init__(self, config: EngineConfig, info: ModelInfo, codec: Codec) -> None:
        self.config = config
        self.info = info
        self.state = EngineState(config)
        self.cells = CellMap(config.num_blocks)
        self.steps = StepSeries(self.state)
        self.spans = Spans(self.state)
        self.recent = Recent()
        self.lints = Lints()
        self.texts = Texts(codec)
        self.history: deque[StepNotes] = deque([StepNotes(0)], maxlen=KEEP_STEPS)
        self.mode = Mode.PAUSED
        self.rate: float | None = None
        self.idle = True
        self.failure = ""
        self.selected: Target | None = None
        self.links: Links = NOTHING
        self._order: list[int] | None = None

    def apply(self, record: ev.StepRecord) -> None:
        """Take in one record."""
        if any(isinstance(event, ev.Inserted | ev.Split | ev.Evicted) for event in record.events):
            self._order = None
        self.cells.apply(self.state, record)
        self.steps.apply(record, self.state)
        self.spans.apply(record)
        self.recent.apply(record)
        self.lints.apply(record, self.state)
        if record.events and isinstance(record.events[0], ev.StepBegan):
            self.history.appendleft(StepNotes(record.step))
        notes = self.history[0].notes
        notes.extend(note for note in map(explain, record.events) if note)
        self.idle = self.idle and not (self.state.waiting or self.state.running)

    def change_mode(self, message: ModeChanged) -> None:
        self.mode, self.rate, self.idle = message.mode, message.rate, message.idle

    def settle(self) -> None:
        """Bring what depends on the whole picture up to date, once for many records."""
        self.links = resolve(self.state, self.selected)
        self.texts.forget(self.state)

    def select(self, target: Target | None) -> None:
        self.selected = target
        self.links = resolve(self.state, target)

    @property
    def order(self) -> list[int]:
        """The tree's nodes but the root, depth first; kept until the tree changes shape."""
        if self._order is None:
            nodes, order = self.state.nodes, []
            stack = nodes[ROOT].children[::-1]
            while stack:
                id = stack.pop()
                order.append(id)
                stack += nodes[id].children[::-1]
            self._order = order
        return self._order

    @property
    def live(self) -> int:
        return len(self.state.waiting) + len(self.state.running)

    @property
    def done(self) -> bool:
        """Everything that was asked has been answered."""
        return self.idle and not self.live and bool(self.state.finished)

    @property
    def hit_rate(self) -> float | None:
        """Cached share of all prompt tokens admitted so far, in percent."""
        stats = self.state.stats
        return 100 * stats.hit_rate if stats.prompt_tokens else None
