"""A screen over the others, which gives a result."""

from typing import TypeVar

from textual.await_complete import AwaitComplete
from textual.screen import ModalScreen

Result = TypeVar("Result")


class Box(ModalScreen[Result]):
    """It closes once: what closes it again, before the screen below has come back, does nothing,
    where Textual would close that one too."""

    _closes = False

    def dismiss(self, result: Result | None = None) -> AwaitComplete:
        if self._closes:
            return AwaitComplete.nothing()
        self._closes = True
        return super().dismiss(result)
