"""Conditions on state and event, as a person types them: ``free<10 and waiting>0``.

    condition  = value                        read as true or false
    value      = number | "text" | True | False | name | (value)
               | value + - * / // % value | -value | +value
               | value < <= > >= == != value …         chains as in 0 < free <= 10
               | value in (value, …) | value in name   also "not in" and [value, …]
               | value and value | value or value | not value

A name is a quantity of the state (``step``, ``free``, ``kv``, …) or of the event being looked at:
``ev``, its kind in snake case, or any of its fields (``req``, ``why``, ``node``, …); where both
have a name, the state's is meant. ``blocks`` are all that an event names, freed ones included.
`quantities.py` lists the names.

    free<10 and waiting>0                     few blocks left, and somebody wants them
    ev=="preempted" and req==7                request 7 lost its blocks
    why=="no_blocks" and need > free + 4      it was deferred, and not by a whisker
    ev in ("evicted", "released") and 812 in blocks
    step >= 100                               kv > 0.9

What is not there compares to nothing: a field the event lacks, a division by zero. Any comparison
with it is false, ``!=`` and ``not in`` included. So ``req != 7`` asks for an event with another
request, while ``not req == 7`` is true of events without one too. A comparison of unlike things
(``why < 3``) would never hold, and is refused as far as that can be told from its text; so is a sum
of text and number. ``tokens``, a list or a number by event, compares to what it then is like.

The text is parsed by `ast`, checked against the list above and turned into closures; none of it is
ever compiled or evaluated by Python. When to ask a condition is up to `breakpoints.py`.
"""

import ast
import operator
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from .errors import UserError
from .events import Event
from .kinds import mismatch, no_number
from .quantities import (
    EVENT_FIELDS,
    EVENT_KINDS,
    MISSING,
    QUANTITIES,
    alike,
    blocks_of,
    calculate,
    can_search,
    kind_of,
)
from .state import EngineState

MAX_LENGTH = 1000  # characters
MAX_DEPTH = 50  # levels of nesting, so that neither parsing nor asking runs out of stack
_BLANKS = re.compile(r"\s")

Compute = Callable[[EngineState, Event | None], Any]


@dataclass(frozen=True, slots=True)
class Condition:
    """A parsed condition. One that mentions the event (``needs_event``) holds of no state alone."""

    text: str
    needs_event: bool
    _test: Compute = field(repr=False, compare=False)

    def holds(self, state: EngineState, event: Event | None = None) -> bool:
        return bool(self.value(state, event))

    def value(self, state: EngineState, event: Event | None = None) -> Any:
        """What the text comes to: of ``free / 2`` a number; `MISSING` where there is none."""
        return self._test(state, event)


def parse(text: str) -> Condition:
    """The condition that ``text`` spells. Raises `UserError`, with the column, if it is none.

    >>> parse("free<10 and waiting>0").holds(state)
    >>> parse('ev=="preempted" and req==7').holds(state, event)
    """
    text = _BLANKS.sub(" ", text).strip()
    if not text:
        raise UserError("the condition is empty; compare something, as in free < 10")
    if not text.isprintable():
        raise UserError("the condition has characters that cannot be printed")
    if len(text) > MAX_LENGTH:
        raise UserError(f"the condition has {len(text)} characters; at most {MAX_LENGTH} are taken")
    compiler = _Compiler(text)
    test = compiler.value(_tree(text))
    if not compiler.names:
        raise UserError(
            f"the condition {_short(text)} names nothing of the engine, so it never changes; "
            "compare something with it, as in step >= 100"
        )
    return Condition(text, not compiler.names <= QUANTITIES.keys(), test)


def _tree(text: str) -> ast.expr:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python would warn on stderr of 1or 2
            tree = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise _unreadable(text, error) from None
    except (ValueError, RecursionError, MemoryError):
        raise UserError("the condition is nested too deep") from None
    level, depth = [tree], 0
    while level:
        level, depth = [child for node in level for child in ast.iter_child_nodes(node)], depth + 1
    if depth > MAX_DEPTH:
        raise UserError(f"the condition is nested {depth} deep; at most {MAX_DEPTH} are taken")
    return tree


_HINTS = {
    "=>": "use >=",
    "=<": "use <=",
    "=": "use == to compare",
    "&": "use and",
    "|": "use or",
    "!": "use not, or != to compare",
}


def _unreadable(text: str, error: SyntaxError) -> UserError:
    column = error.offset if error.offset and error.offset > 0 else len(text) + 1
    rest = text[column - 1 :]
    if not rest:
        return _error(column, "something is missing at the end")
    hint = next((hint for sign, hint in _HINTS.items() if rest.startswith(sign)), "")
    if not hint and error.msg != "invalid syntax":
        hint = error.msg.removesuffix(" (detected at line 1)")
    return _error(column, f"cannot read {_short(rest)}" + (f"; {hint}" if hint else ""))


def _short(text: str) -> str:
    return repr(text if len(text) <= 20 else text[:19] + "…")


def _similar(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word, list(known), 1)
    return f" (did you mean {near[0]}?)" if near else ""


def _error(column: int, message: str) -> UserError:
    return UserError(f"condition, column {column}: {message}")


_ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_DIVIDING = (ast.Div, ast.FloorDiv, ast.Mod)
_ORDER: dict[type, Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_SEARCH: dict[type, Callable[[Any, Any], bool]] = {
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_SIGNS = {ast.USub: operator.sub, ast.UAdd: operator.add}  # -x is 0 - x
_REFUSED = {
    ast.Call: "nothing can be called",
    ast.Attribute: "there are no dots; event fields go by their bare names",
    ast.Subscript: "there is no indexing; use in",
    ast.Tuple: "a list goes after in",
    ast.List: "a list goes after in",
    ast.Compare: "use == and !=, not is",
    ast.BinOp: "use + - * / // %; and, or and not join conditions",
    ast.UnaryOp: "use not",
    ast.Constant: "use numbers, texts, True and False",
}


class _Compiler:
    """Turns checked syntax into closures and notes the ``names`` it meets."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: set[str] = set()

    def value(self, node: ast.expr) -> Compute:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() as constant):
                return lambda state, event: constant
            case ast.Name():
                return self._name(node)
            case ast.BoolOp(op=op, values=values):
                parts = [self.value(v) for v in values]
                whole = all if isinstance(op, ast.And) else any
                return lambda state, event: whole(part(state, event) for part in parts)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                inner = self.value(operand)
                return lambda state, event: not inner(state, event)
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _SIGNS:
                sign, inner = _SIGNS[type(op)], self._number(operand)
                return lambda state, event: calculate(sign, 0, inner(state, event))
            case ast.BinOp(left, op, right) if type(op) in _ARITHMETIC:
                compute, a, b = _ARITHMETIC[type(op)], self._number(left), self._number(right)
                if isinstance(right, ast.Constant) and not right.value and type(op) in _DIVIDING:
                    raise self._error(right, "nothing can be divided by 0")
                return lambda state, event: calculate(compute, a(state, event), b(state, event))
            case ast.Compare():
                return self._comparison(node)
        raise self._refusal(node)

    def _number(self, node: ast.expr) -> Compute:
        value = self.value(node)
        if why := no_number(node, self.text):
            raise self._error(node, why)
        return value

    def _name(self, node: ast.Name) -> Compute:
        name = node.id
        self.names.add(name)
        if name in QUANTITIES:
            read = QUANTITIES[name].read
            return lambda state, event: read(state)
        if name == "ev":
            return lambda state, event: kind_of(event)
        if name == "blocks":
            return lambda state, event: blocks_of(event)
        if name in EVENT_FIELDS:
            return lambda state, event: getattr(event, name, MISSING)
        hint = _similar(name, (*QUANTITIES, "ev", *EVENT_FIELDS))
        raise self._error(
            node,
            f"{_short(name)} is not known{hint}; of the engine there are {', '.join(QUANTITIES)}; "
            f"of the event ev, {', '.join(EVENT_FIELDS)}",
        )

    def _comparison(self, node: ast.Compare) -> Compute:
        first = self.value(node.left)
        left, links = node.left, []
        for op, right in zip(node.ops, node.comparators, strict=True):
            if isinstance(op, ast.In | ast.NotIn):
                links.append((can_search, _SEARCH[type(op)], self._container(right)))
            elif type(op) in _ORDER:
                links.append((alike, _ORDER[type(op)], self.value(right)))
                self._check_kinds(right, left)
            else:
                raise self._refusal(node)
            self._check_kinds(left, right)
            if found := mismatch(left, op, right, self.text):
                raise self._error(*found)
            left = right

        def compute(state: EngineState, event: Event | None) -> bool:
            a = first(state, event)
            for comparable, holds, right in links:
                b = right(state, event)
                if not (comparable(a, b) and holds(a, b)):
                    return False
                a = b
            return True

        return compute

    def _container(self, node: ast.expr) -> Compute:
        if not isinstance(node, ast.Tuple | ast.List):
            return self.value(node)
        items = [self.value(item) for item in node.elts]
        return lambda state, event: [item(state, event) for item in items]

    def _check_kinds(self, name: ast.expr, other: ast.expr) -> None:
        """A kind that does not exist would wait for ever: say so."""
        if not (isinstance(name, ast.Name) and name.id == "ev"):
            return
        for item in other.elts if isinstance(other, ast.Tuple | ast.List) else [other]:
            match item:
                case ast.Constant(value=str() as kind) if kind not in EVENT_KINDS:
                    hint = _similar(kind, EVENT_KINDS)
                    kinds = ", ".join(EVENT_KINDS)
                    raise self._error(
                        item, f"no event is called {_short(kind)}{hint}; there are {kinds}"
                    )

    def _refusal(self, node: ast.expr) -> UserError:
        source = ast.get_source_segment(self.text, node) or ""
        why = _REFUSED.get(type(node), "conditions know comparisons, and, or, not and arithmetic")
        return self._error(node, f"{_short(source)} is not part of a condition: {why}")

    def _error(self, node: ast.expr, message: str) -> UserError:
        before = self.text.encode()[: node.col_offset]  # ast counts bytes
        return _error(len(before.decode()) + 1, message)
