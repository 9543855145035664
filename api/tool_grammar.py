"""Grammars for answers that call functions: llguidance's Lark, with a JSON schema in each call."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..engine.sampling import Grammar
from .protocol import FunctionTool
from .tool_parser import Format


def calls_grammar(
    format: Format,
    markers: Mapping[int, str],
    functions: Sequence[FunctionTool],
    *,
    forced: bool,
    parallel: bool,
) -> Grammar:
    """Calls of ``functions`` in ``format``; the markers that are special tokens are in ``markers``.

    ``forced``: at least one, and nothing else; if not ``parallel`` just one. Otherwise any text,
    in which whatever begins a call is one.
    """
    ids = {text: token for token, text in markers.items()}
    opening, closing = (
        f"<[{ids[marker]}]>" if marker in ids else json.dumps(marker)
        for marker in (format.opening, format.closing)
    )
    body = " | ".join(f"f{index}" for index in range(len(functions)))
    rules = [f"body: {body}"]
    rules += [_call(format, index, function) for index, function in enumerate(functions)]
    if format.bare:
        rules += _bare(opening, special=format.opening in ids, forced=forced, parallel=parallel)
    else:
        rules += [f'call: {opening} "\\n" rest', f'rest: body "\\n" {closing}']
        if forced:
            rules.append('start: call ("\\n" call)*' if parallel else "start: call")
        elif format.opening in ids:
            rules += [f'start: (TEXT {opening} "\\n" rest)* TEXT', _ANY]
        else:
            rules += ['start: (head "\\n" rest)* TEXT', f"head[lazy]: TEXT {opening}", _ANY]
    return Grammar("lark", "\n".join(rules))


_ANY = "TEXT: /(.|\\n)*/"


def _bare(opening: str, *, special: bool, forced: bool, parallel: bool) -> list[str]:
    """An answer that begins like a call has to be one; elsewhere only the marker begins one."""
    calls = 'body ("; " body)*' if parallel else "body"
    if forced:
        return [f"start: {calls}"]
    text = ["text: PLAIN?", "PLAIN: /[ \\t\\r\\n]*[^{ \\t\\r\\n](.|\\n)*/"]
    if special:
        return [f"start: {calls} | text ({opening} {calls})?", *text]
    return [f"start: {calls} | text", *text]


def _call(format: Format, index: int, function: FunctionTool) -> str:
    """``{"name": "now", "arguments": {...}}``, with the spaces that models are trained on."""
    head = f'{{"name": {json.dumps(function.name)}, "{format.arguments[0]}": '
    schema = json.dumps(_schema(function), ensure_ascii=False)
    return f'f{index}: {json.dumps(head)} %json {schema} "}}"'


_COMBINED = ("$ref", "allOf", "anyOf", "oneOf", "patternProperties", "unevaluatedProperties")


def _schema(function: FunctionTool) -> dict[str, Any]:
    """The function's schema as it is enforced.

    Members that it does not name are left out, unless it speaks of them. What the grammar's
    compiler does not know of JSON schema is passed over, but not in a strict function's.
    """
    schema = dict(function.parameters or {"type": "object", "properties": {}})
    schema.setdefault("type", "object")
    named = schema.get("properties", {})
    complete = "properties" in schema and set(schema.get("required", ())) <= set(named)
    if complete and not any(word in schema for word in _COMBINED):
        schema.setdefault("additionalProperties", False)
    schema["x-guidance"] = {
        "whitespace_flexible": False,
        "item_separator": ", ",
        "key_separator": ": ",
        "lenient": not function.strict,
    }
    return schema
