"""The runs that one program shows, one after the other: a server that is watched may start anew.

Each has a store and a screen of its own, so whatever was seen of an earlier run stays there to be
read. Only the last one goes on.
"""

from typing import TYPE_CHECKING

from ..engine.errors import UserError
from .actions import key
from .forking import Forked
from .screens.main import MainScreen
from .sources.base import Ready
from .store import Store

if TYPE_CHECKING:
    from .app import DebuggerApp

KEEP = 6  # runs; older ones are forgotten


class Runs:
    """``shown`` is the screen in sight, or the one below a box that lies over it; ``store`` is that
    of the run that goes on."""

    def __init__(self, app: "DebuggerApp") -> None:
        self.store: Store | None = None
        self.shown: MainScreen | None = None
        self._app = app
        self._kept: list[MainScreen] = []
        self._begun = 0
        self._wanted: MainScreen | None = None

    @property
    def last(self) -> MainScreen | None:
        """The screen of the run that goes on."""
        return self._kept[-1] if self._kept else None

    def begin(self, ready: Ready) -> None:
        """Show another run; but who looks into the past of the one before may stay there."""
        before = self.store
        session = self._app.session_file
        kept = session.history(ready) if session else None
        self.store = store = Store(
            ready.config, ready.info, ready.codec, ready.recording, ready.state, kept
        )
        if kept is not None:
            store.on_look = kept.look
        store.records_to, store.origin = ready.records_to, ready.origin
        screen = self._install(store)
        screen.rate = ready.rate
        self._kept.append(screen)
        if before is None or self.shown is None:
            self.shown = screen
            self._app.switch_screen(screen)
            return
        before.over = ready.origin.ended
        store.link, before.link, before.records_to = before.link, None, ""
        screen.look_like(self.shown)
        if self.shown.store is before and before.follows:
            self._wanted = screen
        self._tell_of(ready)
        self._forget()
        self.show_wanted()

    def _install(self, store: Store) -> MainScreen:
        screen = MainScreen(store, self._app.source)
        self._begun += 1
        self._app.install_screen(screen, f"run-{self._begun}")  # kept, shown or not
        return screen

    def add_fork(self, of: MainScreen, forked: Forked) -> None:
        """Show a fork of the run on the screen ``of``, before which it is put."""
        screen = self._install(forked.store)
        self._kept.insert(self._kept.index(of), screen)
        screen.look_like(of)
        self._wanted = screen
        self.show_wanted()
        self._forget()

    def show_other(self, by: int) -> None:
        """The run before (``by`` = -1) or after the one that shows. Raises `UserError`."""
        assert self.shown
        wanted = self._kept.index(self.shown) + by
        if len(self._kept) == 1:
            raise UserError("this is the only run there is")
        if not 0 <= wanted < len(self._kept):
            raise UserError(f"this is the {'first' if by < 0 else 'last'} run that is kept")
        self._wanted = self._kept[wanted]
        self.show_wanted()

    def show_wanted(self) -> None:
        """Show what is to be shown, as soon as no box lies over the screen."""
        if self._wanted is not None and self._app.screen is self.shown:
            self.shown, self._wanted = self._wanted, None
            self._app.switch_screen(self.shown)

    def _tell_of(self, ready: Ready) -> None:
        words = "; ".join(filter(None, (ready.origin.ended, ready.origin.note)))
        words += f". {key('other_run--1')} shows what came before"
        self._app.notify(words, title="a new picture", severity="warning", timeout=8)

    def _forget(self) -> None:
        """Let the oldest run go if there are too many, unless somebody looks at it."""
        oldest = self._kept[0]
        if len(self._kept) > KEEP and oldest is not self.shown:
            self._app.uninstall_screen(self._kept.pop(0))
            oldest.store.past.close()
