"""Watched expressions: their value in the state shown, how it changed, and how it went before.

The value is always asked of the state at hand. What it was at other steps is noted as records come
in, by step, so that it is right wherever in the past the screens stand.
"""

from collections import OrderedDict
from typing import TypeGuard

from ..engine.conditions import Condition, parse
from ..engine.errors import UserError
from ..engine.events import StepRecord
from ..engine.quantities import MISSING, QUANTITIES
from ..engine.state import EngineState
from .stops import Stops
from .text import Line, cell_len, clip, plain

KEEP = 2000  # steps whose values are kept
SPARKS = "▁▂▃▄▅▆▇█"
GLYPH = "◈"

Value = int | float | str | bool | list[int] | None


class Watch:
    """One expression on the state, such as ``free`` or ``running / batch``."""

    def __init__(self, text: str) -> None:
        self._condition: Condition = parse(text)
        if self._condition.needs_event:
            raise UserError(
                f"{text!r} asks about events, and a watch shows the state; "
                f"it can use {', '.join(QUANTITIES)}, or use it in break"
            )
        self.text = self._condition.text
        self._values: OrderedDict[int, Value] = OrderedDict()

    def value(self, state: EngineState) -> Value:
        """None where there is none, as in a division by zero."""
        value = self._condition.value(state)
        return None if value is MISSING else value

    def note(self, state: EngineState) -> None:
        """Remember the value at ``state.step``."""
        self._values[state.step] = self.value(state)
        self._values.move_to_end(state.step)
        if len(self._values) > KEEP:
            self._values.popitem(last=False)

    def at(self, step: int) -> Value:
        return self._values.get(step)

    def course(self, step: int, count: int) -> list[Value]:
        """The values of the last ``count`` steps up to ``step``, as far as they were noted."""
        found = (self._values.get(s) for s in range(max(0, step - count + 1), step + 1))
        return [value for value in found if value is not None]


class Watches:
    """All of them, in the order in which they were set."""

    def __init__(self) -> None:
        self.all: list[Watch] = []

    def add(self, text: str, state: EngineState) -> Watch:
        """Raises `UserError` if ``text`` cannot be read, or is watched already."""
        watch = Watch(text)
        if any(known.text == watch.text for known in self.all):
            raise UserError(f"{watch.text} is watched already")
        watch.note(state)
        self.all.append(watch)
        return watch

    def remove(self, text: str) -> None:
        """Raises `UserError` if ``text``, an expression or its number from 1, is not watched."""
        for number, watch in enumerate(self.all, 1):
            if text in (watch.text, str(number)):
                self.all.remove(watch)
                return
        known = ", ".join(watch.text for watch in self.all) or "none"
        raise UserError(f"{text!r} is not watched; watched are: {known}")

    def apply(self, record: StepRecord, state: EngineState) -> None:
        """Note every value after one record."""
        for watch in self.all:
            watch.note(state)


def watch_lines(
    watches: Watches, stops: Stops, state: EngineState, width: int, most: int
) -> list[Line]:
    """The watches one after the other, on as many lines as they take, but ``most``; if they take
    more, how many do not show and where they do."""
    parts = [_part(watch, stops, state) for watch in watches.all]
    for shown in range(len(parts), 1, -1):
        lines = _laid([*parts[:shown], *_rest(len(parts) - shown)], width)
        if len(lines) <= most:
            return lines
    rest = _rest(len(parts) - 1)
    room = width - 1 - sum(cell_len(plain(line)) for line in rest)
    return _laid([*(_clipped(part, room) for part in parts[:1]), *rest], width)


def _rest(count: int) -> list[Line]:
    """That there are ``count`` more, as a part of its own, unless it is none."""
    return [[(f"… {count} more: see :unwatch", "dim")]] if count > 0 else []


def _laid(parts: list[Line], width: int) -> list[Line]:
    lines: list[Line] = []
    room = 0
    for part in parts:
        length = cell_len(plain(part))
        if not lines or length > room:
            lines.append([(" ", "text")])
            room = width - 1
        lines[-1] += part
        room -= length
    return lines


def _clipped(part: Line, width: int) -> Line:
    """``part``; where that is too wide, its value and as much of its text as there is room for."""
    if cell_len(plain(part)) <= width:
        return part
    (text, style), value, *_ = part
    return [
        (clip(text, width - cell_len(value[0]) - 2), style),
        (" ", "text"),
        value,
        (" ", "text"),
    ]


def _part(watch: Watch, stops: Stops, state: EngineState) -> Line:
    value = watch.value(state)
    before = watch.at(stops.before(state.step))
    part: Line = [(f"{GLYPH} {watch.text} ", "dim"), (shown(value), "strong")]
    if _number(value) and _number(before) and value != before:
        change = value - before
        part.append((f" {'+' if change > 0 else '−'}{shown(abs(change))}", "warn"))
    course = [v for v in watch.course(state.step, 16) if _number(v)]
    if len(set(course)) > 1:
        part.append((" " + sparks(course), "accent"))
    return [*part, ("   ", "text")]


def shown(value: Value) -> str:
    """
    >>> shown(1234), shown(0.12345), shown(True), shown(None)
    ('1,234', '0.123', 'true', '–')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def sparks(values: list[int | float]) -> str:
    """
    >>> sparks([0, 5, 10])
    '▁▅█'
    """
    low, high = min(values), max(values)
    scale = (len(SPARKS) - 1) / (high - low) if high > low else 0
    return "".join(SPARKS[round((value - low) * scale)] for value in values)


def _number(value: Value) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
