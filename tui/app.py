"""The application: takes a source's messages in, and shows the screen they call for.

app = DebuggerApp(source)
app.run()
app.fatal         # the one line to print when it did not go well, else None
app.return_code   # 0; 2 when the user can mend it; 1 for anything else
"""

import os
import sys
from collections.abc import Iterable
from functools import partial
from typing import Any, Protocol, runtime_checkable

from textual.app import App, SystemCommand
from textual.dom import DOMNode
from textual.message import Message
from textual.notifications import SeverityLevel
from textual.screen import Screen

from ..engine.events import StepFailed, StepRecord
from ..engine.stops import Stopped
from .actions import ACTIONS, APP, bindings
from .commands import COMMANDS
from .crash import write_log
from .inbox import Inbox
from .palette import DARK, OWN
from .screens.help import HelpScreen
from .screens.loading import LoadingScreen
from .screens.main import MainScreen
from .sources.base import (
    BreakpointsChanged,
    Failed,
    ModeChanged,
    Progress,
    Ready,
    Rejected,
    Source,
)
from .sources.base import Message as SourceMessage
from .store import Store

TICK = 0.1  # seconds between looks into the inbox while the engine plays
TAKE = 0.05  # seconds one look may take before keys and drawing get their turn


@runtime_checkable
class Synced(Protocol):
    """A screen that shows what is in the store."""

    def sync(self) -> None: ...


class DebuggerApp(App[None]):
    """Shows one source until it or the user ends it."""

    TITLE = "minisgl-tui"
    CSS_PATH = "debugger.tcss"
    BINDINGS = bindings(APP)
    ESCAPE_TO_MINIMIZE = False
    ALLOW_SELECT = False

    class Woken(Message):
        """Something is in the inbox."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source
        self.fatal: str | None = None
        self.store: Store | None = None
        self.loading_screen = LoadingScreen()
        self.main: MainScreen | None = None
        self._code = 0
        self._inbox = Inbox(lambda: self.post_message(self.Woken()))
        self.animation_level = "none"
        for theme in OWN:
            self.register_theme(theme)
        self.theme = DARK.name

    def on_mount(self) -> None:
        self.push_screen(self.loading_screen)
        self.set_interval(TICK, self._take_in)
        self.source.start(self._inbox)

    def run(self, *args: Any, **options: Any) -> None:
        """Run until the user leaves and the source has come to its end."""
        try:
            super().run(*args, **options)
        finally:
            self._await_source()

    def run_to_exit_code(self) -> int:
        """`run`, then say at the prompt what went wrong, if anything did."""
        self.run()
        if self.fatal:
            print(f"minisgl-tui: {self.fatal}", file=sys.stderr)
        return self.return_code or 0

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

    # --- messages --------------------------------------------------------------------------------

    def on_debugger_app_woken(self) -> None:
        self._take_in()

    def _take_in(self) -> None:
        """Take in what is waiting, then draw once."""
        any_came = False
        for message in self._inbox.take(TAKE):
            self._take(message)
            any_came = True
        if any_came and self.store is not None and self.main is not None:
            self.store.settle()
            self.main.sync()
            if isinstance(self.screen, Synced):
                self.screen.sync()

    def _take(self, message: SourceMessage) -> None:
        store = self.store
        if isinstance(message, StepRecord) and store is not None:
            store.apply(message)
            for event in message.events:
                if isinstance(event, StepFailed):
                    self.notify(event.error, title="the step failed", severity="error")
        elif isinstance(message, ModeChanged) and store is not None:
            store.change_mode(message)
        elif isinstance(message, Stopped | BreakpointsChanged) and store is not None:
            store.stops.take(message)
        elif isinstance(message, Progress):
            self.loading_screen.show(message)
        elif isinstance(message, Ready):
            self._show_engine(message)
        elif isinstance(message, Rejected):
            self.notify(message.message, title="not done", severity="error")
        elif isinstance(message, Failed):
            self._fail(message)

    def _show_engine(self, ready: Ready) -> None:
        self.store = Store(ready.config, ready.info, ready.codec, ready.recording)
        self.main = MainScreen(self.store, self.source)
        self.switch_screen(self.main)
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
        elif self.main is None:
            self.loading_screen.fail(failed.message, failed.log)
        else:
            self.main.fail(failed.message, failed.log)

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
        self.exit(return_code=self._code)

    def action_help(self) -> None:
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen())

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Every action of the key table that can be chosen here, and the themes."""
        for action in ACTIONS:
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
