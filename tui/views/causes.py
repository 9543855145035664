"""The answer to a why: the chain of causes, each line with the position of the event it quotes."""

from ...engine.events import Position
from ..actions import key
from ..inquiry import Cause
from ..selection import called
from ..store import Store
from ..text import Line, clip, pad_left, wrap
from .base import View

_PLACE = 8  # cells of the column with positions
_DEEPEST = 5  # levels that are set in further


class CausesView(View):
    """Takes the place of the decisions as long as a question is open."""

    name = "Why"
    about = "why something is as it is; enter goes to the event that a line quotes"

    def __init__(self) -> None:
        super().__init__()
        self._causes: list[Cause] = []
        self._lines: list[Line] = []

    def update(self, store: Store, width: int, height: int) -> None:
        question = store.question
        self._causes, self._lines = [], []
        if question is None:
            self.keys = []
            return
        asked = f"why {called(question.target)} was so at {question.position}"
        self.header = [
            [
                (
                    clip(
                        f"{asked} · {key('select')} goes to an event · {key('clear')} ends", width
                    ),
                    "accent",
                )
            ]
        ]
        for cause in question.causes:
            lead = "  " * min(cause.depth, _DEEPEST)
            style = "strong" if not cause.depth else "text"
            for k, part in enumerate(wrap(cause.text, max(10, width - _PLACE - len(lead)))):
                place = "" if k or cause.position is None else str(cause.position)
                self._lines.append(
                    [(pad_left(place, _PLACE - 1) + " ", "accent"), (lead + part, style)]
                )
                self._causes.append(cause)
        self.keys = [cause.target for cause in self._causes]
        self.subtitle = f"{called(question.target)} at {question.position}"

    def rests(self, item: int) -> bool:
        return 0 <= item < len(self._causes)

    def anchor(self, item: int) -> object:
        return item

    def find(self, anchor: object) -> int | None:
        return anchor if isinstance(anchor, int) and self.rests(anchor) else None

    def line(self, i: int) -> Line:
        return self._lines[i]

    def place(self, item: int) -> Position | None:
        return self._causes[item].position if 0 <= item < len(self._causes) else None
