"""What a part of a condition can be, a number, a text or a list, as far as its text alone says.

`mismatch` finds a comparison of unlike things, which would never hold: somebody who is waiting for
it should hear of that at once. What kind each name is of stands in `quantities.py`.
"""

import ast

from .quantities import KINDS, LIST, NUMBER, TEXT

_NUMBERS = (ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare)  # truth counts as 0 and 1


def kind(node: ast.expr) -> str:
    """`NUMBER`, `TEXT` or `LIST`; empty if it can be several."""
    match node:
        case ast.Constant(value=str()):
            return TEXT
        case ast.Constant():
            return NUMBER
        case ast.Name(id=name):
            return KINDS.get(name, "")
        case ast.Tuple() | ast.List():
            return LIST
    return NUMBER if isinstance(node, _NUMBERS) else ""


def mismatch(
    left: ast.expr, op: ast.cmpop, right: ast.expr, text: str
) -> tuple[ast.expr, str] | None:
    """The part of ``left op right`` that does not fit, and why not; None if all does."""
    a, b = kind(left), kind(right)
    if not isinstance(op, ast.In | ast.NotIn):
        return _unlike(left, right, text) if a and b and a != b else None
    if a == LIST:
        return left, f"{_source(left, text)} is a list, and no list is in another"
    if b == NUMBER:
        return right, f"{_source(right, text)} is a number; in looks into a list or a text"
    if b == TEXT and a == NUMBER:
        return _unlike(left, right, text)
    if isinstance(right, ast.Tuple | ast.List):
        items = (item for item in right.elts if a and kind(item) and kind(item) != a)
        item = next(items, None)
        return _unlike(left, item, text) if item else None
    if b == LIST and a == TEXT:  # all lists that events have are of numbers
        given = f"{_source(right, text)} has numbers in it, and {_source(left, text)} is a text"
        return left, f"{given}; give a number"
    return None


def no_number(node: ast.expr, text: str) -> str:
    """Why nothing can be calculated with ``node``; empty if something can."""
    found = kind(node)
    if found in ("", NUMBER):
        return ""
    return f"{_source(node, text)} is {found}; calculate with numbers"


def _unlike(left: ast.expr, right: ast.expr, text: str) -> tuple[ast.expr, str]:
    """That the two never compare, said of the name if one of them is one."""
    if isinstance(right, ast.Name) and not isinstance(left, ast.Name):
        left, right = right, left
    a, b = kind(left), kind(right)
    given = f"{_source(left, text)} is {a}, and {_source(right, text)} is {b}"
    return right, f"{given}: they never compare; give {a}"


def _source(node: ast.expr, text: str) -> str:
    source = ast.get_source_segment(text, node) or ""
    return source if len(source) <= 20 else source[:19] + "…"
