"""The token inspector on a screen of its own, over the debugger's."""

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from ..store import Store
from ..views.tokens import TokensView
from ..widgets.pane import Pane
from .box import Box


class TokensScreen(Box[None]):
    """Shows the output of ``request`` token by token, and goes on with it while it grows."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,t,enter", "leave", "Leave", tooltip="close it", id="tokens-leave"),
        Binding("up,k", "move(-1)", "Up", tooltip="the token before", id="tokens-up"),
        Binding("down,j", "move(1)", "Down", tooltip="the next token", id="tokens-down"),
        Binding("ctrl+u,pageup", "page(-1)", "Page up", tooltip="faster", id="tokens-page-up"),
        Binding("ctrl+d,pagedown", "page(1)", "Page down", tooltip="faster", id="tokens-page-down"),
        Binding("g,home", "go(0)", "Top", tooltip="the first token", id="tokens-top"),
        Binding("G,end", "go(-1)", "Bottom", tooltip="the last token", id="tokens-bottom"),
        Binding("s", "step", "Step", tooltip="take one step", id="tokens-step"),
        Binding("ctrl+c", "app.quit", "Quit", tooltip="leave", id="tokens-quit", show=False),
    ]

    def __init__(self, store: Store, request: int, step: Callable[[], None]) -> None:
        super().__init__()
        self.action_step = step
        self.pane = Pane(TokensView(request), store, -1, id="tokens")

    def compose(self) -> ComposeResult:
        yield self.pane

    def on_mount(self) -> None:
        self.pane.border_title = "Tokens · s step · ↑ ↓ · esc"
        self.pane.focus()

    def sync(self) -> None:
        self.pane.sync()

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_move(self, by: int) -> None:
        self.pane.move(0, by)

    def action_page(self, direction: int) -> None:
        self.pane.half_page(direction)

    def action_go(self, item: int) -> None:
        self.pane.go(item if item >= 0 else self.pane.view.items - 1)
