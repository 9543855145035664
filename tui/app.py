"""The application: takes a source's messages in, and shows the screen they call for.

app = DebuggerApp(source)
app.run()
app.fatal         # the one line to print when it did not go well, else None
app.return_code   # 0; 2 when the user can mend it; 1 for anything else
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from textual import events
from textual.app import App, SystemCommand
from textual.dom import DOMNode
from textual.driver import Driver
from textual.filter import LineFilter
from textual.message import Message
from textual.notifications import SeverityLevel
from textual.screen import Screen

from ..engine.errors import UserError
from ..engine.events import StepFailed, StepRecord
from ..engine.garbage import collect_seldom
from ..engine.stops import Stopped
from . import themes
from .actions import ACTIONS, APP, bindings, key, table
from .ascii import AsciiFilter
from .commands import COMMANDS
from .crash import write_log
from .decoding import Texts
from .hangup import forgiving, leave_terminal
from .inbox import Inbox
from .pace import TICK, Pace
from .palette import DARK, OWN
from .runs import Runs
from .screens.help import HelpScreen
from .screens.loading import LoadingScreen
from .screens.main import MainScreen
from .screens.typing import TypingScreen
from .session_files import SessionFile
from .sources.base import (
    BreakpointsChanged,
    Failed,
    Link,
    ModeChanged,
    Progress,
    Ready,
    RecordingEnded,
    Rejected,
    Source,
)
from .sources.base import Message as SourceMessage
from .steps import STOPPED
from .store import Store
from .text import escape_texts
from .widgets.lines import LineWidget

ASK = 6.0  # seconds in which a second press of the key leaves
TAKE = 0.05  # seconds one look may take before keys and drawing get their turn …
BREATH = 0.01  # … which is so long


@runtime_checkable
class Synced(Protocol):
    """A screen that shows what is in the store."""

    def sync(self) -> None: ...


class DebuggerApp(App[None]):
    """Shows one source until it or the user ends it.

    With ``keeps`` everything is recorded elsewhere, so that nothing is lost when the user leaves.
    Else a ``session_file`` keeps what there was, should it end in any other way.
    """

    TITLE = "minisgl-tui"
    CSS_PATH = "debugger.tcss"
    BINDINGS = bindings(APP)
    ESCAPE_TO_MINIMIZE = False
    ALLOW_SELECT = False

    class Woken(Message):
        """Something is in the inbox."""

    def __init__(
        self,
        source: Source,
        theme: str = DARK.name,
        ascii: bool = False,
        command_line: str = "",
        keeps: bool = False,
        session_file: SessionFile | None = None,
    ) -> None:
        super().__init__()
        self.source = source
        self.command_line = command_line  # what started the program
        self.ascii = ascii
        escape_texts(ascii)
        self._ascii = AsciiFilter()
        self._keeps = keeps
        self.session_file = session_file
        self._asked = False
        self._hung_up = False
        self._left = False  # by its user, who has asked for it
        self.fatal: str | None = None
        self.loading_screen = LoadingScreen()
        self.runs = Runs(self)
        self._code = 0
        self._inbox = Inbox(lambda: self.post_message(self.Woken()))
        self.pace = Pace()
        self._taking = 0.0  # seconds of processor time that taking in has taken so far
        self._goes_on = False  # a timer is set, to take in more
        self._undrawn = False  # something came in that does not show yet
        self.animation_level = "none"
        for own in (*OWN, *themes.load_all()):
            self.register_theme(own)
        if theme not in self.available_themes:
            known = ", ".join(self.available_themes)
            raise UserError(f"there is no theme {theme!r}; there are {known}")
        self.theme = theme

    @property
    def store(self) -> Store | None:
        """Of the run that goes on."""
        return self.runs.store

    @property
    def main(self) -> MainScreen | None:
        """The screen of the run that shows."""
        return self.runs.shown

    def on_mount(self) -> None:
        default = {action.id: action.keys for action in ACTIONS}
        self.set_keymap({a.id: a.keys for a in table() if a.keys != default[a.id]})
        self.push_screen(self.loading_screen)
        self.set_interval(TICK, self._take_in)
        self._heed_signals()
        self.source.start(self._inbox)

    def run(self, *args: Any, **options: Any) -> None:
        """Run until the user leaves and the source has come to its end."""
        collect_seldom()
        try:
            super().run(*args, **options)
        finally:
            if self._hung_up:
                leave_terminal()
            self._await_source()
            self._close_session()

    def _close_session(self) -> None:
        """Keep the session, unless it is its user who has left."""
        if self.session_file is None:
            return
        if self._left and not self.fatal:
            self.session_file.leave()
        elif words := self.session_file.keep():
            print(f"minisgl-tui: {words}", file=sys.stderr)

    def run_to_exit_code(self) -> int:
        """`run`, then say at the prompt what went wrong, if anything did."""
        self.run()
        if self.fatal:
            print(f"minisgl-tui: {self.fatal}", file=sys.stderr)
        return self.return_code or 0

    def get_driver_class(self) -> type[Driver]:
        return forgiving(super().get_driver_class())

    def _heed_signals(self) -> None:
        """Whoever asks the program to end, or closes its terminal, is heard between two steps."""
        if self.is_headless or os.name != "posix":
            return
        loop = asyncio.get_running_loop()
        for one in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(one, self._end_by, one)

    def _end_by(self, one: signal.Signals) -> None:
        self._hung_up = one is signal.SIGHUP
        self.exit(return_code=128 + one)

    def _await_source(self) -> None:
        if self.source.wait(0.5):
            return
        busy = "loading" if self.store is None else "the step in progress"
        print(f"minisgl-tui: waiting for {busy} to end; ctrl+c stops at once", file=sys.stderr)
        try:
            self.source.wait(None)
        except KeyboardInterrupt:
            os._exit(130)

    def on_unmount(self) -> None:
        self._inbox.close()
        self.source.close()

    def on_key(self, event: events.Key) -> None:
        """A key that nothing has taken: it may be meant for a box that is just being opened."""
        screen = self.screen
        if isinstance(screen, TypingScreen) and screen.type_early(event.key, event.character):
            event.prevent_default()

    # --- messages --------------------------------------------------------------------------------

    def on_debugger_app_woken(self) -> None:
        self._take_in()

    def _take_in(self) -> None:
        """Take in what is waiting, for a while; then draw, at once or when the pace allows."""
        began, at_once = time.thread_time(), False
        for message in self._inbox.take(TAKE):
            self._take(message)
            at_once = at_once or not isinstance(message, StepRecord)
            self._undrawn = True
        self._taking += time.thread_time() - began
        if self._inbox.waits and not self._goes_on:
            self._goes_on = True
            self.set_timer(BREATH, self._take_on)
        self.runs.show_wanted()
        if self._undrawn and (at_once or self.pace.due()):
            self._draw()

    def _take_on(self) -> None:
        self._goes_on = False
        self._take_in()

    def _draw(self) -> None:
        """Bring what shows up to date with the store."""
        if self.store is None or self.main is None:
            return
        self._undrawn = False
        began = time.thread_time() - self._taking
        self.pace.begin()
        self.store.settle()
        if self.main.store is self.store:
            self.main.sync()
        if isinstance(self.screen, Synced):
            self.screen.sync()
        self.call_after_refresh(self._drawn, began)

    def _drawn(self, began: float) -> None:
        """What was brought up to date is painted."""
        self.pace.end(time.thread_time() - self._taking - began)
        if self.store is not None:
            self.store.slow = self.pace.slow

    def _take(self, message: SourceMessage) -> None:
        store = self.store
        if isinstance(message, StepRecord) and store is not None:
            store.apply(message)
            for event in message.events:
                if isinstance(event, StepFailed):
                    self.notify(event.error, title="the step failed", severity="error")
        elif isinstance(message, ModeChanged) and store is not None:
            store.change_mode(message)
        elif isinstance(message, Link) and store is not None:
            store.link = message
        elif isinstance(message, Stopped | BreakpointsChanged) and store is not None:
            store.stops.take(message)
            if isinstance(message, Stopped) and (message.hits or message.until):
                store.steps.mark(message.step, STOPPED)
        elif isinstance(message, Progress):
            self.loading_screen.show(message)
        elif isinstance(message, Ready):
            self._show_engine(message)
        elif isinstance(message, RecordingEnded) and store is not None:
            store.records_to = ""
            self.notify(message.message, title="not recorded", severity="error", timeout=15)
        elif isinstance(message, Rejected):
            self.notify(message.message, title="not done", severity="error")
        elif isinstance(message, Failed):
            self._fail(message)

    def _show_engine(self, ready: Ready) -> None:
        self.runs.begin(ready)
        if session := self.session_file:
            for words in filter(None, (session.found, session.problem)):
                self.notify(words, title="sessions", severity="warning", timeout=12)
        if recording := ready.recording:
            for note in recording.notes:
                self.notify(note, title=recording.name, severity="warning", timeout=8)

    def _fail(self, failed: Failed) -> None:
        self._code = 1 if failed.log else 2
        self.fatal = failed.message
        if failed.log:
            self.fatal += f"; the traceback is in {failed.log}"
        if self.main is None and not failed.log:
            self.exit(return_code=self._code)  # the line at the prompt says it all
        elif self.runs.last is None:
            self.loading_screen.fail(failed.message, failed.log)
        else:
            self.runs.last.fail(failed.message, failed.log)

    def _handle_exception(self, error: Exception) -> None:
        """A fault of the screens themselves: to the log, and one line at the prompt."""
        if self.is_headless:
            super()._handle_exception(error)  # tests want to see it
            return
        self.fatal = f"{type(error).__name__}: {error}; the traceback is in {write_log(error)}"
        self.exit(return_code=1)

    # --- actions ---------------------------------------------------------------------------------

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = False,
    ) -> None:
        """Show a toast, unless one that says the same is still there."""
        if all((old.title, old.message) != (title, message) for old in self._notifications):
            super().notify(message, title=title, severity=severity, timeout=timeout, markup=markup)

    async def action_quit(self) -> None:
        typed = self.main.typed_prompts if self.main and not self._keeps else 0
        if typed and not self._asked and not self.fatal:
            self._asked = True
            self.set_timer(ASK, self._forget_asking)
            what = "the prompt that was typed, and its answer, are"
            if typed > 1:
                what = f"the {typed} prompts that were typed, and their answers, are"
            words = f"{what} recorded nowhere; {key('quit')} again leaves"
            self.notify(words, severity="warning", timeout=ASK)
            return
        self._left = True
        self.exit(return_code=self._code)

    def _forget_asking(self) -> None:
        self._asked = False

    def action_help(self) -> None:
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen(self.main.pane.view if self.main else None))

    def get_line_filters(self) -> Sequence[LineFilter]:
        filters = super().get_line_filters()
        return [*filters, self._ascii] if self.ascii else filters

    def set_ascii(self, on: bool) -> None:
        """Draw with ASCII alone from now on, or with all glyphs again."""
        self.ascii = on
        escape_texts(on)
        if self.store is not None:
            self.store.texts = Texts(self.store.texts.codec)
        for screen in self.screen_stack:
            for widget in screen.walk_children():
                if isinstance(widget, LineWidget):
                    widget.forget()
                    widget.sync()
                widget.refresh()
            screen.refresh()

    def action_picture(self) -> None:
        self.screenshot("")

    def screenshot(self, name: str) -> None:
        """Write the screen to the SVG file ``name``, or to a new one. Raises no error: it says."""
        step = self.store.state.step if self.store else 0
        path = Path(name).expanduser() if name else _free(Path(f"minisgl-tui-step-{step}.svg"))
        if path.suffix != ".svg":
            path = path.with_name(path.name + ".svg")
        try:
            path.write_text(self.export_screenshot(), encoding="utf-8")
        except OSError as error:
            self.notify(f"cannot write {path}: {error.strerror}", severity="error")
        else:
            self.notify(str(path.resolve()), title="the screen is in", timeout=6)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Every action of the key table that can be chosen here, and the themes."""
        for action in table():
            here = self if action.group == APP else screen
            if action.name != "command_palette" and hasattr(here, f"action_{action.name}"):
                title = f"{action.title} ({action.shown})"
                yield SystemCommand(title, action.about, partial(self._act, here, action.call))
        main = self.main
        if main is not None and screen is main:
            for command in COMMANDS.values():
                if command.needs_words:
                    ask = partial(main.type_command, command.name + " ")
                    yield SystemCommand(f"{command.usage} (:)", command.about, ask)
        yield SystemCommand("Theme", "choose other colours", self.action_change_theme)

    async def _act(self, here: DOMNode, call: str) -> None:
        await self.run_action(call, here)


def _free(path: Path) -> Path:
    """``path``, or with a number if there is such a file already."""
    names = (path, *(path.with_stem(f"{path.stem}-{n}") for n in range(2, 1000)))
    return next((name for name in names if not name.exists()), path)
