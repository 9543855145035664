"""What a request says its answer has to be, by OpenAI's, vLLM's and SGLang's names for it, as the
one grammar that the engine follows."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from ..engine.errors import RequestRefused
from ..engine.plan import Runner
from ..engine.sampling import Grammar, SamplingParams
from .errors import bad_request
from .protocol import ResponseFormat, SamplingRequest, StructuredOutputs

ANY_OBJECT = Grammar.json({"type": "object"})


def grammar_of(asked: SamplingRequest) -> tuple[str, Grammar] | None:
    """The field that constrains the answer, and how; None where the answer is free.

    ``response_format: {"type": "json_object"}`` → ``("response_format", Grammar.json(...))``.
    ApiError 400 where there are several, or one that says nothing.
    """
    given: dict[str, tuple[Callable[[Any], Grammar], Any]] = {}
    for name, make in _FIELDS.items():
        if (value := getattr(asked, name)) is not None:
            given[name] = make, value
    if asked.structured_outputs is not None:
        given |= _structured(asked.structured_outputs)
    wanted: ResponseFormat | None = getattr(asked, "response_format", None)
    if wanted is not None and wanted.type != "text":
        given[getattr(asked, "FORMAT", "response_format")] = _format, wanted
    elif wanted is not None:
        _format(wanted)
    if len(given) > 1:
        names = list(given)
        raise bad_request(
            f"{' and '.join(names)} each say what the answer has to be; send one of them", names[1]
        )
    for name, (make, value) in given.items():
        try:
            return name, make(value)
        except RequestRefused as error:
            raise bad_request(f"{name}: {error}", name) from None
    return None


async def check_grammar(runner: Runner, params: SamplingParams, field: str) -> None:
    """400 for ``field`` if its grammar cannot be compiled. What takes long does so in a thread."""
    if params.grammar is None:
        return
    try:
        await asyncio.to_thread(runner.check, params)
    except RequestRefused as error:
        raise bad_request(f"{field}: {error}", field) from None


def _structured(wanted: StructuredOutputs) -> dict[str, tuple[Callable[[Any], Grammar], Any]]:
    where = "structured_outputs"
    values = {name: getattr(wanted, name) for name in _STRUCTURED}
    given = {
        f"{where}.{name}": (_STRUCTURED[name], value)
        for name, value in values.items()
        if value is not None and value is not False
    }
    if not given and wanted.json_object is None:
        names = ", ".join(_STRUCTURED)
        raise bad_request(f"{where} is empty; send one of {names} in it", where)
    return given


def _format(wanted: ResponseFormat) -> Grammar:
    where = "response_format.json_schema"
    if wanted.type != "json_schema":
        if wanted.json_schema is not None:
            raise bad_request(
                f"{where} is given, but the type is {wanted.type}; send the type json_schema", where
            )
        return ANY_OBJECT
    if wanted.json_schema is None:
        raise bad_request(f"{where} is missing; send it", where)
    if wanted.json_schema.schema is None:
        raise bad_request(f"{where}.schema is missing; send it", f"{where}.schema")
    return _schema(wanted.json_schema.schema)


def _schema(schema: dict[str, Any] | str) -> Grammar:
    """A schema, or its JSON."""
    if isinstance(schema, str):
        return Grammar("json_schema", schema)
    return Grammar("json_schema", json.dumps(schema, ensure_ascii=False))


def _regex(regex: str) -> Grammar:
    return Grammar("regex", regex)


def _lark(source: str) -> Grammar:
    if "::=" in source:
        raise RequestRefused(
            "this looks like GBNF or EBNF; write it in Lark: start: rule, with : for ::="
        )
    return Grammar("lark", source)


_FIELDS: dict[str, Callable[[Any], Grammar]] = {
    "guided_json": _schema,
    "guided_regex": _regex,
    "guided_choice": Grammar.choice,
    "guided_grammar": _lark,
    "json_schema": _schema,
    "regex": _regex,
}
_STRUCTURED: dict[str, Callable[[Any], Grammar]] = {
    "json": _schema,
    "regex": _regex,
    "choice": Grammar.choice,
    "grammar": _lark,
    "json_object": lambda _: ANY_OBJECT,
}
