"""What of the debugger's screen is drawn: panes in the layout that fits, and bars around them.

What the panes show is in `views/`, and which of them show in `layout.py`.
"""

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from ...engine.debugger import Mode
from ..actions import Action, table
from ..sources.base import Source
from ..store import Store
from ..text import Line, Links
from ..views.bars import failure_lines, key_words, rule, tabs, too_small
from ..views.batch import BatchView
from ..views.blocks import BlocksView, lines_wanted
from ..views.events import EventsView
from ..views.lints import LintsView
from ..views.requests import RequestsView
from ..views.statistics import StatisticsView
from ..views.status import hint_line, status_lines
from ..views.timeline import TimelineView
from ..views.tree import TreeView
from ..views.why import WhyView
from ..watches import watch_lines
from ..widgets.bars import Bar, LinkBar
from ..widgets.pane import Pane
from ..widgets.strip import StepStrip
from .layout import (
    BATCH,
    BLOCKS,
    PANES,
    REQUESTS,
    RIGHT,
    SMALLEST,
    TREE,
    WHY,
    Layout,
    decisions_height,
    layout_for,
    panes_shown,
    strip_height,
)
from .travelling import Travelling

FADE = 1.0  # seconds

# What is covered by panes is not drawn.


class _Across(Horizontal):
    BLANK = True


class _Down(Vertical):
    BLANK = True


