"""What is typed after ``/`` in the events pane, and which events it is about.

`read` turns a text into a filter; every part of the text has to match::

    req 7              the request took part, be it as one of many that decode
    node 3, block 812  the tree node or the block changed
    kind preempted     the kind of event; a beginning will do: `kind pre`
    step 120           happened in that step
    anything else      appears in the line, case does not matter
"""

from typing import NamedTuple, get_args

from ..engine import events as ev
from ..engine.chronicle import touched
from ..engine.errors import UserError
from .changes import describe, kind_of
from .every_event import Placed

KINDS = tuple(sorted(kind.__struct_config__.tag for kind in get_args(ev.AnyEvent)))
_NUMBERS = {"req": "request", "request": "request", "node": "node", "block": "block"}


class EventFilter(NamedTuple):
    """What an event has to be; ``text`` is what was typed."""

    text: str
    numbers: tuple[tuple[str, int], ...] = ()  # ("request", 7)
    kind: str = ""
    step: int = -1
    words: tuple[str, ...] = ()

    def matches(self, placed: Placed) -> bool:
        at, event = placed
        if self.step >= 0 and at.step != self.step:
            return False
        if self.kind and not kind_of(event).startswith(self.kind):
            return False
        if not all(_takes_part(event, kind, id) for kind, id in self.numbers):
            return False
        if not self.words:
            return True
        line = f"{kind_of(event)} {describe(event).sentence}".lower()
        return all(word in line for word in self.words)


def read(text: str) -> EventFilter:
    """The filter that ``text`` stands for. Raises `UserError` with what was expected."""
    numbers: list[tuple[str, int]] = []
    words: list[str] = []
    kind, step = "", -1
    parts = iter(text.split())
    for part in parts:
        if part in _NUMBERS:
            numbers.append((_NUMBERS[part], _number(part, next(parts, ""))))
        elif part == "step":
            step = _number(part, next(parts, ""))
        elif part == "kind":
            kind = _kind(next(parts, ""))
        else:
            words.append(part.lower())
    return EventFilter(text.strip(), tuple(numbers), kind, step, tuple(words))


def _number(word: str, text: str) -> int:
    digits = text.removeprefix("#")
    if not (digits.isascii() and digits.isdigit()):
        given = repr(text) if text else "nothing"
        raise UserError(f"{given} follows `{word}`; give its number, as in `{word} 7`")
    return int(digits)


def _kind(text: str) -> str:
    kind = text.lower().replace("-", "_")
    if not kind or not any(known.startswith(kind) for known in KINDS):
        given = repr(text) if text else "nothing"
        raise UserError(f"{given} is no kind of event; give one of {', '.join(KINDS)}")
    return kind


def _takes_part(event: ev.AnyEvent, kind: str, id: int) -> bool:
    if isinstance(event, ev.Decoding | ev.Sampled):
        return kind == "request" and id in event.reqs
    return any(name == kind and id in ids for name, ids in touched(event))
