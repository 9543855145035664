"""Errors as OpenAI's clients expect them: a status and ``{"error": {...}}``, nothing else."""

from collections.abc import Mapping

import msgspec
from starlette.responses import Response

from ..engine.errors import UserError

RETRY_AFTER = {"Retry-After": "1"}


class ErrorDetail(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(msgspec.Struct):
    error: ErrorDetail


class ApiError(Exception):
    """An answer other than 200. ``param`` is the field at fault, ``code`` a word for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str = "invalid_request_error",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.body = ErrorBody(ErrorDetail(message, kind, param, code))

    def response(self) -> Response:
        content = msgspec.json.encode(self.body)
        return Response(content, self.status, self.headers, "application/json")


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    return ApiError(400, message, param=param, code=code)


def refused(error: UserError, param: str | None = None) -> ApiError:
    """What the engine or the tokenizer would not take."""
    return bad_request(str(error), param)


def no_such_model(name: str, served: str) -> ApiError:
    return ApiError(
        404,
        f"the model {name[:80]!r} does not exist here; this server has {served!r}",
        param="model",
        code="model_not_found",
    )


def queue_full(limit: int) -> ApiError:
    return ApiError(
        429,
        f"{limit} requests run or wait already, as many as this server takes; try again later",
        kind="rate_limit_error",
        code="queue_full",
        headers=RETRY_AFTER,
    )


def shutting_down() -> ApiError:
    return ApiError(
        503,
        "the server is shutting down; try again later",
        kind="service_unavailable_error",
        code="shutting_down",
        headers=RETRY_AFTER,
    )


def engine_failed(message: str) -> ApiError:
    return ApiError(500, message, kind="server_error", code="engine_error")