class Arranged(Travelling):
    """Shows `store` in nine panes, of which one is active."""

    BLANK = True

    def __init__(self, store: Store, source: Source) -> None:
        super().__init__(store, source)
        self.active = BATCH
        self.zoomed = False
        self.shape = Layout.TINY
        self._looked_at: dict[int, int] = {}  # when each pane was the active one, as a count
        self.events = EventsView()
        self.blocks = BlocksView()
        views = (
            BatchView(),
            self.blocks,
            TreeView(),
            RequestsView(),
            self._decisions,
            self.events,
            TimelineView(),
            StatisticsView(),
            LintsView(),
        )
        self.panes = {
            number: Pane(view, store, number, id=view.name.lower())
            for number, view in zip(PANES, views, strict=True)
        }
        self.steps = StepStrip(store, id="steps")
        self._bars: tuple[Bar, ...] = ()
        self._watch_bar = Bar(self._watches, id="watches")
        self._body = _Across(id="body")
        self.strip = Pane(WhyView(), store, id="strip")

    # --- what there is ---------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        store, panes = self.store, self.panes
        yield Bar(lambda width: status_lines(store, width), id="status")
        yield Bar(lambda width: failure_lines(store.failure, width), id="failure")
        yield Bar(lambda width: too_small(*self.app.size, SMALLEST, width), id="small")
        yield self.steps
        yield LinkBar(self._tabs, id="tabs", gap="")
        yield Bar(lambda width: rule(self.pane.view.subtitle, width), id="rule")
        with self._body:
            with _Down(id="left"):
                for number in (1, 4, 8, 7, 5, 6, 9):  # as they stand above each other
                    yield panes[number]
            with _Down(id="right"):
                yield panes[BLOCKS]
                yield panes[TREE]
        yield self.strip
        yield self._watch_bar
        yield Bar(lambda width: [hint_line(store, width, self.meant)], id="hint")
        yield LinkBar(self._keys, id="keys")

    def on_mount(self) -> None:
        self.strip.border_title = "why"
        self._bars = tuple(self.query(Bar))
        self.set_interval(FADE, self.panes[REQUESTS].sync)  # those that have ended go in time
        self.rearrange()
        if self.store.recording and self.store.recording.look_at:
            self.go(self.store.recording.look_at)

    def on_resize(self) -> None:
        self.rearrange()

    def on_screen_resume(self) -> None:
        self.rearrange()

    @property
    def pane(self) -> Pane:
        """The active one."""
        return self.panes[self.active]

    def sync(self) -> None:
        """Bring everything that shows up to date with the store."""
        for pane in self.panes.values():
            pane.sync()
        self.steps.sync()
        self.strip.sync()
        self._grow_the_watches()
        for bar in self._bars:
            bar.sync()
        self.answer_when_read()

    def rearrange(self) -> None:
        """Fit the panes to the size of the terminal."""
        width, height = self.app.size
        self.shape = layout_for(width, height)
        tiny = self.shape is Layout.TINY
        for layout in Layout:
            self.set_class(self.shape is layout, f"layout-{layout}")
        self._looked_at[self.active] = max(self._looked_at.values(), default=0) + 1
        shown = panes_shown(self.shape, self.active, self._looked_at, self.zoomed)
        for number, pane in self.panes.items():
            pane.display = number in shown
        self.query_one("#left").display = bool(shown - RIGHT)
        self.query_one("#right").display = bool(shown & RIGHT)
        self._body.display = not tiny
        decisions = decisions_height(self.shape, height)
        self.strip.display = bool(decisions) and self.active != WHY and not self.zoomed
        self.strip.styles.height = decisions
        steps = strip_height(self.shape, height)
        self.steps.display = bool(steps)
        self.steps.styles.height = steps
        self.query_one("#tabs").display = not tiny
        self.query_one("#rule").display = self.shape is Layout.NARROW
        self.query_one("#small").display = tiny
        self.query_one("#hint").display = self.query_one("#keys").display = not tiny
        failure = self.query_one("#failure")
        failure.display = bool(self.store.failure) and not tiny
        failure.styles.height = len(failure_lines(self.store.failure, width - 4)) + 2
        self._size_the_watches(tiny)
        self._size_the_map(shown, width, height)
        if not tiny:
            self.pane.focus(scroll_visible=False)
        self.call_after_refresh(self.sync)

    def _size_the_watches(self, tiny: bool) -> None:
        """As many lines as they take, but no more than the layout can spare."""
        bar = self._watch_bar
        bar.display = bool(self.store.watches.all) and not tiny
        bar.styles.height = max(1, len(self._watches(self.app.size.width)))

    def _grow_the_watches(self) -> None:
        """Longer values may take one more line. Fewer are taken when the panes are next fitted, so
        that nothing jumps about with each step."""
        bar = self._watch_bar
        wanted = len(self._watches(self.app.size.width)) if bar.display else 0
        if wanted > bar.outer_size.height > 0:
            bar.styles.height = wanted

    def _size_the_map(self, shown: frozenset[int], width: int, height: int) -> None:
        """The block map gets the lines it needs, but never more than the tree below it."""
        if TREE not in shown or BLOCKS not in shown:
            self.panes[BLOCKS].styles.height = "1fr"
            return
        most = (height - 9) // 2
        inner = width - width // 2 - 4
        wanted = lines_wanted(self.store.cells, inner, most - 2) + 2
        self.panes[BLOCKS].styles.height = min(wanted, most)

    # --- the bars --------------------------------------------------------------------------------

    def _tabs(self, width: int) -> Links:
        names = {number: pane.view.name for number, pane in self.panes.items()}
        shown = [number for number, pane in self.panes.items() if pane.display]
        return tabs(names, self.active, shown, width)

    def _keys(self, width: int) -> Links:
        usable = [a for a in table() if a.footer and not self.why_not(a.name)]
        return key_words(usable, self._word, width)

    def _word(self, action: Action) -> str:
        plays = self.store.mode is Mode.PLAYING if self.store.follows else self.plays_past
        if action.name == "play" and plays:
            return "pause"
        if action.name == "live" and self.store.replays:
            return "end"
        return "unzoom" if action.name == "zoom" and self.zoomed else action.footer

    def _watches(self, width: int) -> list[Line]:
        store = self.store
        most = {Layout.NARROW: 1, Layout.MEDIUM: 2}.get(self.shape, 4)
        return watch_lines(store.watches, store.stops, store.state, width, most)

    def fail(self, message: str, log: str) -> None:
        """The engine is gone; keep what it held on the screen."""
        where = f"\ntraceback: {log}" if log else ""
        what = (
            "the recording cannot be played on" if self.store.replays else "the engine has stopped"
        )
        self.store.failure = f"{what}: {message}{where}"
        self.rearrange()

    @on(Pane.Sized)
    def _pane_sized(self) -> None:
        self.query_one("#rule", Bar).sync()
