"""The debugger's screen: nine panes in the layout that fits, one selection, and every key.

What the panes show is in `views/`, which of them show in `layout.py`, and what the engine does is
the source's business.
"""

from math import inf
from typing import TYPE_CHECKING, cast

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from ...engine.debugger import Mode
from ...engine.events import Position
from ..actions import CHOOSE, LOOK, MOVE, RUN, TIME, Action, bindings, key, table
from ..event_filter import EventFilter
from ..forking import Forked
from ..selection import Target
from ..sources.base import Source
from ..store import Store
from ..text import Line
from ..views.bars import Links, failure_lines, key_words, rule, tabs, too_small
from ..views.batch import BatchView
from ..views.blocks import BlocksView, lines_wanted
from ..views.events import EventsView
from ..views.lints import LintsView
from ..views.requests import RequestsView
from ..views.statistics import StatisticsView
from ..views.status import RATES, hint_line, rate_text, status_lines
from ..views.timeline import TimelineView
from ..views.tree import TreeView
from ..views.why import WhyView
from ..watches import watch_lines
from ..widgets.bars import Bar, LinkBar
from ..widgets.pane import Pane
from ..widgets.strip import StepStrip
from .filter import FilterScreen
from .layout import (
    BATCH,
    BLOCKS,
    EVENTS,
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
from .prompt import PromptScreen
from .travelling import Travelling

if TYPE_CHECKING:
    from ..app import DebuggerApp

FADE = 1.0  # seconds

# Which call on the source an action comes down to.
_VERBS = {
    "step": "step",
    "play": "play",
    "go_on": "play",
    "pause": "pause",
    "slower": "play",
    "faster": "play",
    "prompt": "submit",
    "until": "until",
    "abort": "abort",
    "toggle_break": "add_breakpoint",
}


# What is covered by panes is not drawn.


class _Across(Horizontal):
    BLANK = True


class _Down(Vertical):
    BLANK = True


class MainScreen(Travelling):
    """Shows ``store`` and passes commands on to ``source``."""

    BLANK = True

    BINDINGS = bindings(RUN, TIME, LOOK, MOVE, CHOOSE)
    AUTO_FOCUS = ""

    def __init__(self, store: Store, source: Source) -> None:
        super().__init__(store, source)
        self.active = BATCH
        self.zoomed = False
        self.shape = Layout.TINY
        self._looked_at: dict[int, int] = {}  # when each pane was the active one, as a count
        self.rate: float | None = 4  # steps a second that play runs at; None: all it can
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
        self._arrange()
        if self.store.recording and self.store.recording.look_at:
            self.go(self.store.recording.look_at)

    def on_resize(self) -> None:
        self._arrange()

    def on_screen_resume(self) -> None:
        self._arrange()

    @property
    def command_line(self) -> str:
        """What started the program."""
        return getattr(self.app, "command_line", "")

    def show_other_run(self, by: int) -> None:
        """The run before this one, or after it. Raises `UserError` if there is none."""
        cast("DebuggerApp", self.app).runs.show_other(by)

    def show_fork(self, forked: Forked) -> None:
        """The fork in all panes, as a run before this one."""
        cast("DebuggerApp", self.app).runs.add_fork(self, forked)

    def look_like(self, other: "MainScreen") -> None:
        """Show the same pane as ``other``, zoomed or not, and watch the same values."""
        self.active, self.zoomed, self.rate = other.active, other.zoomed, other.rate
        for watch in other.store.watches.all:
            self.store.watches.add(watch.text, self.store.state)

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
        self._arrange()

    def _arrange(self) -> None:
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
        self._arrange()

    # --- which keys work now ---------------------------------------------------------------------

    def why_not(self, name: str) -> str:
        """Why the action would do nothing now; empty if it would do something."""
        store = self.store
        if not store.follows and name in ("step", "play", "go_on", "until"):
            return self.no_way_on()
        if store.over and name in _VERBS:
            return f"this run is over: {store.over}; {key('other_run-1')} shows the next"
        verb = _VERBS.get(name)
        if verb and (reason := self.source.why_not(verb)):
            return reason
        if verb and store.failure:
            return "the engine has stopped"
        if name in ("step", "play", "go_on", "until") and store.idle:
            if store.replays:
                return "the recording ends here"
            if store.link:
                return "the server has nothing to do"
            return f"there is nothing to run: press {key('prompt')} to send a prompt"
        if name == "slower" and self.rate == RATES[0]:
            return f"this is the lowest speed: {rate_text(RATES[0])}"
        if name == "faster" and self.rate is None:
            return "this is the highest speed: no pause between steps"
        unfolded = self.zoomed or self._filtered or store.question
        if name == "clear" and store.selected is None and not unfolded:
            return "nothing is selected"
        if name == "select" and self.pane.target is None and self._place is None:
            return "there is nothing to select on this line"
        if name == "live" and store.position == store.past.end:
            return "this is the end"
        if name in ("left", "right") and not self.pane.view.sideways_does:
            return "left and right do nothing in this list; they do in the panes 2, 3 and 7"
        if name == "tokens" and self.request_meant is None:
            return "put the cursor on a request first, or select one: its tokens are shown"
        if name == "match" and self.events.filter is None:
            return f"there is no filter to match; press {key('filter')} to give one"
        return ""

    @property
    def _filtered(self) -> bool:
        """The active pane shows only the events that a filter lets through."""
        return self.active == EVENTS and self.events.filter is not None

    # --- running ---------------------------------------------------------------------------------

    def action_step(self) -> None:
        if not self.may("step"):
            return
        if self.store.follows:
            self.source.step()
        else:
            self.step_in_past()

    def action_play(self) -> None:
        follows = self.store.follows
        if self.plays_past:
            self.stay()
        elif follows and self.store.mode is Mode.PLAYING:
            if self.may("pause"):
                self.source.pause()
        elif self.may("play"):
            self.source.play(self.rate) if follows else self.play_past()

    def action_go_on(self) -> None:
        if self.may("go_on"):
            self.source.play(None) if self.store.follows else self.hunt(back=False)

    def action_slower(self) -> None:
        self._change_rate("slower", -1)

    def action_faster(self) -> None:
        self._change_rate("faster", 1)

    def _change_rate(self, name: str, by: int) -> None:
        if not self.may(name):
            return
        rates = [*(rate for rate in RATES if rate is not None), inf]
        now = inf if self.rate is None else self.rate
        others = [rate for rate in rates if (rate > now if by > 0 else rate < now)]
        if others:
            rate = min(others) if by > 0 else max(others)
            self.set_rate(None if rate == inf else rate)

    def set_rate(self, rate: float | None) -> None:
        """What play runs at, from now on."""
        self.rate = rate
        if self.store.mode is Mode.PLAYING:
            self.source.play(rate)
        else:
            self.notify(f"space will run {rate_text(rate)}", timeout=2)
        self.sync()

    def action_prompt(self) -> None:
        if self.may("prompt"):
            self.app.push_screen(PromptScreen(), self._send)

    def _send(self, text: str | None) -> None:
        if text:
            self.submit(text)

    # --- looking around --------------------------------------------------------------------------

    def action_pane(self, number: int) -> None:
        self.active = number
        self._arrange()

    def action_next_pane(self) -> None:
        self.action_pane(self.active % len(PANES) + 1)

    def action_previous_pane(self) -> None:
        self.action_pane((self.active - 2) % len(PANES) + 1)

    def action_zoom(self) -> None:
        self.zoomed = not self.zoomed
        self._arrange()

    def action_scale(self, by: int) -> None:
        """Closer or farther: in this pane, or else in the strip of steps."""
        if self.pane.view.scale_does:
            self.pane.scale(by)
        elif not (self.steps.display and self.steps.scale(by)):
            self.notify("the steps can be shown no other way", severity="warning", timeout=3)
        self.sync()

    def action_pick_out(self) -> None:
        self.blocks.pick_out()
        if self.active != BLOCKS and not self.panes[BLOCKS].display:
            self.action_pane(BLOCKS)
        self.sync()

    def action_filter(self) -> None:
        filter = self.events.filter
        self.app.push_screen(FilterScreen(filter.text if filter else ""), self.set_filter)

    def set_filter(self, filter: EventFilter | None) -> None:
        """Show the events that ``filter`` lets through; one without a text lets all."""
        if filter is not None:
            self.events.filter = filter if filter.text else None
            self.panes[EVENTS].to_top()
            self.action_pane(EVENTS)

    def action_match(self, by: int) -> None:
        """Go to the next event that the filter lets through, and select what it is about."""
        if not self.may("match"):
            return
        pane = self.panes[EVENTS]
        if self.active != EVENTS:
            self.action_pane(EVENTS)
        else:
            pane.move(0, by)
        if pane.target is not None:
            self.select(pane.target)
        self._moved()

    def action_up(self) -> None:
        self.pane.move(0, -1)
        self._moved()

    def action_down(self) -> None:
        self.pane.move(0, 1)
        self._moved()

    def action_left(self) -> None:
        if self.may("left"):
            self.pane.sideways(-1)
            self._moved()

    def action_right(self) -> None:
        if self.may("right"):
            self.pane.sideways(1)
            self._moved()

    def action_top(self) -> None:
        self.pane.to_top()
        self._moved()

    def action_bottom(self) -> None:
        self.pane.go(self.pane.view.items - 1)
        self._moved()

    def action_page_down(self) -> None:
        self.pane.half_page(1)
        self._moved()

    def action_page_up(self) -> None:
        self.pane.half_page(-1)
        self._moved()

    def _moved(self) -> None:
        """What can be selected may differ here, and what is asked about."""
        self.pane.pointed = True
        self.query_one("#keys", Bar).sync()
        self.query_one("#hint", Bar).sync()

    # --- choosing --------------------------------------------------------------------------------

    def action_select(self) -> None:
        if self.pane.view.open(self.pane.cursor):
            self.sync()
        elif self.active == REQUESTS and self.zoomed and self.request_meant is not None:
            self.action_tokens()
        elif self.may("select"):
            target, place = self.pane.target, self._place
            if place is not None:
                self.stay()
                self.go(place)
            elif target == self.store.selected:
                target = None
            self.select(target)

    @property
    def _place(self) -> Position | None:
        """Where in the run the line under the cursor leads."""
        return self.pane.view.place(self.pane.cursor)

    def action_clear(self) -> None:
        if self.store.selected is not None:
            self.select(None)
        elif self.end_question():
            return
        elif self._filtered:
            self.events.filter = None
            self.sync()
        elif self.zoomed:
            self.action_zoom()
        else:
            self.may("clear")

    def select(self, target: Target | None) -> None:
        """Light up ``target``, and in the other panes what belongs to it; None ends that."""
        self.store.select(target)
        for number, pane in self.panes.items():
            pane.pointed = False
            if number != self.active:
                pane.reveal()
        self.sync()

    @on(Pane.Sized)
    def _pane_sized(self) -> None:
        self.query_one("#rule", Bar).sync()

    @on(Pane.Clicked)
    def _pane_clicked(self, message: Pane.Clicked) -> None:
        if message.pane.number and message.pane.number != self.active:
            self.action_pane(message.pane.number)

    @on(StepStrip.Chosen)
    def _step_chosen(self, message: StepStrip.Chosen) -> None:
        self.stay()
        self.go(self.store.past.end_of_step(message.step))

    @on(Pane.Chosen)
    def _pane_chosen(self, message: Pane.Chosen) -> None:
        self.select(message.target)
