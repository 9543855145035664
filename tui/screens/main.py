"""The debugger's screen: one selection, and every key.

The panes are `arranged.py`'s, and what the engine does is the source's business.
"""

from math import inf
from typing import TYPE_CHECKING, cast

from textual import on

from ...engine.debugger import Mode
from ...engine.events import Position
from ..actions import CHOOSE, LOOK, MOVE, RUN, TIME, bindings, key
from ..event_filter import EventFilter
from ..forking import Forked
from ..selection import Target
from ..sources.base import Source
from ..store import Store
from ..views.status import RATES, rate_text
from ..widgets.bars import Bar
from ..widgets.pane import Pane
from ..widgets.strip import StepStrip
from .arranged import Arranged
from .filter import FilterScreen
from .layout import BLOCKS, EVENTS, PANES, REQUESTS
from .prompt import PromptScreen

if TYPE_CHECKING:
    from ..app import DebuggerApp

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


class MainScreen(Arranged):
    """Shows ``store`` and passes commands on to ``source``."""

    BINDINGS = bindings(RUN, TIME, LOOK, MOVE, CHOOSE)
    AUTO_FOCUS = ""

    def __init__(self, store: Store, source: Source) -> None:
        super().__init__(store, source)
        self.rate: float | None = 4  # steps a second that play runs at; None: all it can

    # --- beside other runs -----------------------------------------------------------------------

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

    # At the end of a live run it is the engine that moves; elsewhere one does, in the record.

    def step(self, count: int = 1) -> None:
        if self.store.follows:
            self.source.step(count)
        else:
            self.step_in_past(count)

    def play(self) -> None:
        if self.store.follows:
            self.source.play(self.rate)
        else:
            self.play_past()

    def until(self, condition: str) -> None:
        """Raises `UserError` if ``condition`` is none."""
        if self.store.follows:
            self.source.until(condition)
        else:
            self.hunt_for(condition)

    def action_step(self) -> None:
        if self.may("step"):
            self.step()

    def action_play(self) -> None:
        if self.plays_past:
            self.stay()
        elif self.store.follows and self.store.mode is Mode.PLAYING:
            if self.may("pause"):
                self.source.pause()
        elif self.may("play"):
            self.play()

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
        self.rearrange()

    def action_next_pane(self) -> None:
        self.action_pane(self.active % len(PANES) + 1)

    def action_previous_pane(self) -> None:
        self.action_pane((self.active - 2) % len(PANES) + 1)

    def action_zoom(self) -> None:
        self.zoomed = not self.zoomed
        self.rearrange()

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
