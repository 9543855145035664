"""The routes, and what every answer has in common: keys, the log, errors in one shape."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from ..engine.errors import UserError
from .access import AccessLog, RequireKey
from .chat import chat_completions
from .completions import completions
from .connection import CLIENT_GONE, ClientGone
from .errors import ApiError, ErrorBody, engine_failed, no_such_model, refused
from .metrics import metrics
from .protocol import (
    ChatCompletion,
    ChatRequest,
    Completion,
    CompletionRequest,
    DetokenizeRequest,
    ModelCard,
    ModelList,
    Text,
    TokenizeRequest,
    Tokens,
)
from .replies import json_reply
from .serving import Serving
from .tokens import detokenize, tokenize

log = logging.getLogger("minisgl_tui.api")


def create_app(serving: Serving) -> ASGIApp:
    """The server as an ASGI application. The engine runs from its start-up to its shut-down."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        serving.thread.start()
        yield
        serving.thread.stop()

    app = FastAPI(
        title="minisgl-tui",
        version=version("minisgl-tui"),
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.serving = serving
    app.openapi = lambda: _document(app)
    _add_routes(app)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(UserError, _user_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientGone, _client_gone)
    app.add_exception_handler(Exception, _bug)
    guarded: ASGIApp = RequireKey(app, serving.api_key) if serving.api_key else app
    return AccessLog(guarded)


def _add_routes(app: FastAPI) -> None:
    generating = (
        ("/v1/completions", completions, CompletionRequest, Completion),
        ("/v1/chat/completions", chat_completions, ChatRequest, ChatCompletion),
    )
    for path, handler, asked, answered in generating:
        app.add_api_route(
            path, handler, methods=["POST"], **_documented(answered, asked, streams=True)
        )
    for path, handler, asked, answered in (
        ("/tokenize", tokenize, TokenizeRequest, Tokens),
        ("/detokenize", detokenize, DetokenizeRequest, Text),
    ):
        app.add_api_route(path, handler, methods=["POST"], **_documented(answered, asked))
    app.add_api_route("/v1/models", models, **_documented(ModelList))
    one_model = _documented(ModelCard)
    one_model["openapi_extra"]["parameters"] = [
        {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    ]
    app.add_api_route("/v1/models/{name:path}", model, **one_model)
    app.add_api_route("/health", health)
    app.add_api_route("/version", server_version)
    app.add_api_route("/metrics", metrics)


async def models(request: Request) -> Response:
    return json_reply(ModelList([_card(request.app.state.serving)]))


async def model(request: Request) -> Response:
    serving: Serving = request.app.state.serving
    name = request.path_params["name"]
    if name != serving.model:
        raise no_such_model(name, serving.model)
    return json_reply(_card(serving))


def _card(serving: Serving) -> ModelCard:
    return ModelCard(serving.model, serving.created, serving.context)


async def health(request: Request) -> Response:
    """200 as long as the engine runs."""
    serving: Serving = request.app.state.serving
    if serving.thread.error:
        raise engine_failed("the engine has stopped; restart the server")
    return Response()


async def server_version(request: Request) -> Response:
    return JSONResponse({"version": version("minisgl-tui")})


# --- errors --------------------------------------------------------------------------------------


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _user_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, UserError)
    return refused(error).response()


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own: no such route, or not with this method."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path[:100]}: {error.detail}"
    return ApiError(error.status_code, message, headers=error.headers).response()


async def _client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)


async def _bug(request: Request, error: Exception) -> Response:
    return engine_failed("something went wrong in the server; its log says more").response()


# --- documentation -------------------------------------------------------------------------------


def _documented(
    answer: type[msgspec.Struct], body: type[msgspec.Struct] | None = None, streams: bool = False
) -> dict[str, Any]:
    """The OpenAPI entry of a route whose bodies are msgspec's."""
    content: dict[str, Any] = {"application/json": {"schema": _schema(answer)}}
    if streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    failed = {
        "description": "refused",
        "content": {"application/json": {"schema": _schema(ErrorBody)}},
    }
    entry: dict[str, Any] = {
        "responses": {"200": {"description": "", "content": content}, "4XX": failed}
    }
    if body:
        entry["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _schema(body)}},
        }
    return {"openapi_extra": entry}


_TYPES: tuple[type[msgspec.Struct], ...] = (
    ChatCompletion,
    ChatRequest,
    Completion,
    CompletionRequest,
    DetokenizeRequest,
    ErrorBody,
    ModelCard,
    ModelList,
    Text,
    TokenizeRequest,
    Tokens,
)
_SCHEMAS, _COMPONENTS = msgspec.json.schema_components(
    _TYPES, ref_template="#/components/schemas/{name}"
)


def _schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return dict(zip(_TYPES, _SCHEMAS, strict=True))[kind]


def _document(app: FastAPI) -> dict[str, Any]:
    """What ``/openapi.json`` says, with the types that FastAPI does not know."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        document.setdefault("components", {}).setdefault("schemas", {}).update(_COMPONENTS)
        app.openapi_schema = document
    return app.openapi_schema
