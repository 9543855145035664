"""What ``/openapi.json`` says: every route with its bodies, their ranges, and its errors.

Types are msgspec's, the same that `fields.decode` checks bodies with; words about a route are its
handler's docstring.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from inspect import getdoc
from types import UnionType
from typing import Any, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from .access import OPEN_PATHS
from .errors import ErrorBody

Struct = type[msgspec.Struct]
JSON, EVENTS = "application/json", "text/event-stream"

_ERRORS = {
    400: "The request makes no sense; `param` names the field at fault.",
    401: "The API key is missing or wrong.",
    403: "This is not shown, or not done, for whoever asks from there.",
    404: "There is no such model here.",
    409: "Another viewer holds the server.",
    413: "The body is larger than this server takes.",
    429: "As many requests run and wait as this server takes; come again after `Retry-After`.",
    500: "The engine failed.",
    503: "The server is shutting down.",
}
READS = (400, 404, 413)  # what a route with a body may answer
GENERATES = (*READS, 429, 500, 503)


@dataclass(frozen=True, slots=True)
class Route:
    """One path with one method. ``answer`` is what a 200 holds: a type of JSON object, or a media
    type; ``chunk`` is the type of the events if it may come as a stream, or a union of types where
    each event has the name of its own.
    """

    method: str
    path: str
    handler: Callable[[Request], Awaitable[Response]]
    answer: Struct | str
    body: Struct | None = None
    chunk: Struct | UnionType | None = None
    errors: tuple[int, ...] = ()

    @property
    def types(self) -> list[Struct]:
        kinds = (self.answer, self.body, *self.chunks)
        return [kind for kind in kinds if isinstance(kind, type)]

    @property
    def chunks(self) -> tuple[Struct, ...]:
        if isinstance(self.chunk, UnionType):
            return get_args(self.chunk)
        return (self.chunk,) if self.chunk else ()


def document(routes: Sequence[Route], *, title: str, version: str, guarded: bool) -> dict[str, Any]:
    """The OpenAPI document of ``routes``; ``guarded`` if clients need a key."""
    types = list(dict.fromkeys(kind for route in routes for kind in route.types))
    schemas, components = msgspec.json.schema_components(
        [*types, ErrorBody], ref_template="#/components/schemas/{name}"
    )
    schema_of = dict(zip([*types, ErrorBody], schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        needs_key = guarded and route.path not in OPEN_PATHS
        entry = _operation(route, schema_of, needs_key)
        paths.setdefault(_plain(route.path), {})[route.method.lower()] = entry
    parts: dict[str, Any] = {
        "schemas": components,
        "responses": {str(status): _error(status, schema_of) for status in _ERRORS},
    }
    if guarded:
        parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.2.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": parts,
    }


def _operation(route: Route, schema_of: dict[Struct, Any], needs_key: bool) -> dict[str, Any]:
    words = getdoc(route.handler) or ""
    errors = sorted({*route.errors, *((401,) if needs_key else ())})
    responses: dict[str, Any] = {"200": {"description": "", "content": _content(route, schema_of)}}
    responses |= {str(one): {"$ref": f"#/components/responses/{one}"} for one in errors}
    entry: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", route.method.lower() + _plain(route.path)).strip("_"),
        "summary": words.partition("\n")[0],
        "description": words,
        "responses": responses,
    }
    if route.body:
        content = {JSON: {"schema": schema_of[route.body]}}
        entry["requestBody"] = {"required": True, "content": content}
    if "{" in route.path:
        name = _plain(route.path).partition("{")[2].partition("}")[0]
        entry["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        ]
    if needs_key:
        entry["security"] = [{"key": []}]
    return entry


def _content(route: Route, schema_of: dict[Struct, Any]) -> dict[str, Any]:
    if isinstance(route.answer, str):
        return {route.answer: {"schema": {"type": "string"}}} if route.answer else {}
    content: dict[str, Any] = {JSON: {"schema": schema_of[route.answer]}}
    if route.chunks:
        chunks = [schema_of[kind] for kind in (*route.chunks, ErrorBody)]
        content[EVENTS] = {"itemSchema": _event(chunks, is_named=len(route.chunks) > 1)}
    return content


def _event(chunks: list[Any], *, is_named: bool) -> dict[str, Any]:
    """One event of a stream, as its parser sees it: what it is about as JSON, or the end."""
    about = {"type": "string", "contentMediaType": JSON, "contentSchema": {"anyOf": chunks}}
    data = about if is_named else {"anyOf": [{"const": "[DONE]"}, about]}
    parts = {"event": {"type": "string"}} if is_named else {}
    return {"type": "object", "required": [*parts, "data"], "properties": {**parts, "data": data}}


def _error(status: int, schema_of: dict[Struct, Any]) -> dict[str, Any]:
    return {
        "description": _ERRORS[status],
        "content": {JSON: {"schema": schema_of[ErrorBody]}},
    }


def _plain(path: str) -> str:
    """``/v1/models/{name:path}`` → ``/v1/models/{name}``."""
    return path.replace(":path}", "}")
