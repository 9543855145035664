"""What of the debugger's screen is time travel: where in the run it looks, and asking why.

At the end of a live run the screen follows the engine; the keys that go back leave it there and
move through the record. `Store.look_at` makes the picture, `hunt.py` finds the stops.
"""

from collections.abc import Callable

from textual.timer import Timer

from ...engine.chronicle import ALL, Kind, touches
from ...engine.errors import UserError
from ...engine.events import Position
from ...engine.positions import parse
from ..actions import key
from ..diff import differences
from ..forking import Forked, read_changes
from ..hunt import Hunt, Search
from ..selection import Target
from ..sources.base import Source
from ..store import Store
from ..views.causes import CausesView
from ..views.events import about
from ..views.why import WhyView
from ..widgets.pane import Pane
from .commanding import Commanding
from .diff import DiffScreen
from .fork import ForkingScreen, ForkScreen
from .layout import WHY

_TICK = 0.05  # seconds between two pictures while the past is played
_FULL_SPEED = 200  # steps a second, where no speed is set
_TURN = 0.03  # seconds a hunt takes before the screen gets its turn


class Travelling(Commanding):
    """Moves `store` through the record of its run."""

    panes: dict[int, Pane]
    strip: Pane
    rate: float | None

    def __init__(self, store: Store, source: Source) -> None:
        super().__init__(store, source)
        self._player: Timer | None = None
        self._due = 0.0  # steps to show, as a fraction
        self._hunter: Timer | None = None
        self._hunt: Hunt | Search | None = None
        self._arrive: Callable[[], None] = lambda: None  # when the hunt is over
        self._asked: tuple[Target, Position] | None = None  # why, before it is known
        self._asks_there = False  # why, of what is shown when the hunt is over
        self._causes, self._decisions = CausesView(), WhyView()

    # --- moving ----------------------------------------------------------------------------------

    def go(self, position: Position | None, otherwise: str = "") -> None:
        """Look at ``position``; where there is none, say why."""
        if position is None:
            self.notify(otherwise, severity="warning", timeout=3)
            return
        try:
            self.store.look_at(position)
        except UserError as error:  # a damaged recording
            self.notify(str(error), severity="error")
            return
        if self.store.reading is not None:
            self.source.read_to(position)  # for all that indexes the records
        self.sync()

    def go_to(self, text: str) -> None:
        """Look at the position that ``text`` names. Raises `UserError`."""
        self.stay()
        marks = self.store.marks
        self.go(marks[text] if text in marks else parse(text, self.store.past))

    def no_way_on(self) -> str:
        """Why a position in the past cannot be left forward; empty if it can."""
        store = self.store
        run = "run" if store.over else "recording"
        return f"this is the end of the {run}" if store.position == store.past.end else ""

    def _stepped(self, towards: Callable[[Position], Position | None], otherwise: str) -> None:
        self.stay()
        self.go(towards(self.store.position), otherwise)

    def step_in_past(self, count: int = 1) -> None:
        """That many steps forward in the record, or as many as there are."""

        def towards(position: Position) -> Position | None:
            reached = None
            for _ in range(count):
                following = self.store.past.step_after(reached or position)
                if following is None:
                    break
                reached = following
            return reached

        self._stepped(towards, "this is the end of the recording")

    def action_back(self) -> None:
        self._stepped(self.store.past.step_before, "this is the start")

    def action_event(self) -> None:
        self._stepped(self.store.past.after, "no event has come after this one; s takes a step")

    def action_event_back(self) -> None:
        self._stepped(self.store.past.before, "this is the start")

    def action_live(self) -> None:
        """To the end: of a live run to follow it, of a recording to its last event."""
        self.stay()
        self.go(self.store.past.end)

    def action_change(self, by: int) -> None:
        """To the next event that touched what is selected or under the cursor, or the last one."""
        target = self.store.selected or self.pane.target
        if target is None:
            self.notify("select a request, node or block first", severity="warning", timeout=3)
            return
        nothing = (
            f"nothing touched {target.kind} {target.id} {'after' if by > 0 else 'before'} this"
        )
        self._to_event(target.kind, target.id, by, lambda found: self.go(found, nothing))

    def action_notable(self, by: int) -> None:
        """To the next or last preemption, eviction, refusal or failure, and to whom it was."""
        when = "after" if by > 0 else "before"

        def arrive(found: Position | None) -> None:
            self.go(found, f"nothing was preempted, evicted or refused {when} this")
            event = self.store.past.event(found) if found else None
            if event is not None:
                self.pane.reveal()
                self.select(about(event, self.store.state))

        self._to_event("notable", ALL, by, arrive)

    def _to_event(
        self, kind: Kind, id: int, by: int, arrive: Callable[[Position | None], None]
    ) -> None:
        """Find the next event that touched this, or the last one, and ``arrive`` there: by the
        index, and among records that have not come in yet by looking at each."""
        self.stay()
        store, here, back = self.store, self.store.position, by < 0
        known = (store.chronicle.before if back else store.chronicle.after)(kind, id, here)
        first = store.past.records_until(store.newest)  # of those that have not come in
        if first == len(store.past) or (known is not None and not back):
            arrive(known)
            return
        search = Search(store.past, here, lambda event: touches(event, kind, id), back, first)
        self._begin(search, lambda: arrive(search.found or known))

    def action_other_run(self, by: int) -> None:
        """To the run before this one, or after it."""
        self.stay()
        try:
            self._whole.show_other_run(by)
        except UserError as error:
            self.notify(str(error), severity="warning", timeout=3)

    # --- playing the record ----------------------------------------------------------------------

    @property
    def plays_past(self) -> bool:
        return self._player is not None

    def play_past(self) -> None:
        """Show step after step at the chosen speed, up to the end; there, go on with a live run."""
        self.stay()
        self._due = 0.0
        self._player = self.set_interval(_TICK, self._play_on)

    def _play_on(self) -> None:
        self._due += _TICK * (self.rate or _FULL_SPEED)
        position: Position | None = self.store.position
        while self._due >= 1 and position is not None:
            self._due -= 1
            following = self.store.past.step_after(position)
            if following is None:
                self.stay()
                break
            position = following
        if position is not None and position != self.store.position:
            self.store.look_at(position)
        if self.store.follows:
            self.stay()
        self.sync()

    def stay(self) -> None:
        """Neither play nor hunt any longer."""
        for timer in (self._player, self._hunter):
            if timer is not None:
                timer.stop()
        self._player = self._hunter = None
        self._hunt = None
        self._asks_there = False
        self.store.hunting = ""

    # --- to the next stop ------------------------------------------------------------------------

    def hunt(self, back: bool) -> None:
        """Go to the next place where a breakpoint stops, or the last one; without breakpoints to
        the end or the start."""
        self.stay()
        store = self.store
        breakpoints = store.stops.breakpoints
        conditions = {b.id: b.condition for b in breakpoints if b.enabled and not b.log_only}
        if not conditions:
            self.go(store.past.start if back else store.past.end)
            return
        hunt = Hunt(store.past, store.position, conditions, back)
        where = "before" if back else "after"
        self._begin(hunt, lambda: self._stopped(hunt, f"no breakpoint stops {where} this"))

    def hunt_for(self, condition: str) -> None:
        """Go to the next place where ``condition`` comes true. Raises `UserError` if it is none."""
        hunt = Hunt(self.store.past, self.store.position, {0: condition})
        self.stay()
        self._begin(hunt, lambda: self._stopped(hunt, f"{condition} does not come true after this"))

    def _begin(self, hunt: Hunt | Search, arrive: Callable[[], None]) -> None:
        """Go on with ``hunt`` until it is over, then ``arrive``."""
        self._hunt, self._arrive = hunt, arrive
        self._hunter = self.set_interval(_TICK, self._hunt_on)
        self._hunt_on()

    def _hunt_on(self) -> None:
        hunt = self._hunt
        if hunt is None:
            return
        if hunt.go_on(_TURN):
            asks, here = self._asks_there, self.store.position
            self.stay()
            self._arrive()
            if asks and self.store.position != here:
                self.action_why()
        else:
            what = "stop" if isinstance(hunt, Hunt) else "event"
            self.store.hunting = f"looking for the next {what}: {hunt.at} · any move ends it"
            self.sync()

    def _stopped(self, hunt: Hunt, nothing: str) -> None:
        """Show what ``hunt`` has found; ``nothing`` says that it has not."""
        stop = hunt.found
        if stop is not None:
            self.go(Position(stop.step, stop.index))
            self.tell(stop.text if stop.breakpoint else f"{stop.what} · {stop.condition}")
            self.show_stop(stop)
        elif hunt.back:
            self.go(self.store.past.start)
            self.tell(f"{nothing}: this is the start")
        else:
            self.go(self.store.past.end)
            self.tell(f"{nothing}: this is the end")

    def action_go_back(self) -> None:
        self.hunt(back=True)

    # --- marks -----------------------------------------------------------------------------------

    def action_mark(self) -> None:
        self.mark("mark")

    def mark(self, name: str) -> None:
        """Remember the position under ``name``."""
        self.store.marks[name] = self.store.position
        to = "' goes back there" if name == "mark" else f":goto {name} goes back there"
        self.tell(f"{self.store.position} is marked: {to}, d shows what has changed since")

    def action_to_mark(self) -> None:
        self.stay()
        here = self.store.position
        self.go(self.store.marks.get("mark"), "nothing is marked yet: m marks where you are")
        if "mark" in self.store.marks:
            self.store.marks["mark"] = here  # so that the same key comes back

    def action_diff(self) -> None:
        self.diff("mark")

    def diff(self, name: str) -> None:
        """Show what differs between the mark ``name`` and here."""
        marks, store = self.store.marks, self.store
        if name not in marks:
            known = f"{key('mark')} makes one here"
            if marks:
                known = f"marked {'is' if len(marks) == 1 else 'are'} {', '.join(marks)}"
            self.notify(f"there is no mark {name!r}; {known}", severity="warning", timeout=3)
            return
        then = store.past.state_at(marks[name])
        lines = differences(then, store.state)
        self.app.push_screen(DiffScreen(f"{marks[name]} → {store.position}", lines))

    # --- forks -----------------------------------------------------------------------------------

    def action_fork(self) -> None:
        self.type_command("fork ")

    def fork(self, text: str) -> None:
        """Run on from here with the changes in ``text``, beside the run. Raises `UserError`."""
        store = self.store
        changes = read_changes(text, store.config)
        self.stay()

        def made(forked: Forked | UserError | None) -> None:
            if isinstance(forked, UserError):
                self.type_command(f"fork {text}", str(forked))
            elif forked is not None:
                self.app.push_screen(ForkScreen(store, forked), self._fork_chosen)

        self.app.push_screen(ForkingScreen(store, store.position, changes), made)

    def _fork_chosen(self, forked: Forked | None) -> None:
        if forked is not None:
            self._whole.show_fork(forked)

    # --- why -------------------------------------------------------------------------------------

    def action_why(self) -> None:
        """Explain what is meant: see `Commanding.meant`. While an event is looked for, that is
        what is meant there."""
        if self._hunt is not None:
            self._asks_there = True
            self.notify("the place is being looked for: the answer comes there", timeout=3)
            return
        target = self.meant
        if target is None:
            self.notify("put the cursor on a request, node or block", severity="warning", timeout=3)
            return
        self.explain(target)

    def explain(self, target: Target) -> None:
        if self.store.reading is not None:
            self._asked = target, self.store.position
            words = f"the recording is being read ({self.store.reading:.0%}): the answer comes then"
            self.notify(words, timeout=3)
            return
        try:
            self.store.ask(target)
        except UserError as error:
            self.notify(str(error), severity="error")
            return
        self.panes[WHY].show(self._causes)
        self.action_pane(WHY)

    def answer_when_read(self) -> None:
        """Explain what was asked about before the recording was read that far, unless one has
        gone elsewhere."""
        if self._asked and self.store.reading is None:
            (target, position), self._asked = self._asked, None
            if position == self.store.position:
                self.explain(target)

    def end_question(self) -> bool:
        """Back to the decisions; false if no question is open."""
        if self.store.question is None:
            return False
        self.store.question = None
        self.panes[WHY].show(self._decisions)
        self.sync()
        return True
