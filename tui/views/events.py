"""The events pane: everything that happened, the newest first, and a filter on it.

Events are taken from `EveryEvent` one by one, for the lines that show. A filter searches backwards,
a few hundred events at a time, so that a search through all of them never holds up the screen.
"""

import time
from bisect import bisect_left
from collections import deque
from operator import neg

from ...engine import events as ev
from ...engine.state import EngineState
from ..changes import describe, kind_of
from ..event_filter import EventFilter
from ..every_event import EveryEvent
from ..selection import Target
from ..stops import GLYPH as STOP_GLYPH
from ..store import Store
from ..text import Line, clip, pad, pad_left
from .base import View

_TURN = 0.005  # seconds a search may take before the screen gets its turn
_AT_ONCE = 256  # events between two looks at the clock
_MOST = 200_000  # events that a filter finds; older ones are not searched for
_NOTHING = "nothing has happened yet: press i to send a prompt"
_KIND_FROM = 92  # cells from which on there is room to name the kind


class EventsView(View):
    name = "Events"
    about = "every decision and every change, the newest first"
    newest_first = True

    def __init__(self) -> None:
        super().__init__()
        self._events: EveryEvent | None = None
        self._filter: EventFilter | None = None
        self._found: deque[int] = deque()  # numbers of the events that match, the newest first
        self._low = self._high = 0  # those from low to high were looked at

    @property
    def filter(self) -> EventFilter | None:
        return self._filter

    @filter.setter
    def filter(self, filter: EventFilter | None) -> None:
        self._filter = filter
        self._found = deque()
        self._events = None  # search from the start

    def update(self, store: Store, width: int, height: int) -> None:
        self._stops = store.stops
        self._state, self._width, self._here = store.state, width, store.position
        events = self._all = store.events
        if events is not self._events:
            self._events, self._found = events, deque()
            self._low = self._high = events.end
        self.busy = self._filter is not None and not self._search(events)
        count = f"{len(events):,} events"
        self.header = [] if len(events) else [[(_NOTHING, "dim")]]
        if self._filter is not None:
            found = f"{len(self._found):,} of {count}"
            where = ""
            if self._low > events.first:
                step = events[self._low].at.step if self._low < events.end else store.now.step
                where = f", searching back from step {step}"
                where = where if self.busy else f", none searched for before step {step}"
            text = f"/ {self._filter.text} · {found}{where} · n N next, previous · esc shows all"
            self.header = [[(clip(text, width), "accent")]]
            count = found
        later = store.newest > self._here
        self.subtitle = f"{count} · ↑ later than here" if later else count

    def _search(self, events: EveryEvent) -> bool:
        """Go on with the search; true if nothing is left to search."""
        assert self._filter is not None
        matches = self._filter.matches
        while self._found and self._found[-1] < events.first:
            self._found.pop()  # no longer known
        until = time.perf_counter() + _TURN
        while self._high < events.end:
            end = min(events.end, self._high + _AT_ONCE)
            self._found.extendleft(i for i in range(self._high, end) if matches(events[i]))
            self._high = end
            if time.perf_counter() > until:
                return False
        self._low = max(self._low, events.first)
        while self._low > events.first and len(self._found) < _MOST:
            start = max(events.first, self._low - _AT_ONCE)
            back = range(self._low - 1, start - 1, -1)
            self._found.extend(i for i in back if matches(events[i]))
            self._low = start
            if time.perf_counter() > until:
                return self._low == events.first
        return True

    # --- lines -----------------------------------------------------------------------------------

    @property
    def items(self) -> int:
        if self._events is None:  # nothing has been looked up yet
            return 0
        return len(self._all) if self._filter is None else len(self._found)

    def number(self, item: int) -> int:
        """The event's number in `EveryEvent`."""
        return self._all.end - 1 - item if self._filter is None else self._found[item]

    def target(self, item: int) -> Target | None:
        if not 0 <= item < self.items:
            return None
        return about(self._all[self.number(item)].event, self._state)

    def place(self, item: int) -> ev.Position | None:
        return self._all[self.number(item)].at if 0 <= item < self.items else None

    def rests(self, item: int) -> bool:
        return 0 <= item < self.items

    def anchor(self, item: int) -> object:
        return self.number(item) if 0 <= item < self.items else None

    def find(self, anchor: object) -> int | None:
        if not isinstance(anchor, int) or not self.items:
            return None
        if self._filter is None:
            item = self._all.end - 1 - anchor
            return item if 0 <= item < self.items else None
        item = bisect_left(self._found, -anchor, key=neg)
        return item if item < len(self._found) and self._found[item] == anchor else None

    def first_linked(self, links: object) -> int | None:
        return None  # what is linked is all over the place: stay

    def line(self, i: int) -> Line:
        at, event = self._all[self.number(i)]
        note = describe(event)
        later = at > self._here  # than what is looked at
        begins = isinstance(event, ev.StepBegan)
        stopped = any(hit.stop.index == at.event for hit in self._stops.hits(at.step))
        line: Line = [
            (pad_left(str(at), 7), "bad" if stopped else "faint" if later else "dim"),
            (STOP_GLYPH, "bad") if stopped else ("↑" if later else " ", "faint"),
            (f"{note.glyph} ", "faint" if later else note.style),
        ]
        room = self._width - 10
        if self._width >= _KIND_FROM:
            line.append((pad(kind_of(event), 11), "faint" if later else "dim"))
            room -= 11
        style = "faint" if later else "dim" if begins else "text"
        line.append((clip(note.sentence, room), style))
        return line


def about(event: ev.AnyEvent, state: EngineState) -> Target | None:
    """What ``event`` is about, as something that can be selected: a node that is gone gives way to
    a block of its."""
    if isinstance(event, ev.Evicted | ev.Inserted | ev.Extended | ev.Split):
        if event.node in state.nodes:
            return Target("node", event.node)
        return None if isinstance(event, ev.Split) else Target("block", event.blocks[0])
    req = getattr(event, "req", -1)
    return Target("request", req) if req >= 0 else None
