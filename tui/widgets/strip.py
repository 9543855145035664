"""The step strip as a widget: drawn by `views/steps.py`, and clicked to go to a step."""

from textual import events
from textual.message import Message

from ..store import Store
from ..views.steps import StepsView
from .lines import LineWidget, Row


class StepStrip(LineWidget):
    """One line or three, as high as the style sheet makes it."""

    class Chosen(Message):
        """A column was clicked: the step, or the last of the steps, that it shows."""

        def __init__(self, step: int) -> None:
            super().__init__()
            self.step = step

    def __init__(self, store: Store, id: str) -> None:
        super().__init__(id=id)
        self.store = store
        self.view = StepsView()

    def rows(self, width: int, height: int) -> list[Row]:
        lines = [tuple(line) for line in self.view.lines(self.store, width, height)]
        return [*lines, *[()] * (height - len(lines))]

    def scale(self, by: int) -> bool:
        """Fewer (``by`` = 1) or more steps in a column; false if that is not possible."""
        changed = self.view.scale(self.store, by)
        self.sync()
        return changed

    def on_click(self, event: events.Click) -> None:
        at = event.get_content_offset(self)
        step = None if at is None else self.view.step_at(self.store, at.x)
        if step is not None:
            self.post_message(self.Chosen(step))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.scale(1)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.scale(-1)
