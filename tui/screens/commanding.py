"""The part of the debugger's screen that takes commands: the line, breakpoints, what may be done.

`MainScreen` is this and the panes. What each command does is in `../commands.py`.
"""

from abc import abstractmethod
from typing import TYPE_CHECKING, cast

from textual.screen import Screen

from ...engine.breakpoints import on_block, on_node, on_request
from ...engine.errors import UserError
from ...engine.stops import Stop
from ...engine.wording import plural
from ..commands import execute
from ..selection import Target
from ..sources.base import Source
from ..store import Store
from ..text import clip, visible
from ..widgets.pane import Pane
from .breakpoints import BreakpointsScreen
from .command import CommandScreen
from .jump import JumpScreen
from .layout import WHY
from .tokens import TokensScreen

if TYPE_CHECKING:
    from .main import MainScreen

_BREAK_ON = {"request": on_request, "node": on_node, "block": on_block}


class Commanding(Screen[None]):
    """A screen over ``store`` whose commands go to ``source``."""

    def __init__(self, store: Store, source: Source) -> None:
        super().__init__()
        self.store = store
        self.source = source
        self._typed: list[str] = []  # command lines, oldest first
        self.typed_prompts = 0

    # --- the panes' part -------------------------------------------------------------------------

    @property
    @abstractmethod
    def pane(self) -> Pane: ...

    @abstractmethod
    def why_not(self, name: str) -> str:
        """Why the action would do nothing now; empty if it would do something."""

    @abstractmethod
    def select(self, target: Target | None) -> None: ...

    @abstractmethod
    def action_pane(self, number: int) -> None: ...

    @abstractmethod
    def rearrange(self) -> None:
        """Make room for what has come, or take back what has gone."""

    @abstractmethod
    def sync(self) -> None: ...

    # --- what may be done ------------------------------------------------------------------------

    def check(self, name: str) -> None:
        """Raises `UserError` with the reason if the action would do nothing now."""
        if reason := self.why_not(name):
            raise UserError(reason)

    def may(self, name: str) -> bool:
        """Whether the action would do something; if not, the reason is shown."""
        reason = self.why_not(name)
        if reason:
            self.notify(reason, severity="warning", timeout=3)
        return not reason

    # --- commands --------------------------------------------------------------------------------

    def action_command(self, line: str = "") -> None:
        self.type_command(line)

    @property
    def _whole(self) -> "MainScreen":
        """This screen with its panes, which is what commands are carried out on."""
        return cast("MainScreen", self)

    def type_command(self, line: str = "", error: str = "") -> None:
        """Open the command line with ``line`` in it."""
        self.app.push_screen(CommandScreen(self._whole, line, error, self._typed), self._execute)

    def _execute(self, line: str | None) -> None:
        if not line:
            return
        if line not in self._typed[-1:]:
            self._typed.append(line)
        try:
            execute(self._whole, line)
        except UserError as error:
            self.type_command(line, str(error))
        self.sync()

    def do(self, call: str) -> None:
        """Run the action as its key would."""
        name = call.partition("(")[0]
        here = self if hasattr(self, f"action_{name}") else self.app
        self.call_later(self.app.run_action, call, here)

    def submit(self, text: str) -> None:
        """Send a prompt that was typed."""
        self.typed_prompts += 1
        self.source.submit(text)

    def tell(self, message: str) -> None:
        self.notify(message, timeout=4)

    def action_until(self) -> None:
        if self.may("until"):
            self.type_command("until ")

    def action_watch(self) -> None:
        self.type_command("watch ")

    def action_tokens(self) -> None:
        if not self.may("tokens"):
            return
        request = self.request_meant
        assert request is not None
        screen = TokensScreen(self.store, request, self._whole.action_step)
        self.app.push_screen(screen)

    @property
    def meant(self) -> Target | None:
        """What was pointed at last: what is selected, until the cursor is moved in this pane."""
        here, selected = self.pane.target, self.store.selected
        return here if here is not None and self.pane.pointed else selected or here

    @property
    def request_meant(self) -> int | None:
        """The one under the cursor, or selected, or the only one that what is selected leads to."""
        for target in (self.pane.target, self.store.selected):
            if target is not None and target.kind == "request":
                return target.id
        linked = self.store.links.requests
        return next(iter(linked)) if len(linked) == 1 else None

    def action_copy(self) -> None:
        request = self.pane.target
        whole = request is not None and request.kind == "request" and self.pane.view.is_of_requests
        try:
            self.copy("whole" if whole else "line")
        except UserError as error:
            self.notify(str(error), severity="warning", timeout=3)

    def copy(self, what: str) -> None:
        """Put into the clipboard, by way of the terminal: the ``line`` under the cursor; the
        ``prompt``, ``answer`` or ``whole`` of its request; or the ``command`` of this program."""
        if what == "line":
            text = self.pane.line_text
        elif what == "command":
            text = self._whole.command_line
        else:
            request = self.store.state.requests.get(self.request_meant or 0)
            if self.request_meant is None or request is None:
                raise UserError("put the cursor on a request first, or select one, to copy of it")
            prompt, answer = self.store.texts.prompt(request), self.store.texts.answer(request)
            text = {"prompt": prompt, "answer": answer, "whole": prompt + answer}[what]
        if not text:
            raise UserError(f"there is no {what} to copy yet")
        self.app.copy_to_clipboard(text)
        beginning = clip(visible(text), 30)
        self.tell(f"copied {plural(len(text), 'character')}: {beginning}")

    def action_jump(self) -> None:
        self.app.push_screen(JumpScreen(self._whole.panes), self._jumped)

    def _jumped(self, number: int | None) -> None:
        if number is not None:
            self.action_pane(number)

    # --- breakpoints -----------------------------------------------------------------------------

    def action_toggle_break(self) -> None:
        """Set a breakpoint on what is meant, or take it away again."""
        if not self.may("toggle_break"):
            return
        target = self.meant
        if target is None:
            self.type_command("break ")
            return
        condition = _BREAK_ON[target.kind](target.id).text
        for breakpoint in self.store.stops.breakpoints:
            if breakpoint.condition == condition:
                self.source.remove_breakpoint(breakpoint.id)
                self.tell(f"breakpoint {breakpoint.id} is gone: {condition}")
                return
        self.add_breakpoint(condition)

    def add_breakpoint(self, condition: str, ignore: int = 0, log_only: bool = False) -> None:
        """Raises `UserError` if ``condition`` cannot be read."""
        id = self.source.add_breakpoint(condition, ignore, log_only)
        name = "breakpoint" if id is None else f"breakpoint {id}"
        self.tell(f"{name}: {'notes' if log_only else 'stops'} when {condition}")

    def action_breakpoints(self) -> None:
        self.app.push_screen(BreakpointsScreen(self.store, self.source), self._breakpoint_chosen)

    def _breakpoint_chosen(self, chosen: str | Stop | None) -> None:
        if isinstance(chosen, Stop):
            self.show_stop(chosen)
        elif chosen is not None:
            self.type_command(chosen)

    def show_stop(self, stop: Stop) -> None:
        """Select what the event of ``stop`` was about, and show the decisions."""
        request, node = getattr(stop.event, "req", -1), getattr(stop.event, "node", -1)
        if request >= 0:
            self.select(Target("request", request))
        elif node >= 0:
            self.select(Target("node", node))
        self.action_pane(WHY)
