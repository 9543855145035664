"""What stands between the socket and the routes: who may come in, and a line for each who did.

No text of a prompt or an answer is ever in the log.
"""

import hmac
import ipaddress
import logging
import time
from collections.abc import Sequence

from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError

log = logging.getLogger("minisgl_tui.api")

OPEN_PATHS = ("/health", "/metrics")
LONGEST_ID = 128


def note(scope: Scope, **facts: object) -> None:
    """Say something about this request in its line of the log."""
    scope["state"]["notes"].update(facts)


class AccessLog:
    """One line a request: ``POST /v1/completions 200  0.31 s  21 tokens in (16 cached), 32 out``,
    then the id of the answer, by which its requests are found among the engine's events.

    Echoes the client's ``X-Request-Id``.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        notes: dict[str, object] = {}
        scope.setdefault("state", {})["notes"] = notes
        request_id = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        began = time.perf_counter()

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                notes.setdefault("status", message["status"])
                if request_id and len(request_id) <= LONGEST_ID:
                    MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        finally:
            _write(scope, notes, time.perf_counter() - began)


def _write(scope: Scope, notes: dict[str, object], seconds: float) -> None:
    path = scope.get("raw_path", b"").decode("ascii", "replace")
    level = logging.DEBUG if path in OPEN_PATHS else logging.INFO  # asked for every few seconds
    if not log.isEnabledFor(level):
        return
    parts = [f"{scope['method']} {path[:100]} {notes.get('status', '?')}", f"{seconds:.2f} s"]
    if "prompt_tokens" in notes:
        parts.append(
            f"{notes['prompt_tokens']} tokens in ({notes.get('cached_tokens', 0)} cached), "
            f"{notes.get('completion_tokens', 0)} out"
        )
        parts.append(str(notes["id"]))
    if ignored := notes.get("ignored"):
        parts.append(f"unknown fields: {ignored}")
    log.log(level, "  ".join(parts))


def allow_origins(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """``app`` for web pages of those ``origins`` too (``*``: of any), errors included.

    A browser asks first, with ``OPTIONS`` and without a key. It is never told to send cookies.
    """
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("*",),
        expose_headers=("X-Request-Id", "Retry-After"),
    )


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class RequireKey:
    """Lets in who sends ``Authorization: Bearer KEY``; health and metrics are open to all."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._may_pass(scope):
            error = ApiError(
                401,
                "the API key is missing or wrong; send it as `Authorization: Bearer KEY`",
                code="invalid_api_key",
                kind="authentication_error",
                headers={"WWW-Authenticate": "Bearer"},
            )
            await error.response()(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _may_pass(self, scope: Scope) -> bool:
        if scope["path"] in OPEN_PATHS or scope["method"] == "OPTIONS":
            return True
        given = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, key = given.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(key.strip(), self._key)
