"""The routes, and what every answer has in common: keys, the log, errors in one shape."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from ..engine.errors import UserError
from .about import flush_cache, health, model, model_info, models, server_info, server_version
from .access import AccessLog, RequireKey, allow_origins
from .chat import chat_completions
from .completions import completions
from .connection import CLIENT_GONE, ClientGone
from .debug import ROUTES as DEBUG_ROUTES
from .errors import ApiError, engine_failed, refused
from .metrics import metrics
from .openapi import GENERATES, READS, Route, document
from .protocol import (
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    Completion,
    CompletionRequest,
    DetokenizeRequest,
    Flushed,
    ModelCard,
    ModelInfo,
    ModelList,
    ServerInfo,
    Text,
    TokenizeRequest,
    TokenizerInfo,
    Tokens,
    Version,
)
from .responses import responses, stored_response
from .responses_protocol import ResponseEvent, ResponseObject, ResponsesRequest
from .serving import Serving
from .tokens import detokenize, tokenize, tokenizer_info

log = logging.getLogger("minisgl_tui.api")


ROUTES = (
    Route(
        "POST", "/v1/completions", completions, Completion, CompletionRequest, Completion, GENERATES
    ),
    Route(
        "POST",
        "/v1/chat/completions",
        chat_completions,
        ChatCompletion,
        ChatRequest,
        ChatChunk,
        GENERATES,
    ),
    Route(
        "POST",
        "/v1/responses",
        responses,
        ResponseObject,
        ResponsesRequest,
        ResponseEvent,
        GENERATES,
    ),
    Route("GET", "/v1/models", models, ModelList),
    Route("GET", "/v1/models/{name:path}", model, ModelCard, errors=(404,)),
    Route("POST", "/tokenize", tokenize, Tokens, TokenizeRequest, errors=READS),
    Route("POST", "/detokenize", detokenize, Text, DetokenizeRequest, errors=READS),
    Route("GET", "/tokenizer_info", tokenizer_info, TokenizerInfo),
    Route("GET", "/health", health, "", errors=(500,)),
    Route("GET", "/metrics", metrics, "text/plain", errors=(503,)),
    Route("GET", "/version", server_version, Version),
    Route("GET", "/server_info", server_info, ServerInfo),
    Route("GET", "/get_server_info", server_info, ServerInfo),
    Route("GET", "/model_info", model_info, ModelInfo),
    Route("GET", "/get_model_info", model_info, ModelInfo),
    Route("POST", "/flush_cache", flush_cache, Flushed, errors=(503,)),
)


def create_app(serving: Serving) -> ASGIApp:
    """The server as an ASGI application. The engine runs from its start-up to its shut-down."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        serving.thread.start()
        if serving.feed:
            serving.feed.start()
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
    routes = (*ROUTES, *DEBUG_ROUTES) if serving.feed else ROUTES
    described = document(
        routes, title=app.title, version=app.version, guarded=bool(serving.api_key)
    )
    app.openapi = lambda: described
    for route in routes:
        app.add_api_route(route.path, route.handler, methods=[route.method])
    # Only ever a 404, so no route to tell anybody of.
    app.add_api_route("/v1/responses/{name}", stored_response, methods=["GET", "DELETE"])
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(UserError, _user_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientGone, _client_gone)
    app.add_exception_handler(Exception, _bug)
    guarded: ASGIApp = RequireKey(app, serving.api_key) if serving.api_key else app
    return AccessLog(allow_origins(guarded, serving.cors) if serving.cors else guarded)


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
