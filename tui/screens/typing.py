"""Boxes to type into: what is typed before they are there is not lost.

A text that is in the box when it opens is selected, so that what is typed takes its place, unless
the `Input` has it otherwise.
"""

from typing import TypeVar

from textual.widgets import Input

from .box import Box

Result = TypeVar("Result")


class TypingScreen(Box[Result]):
    """A box with one `Input`, which has the focus."""

    def __init__(self) -> None:
        super().__init__()
        self._early: list[str] | None = []  # characters, and "enter"; None: the input is there

    def on_mount(self) -> None:
        early, self._early = self._early or [], None
        box = self.query_one(Input)
        if box.select_on_focus:  # as it will be when it has the focus
            box.select_all()
        for one in early:
            self._type(one)

    def type_early(self, key: str, character: str | None) -> bool:
        """Take a key that did not come to the input, for it was not there yet or had no focus.

        False if the key types nothing.
        """
        one = character if character and character.isprintable() else ""
        if key == "enter" and self.focused is None:
            one = key
        if not one or not self.is_attached:
            return False
        if self._early is None:
            self._type(one)
        else:
            self._early.append(one)
        return True

    def _type(self, one: str) -> None:
        box = self.query_one(Input)
        if one == "enter":
            self.call_later(box.action_submit)
        else:
            box.replace(one, *sorted(box.selection))
            box.select_on_focus = False  # the focus may be still to come
