"""The debug routes: what `serve --debug` adds for those who watch the engine.

They show prompts and answers. So who asks needs the server's key, or is on this machine where there
is none; and a web page never may, not even one that says it is this machine.
"""

from starlette.requests import Request
from starlette.responses import Response

from ..engine.feed import Control, Controlled, Joining
from .access import is_loopback
from .connection import read_body
from .errors import ApiError, bad_request
from .feed import Feed
from .fields import decode
from .openapi import Route
from .replies import json_reply
from .serving import Serving

_LONGEST_EPOCH = 80


async def debug_state(request: Request) -> Response:
    """The engine's whole state at the end of some step, and the number of the last record in it."""
    feed = _feed(request)
    return Response(await feed.joining(), media_type="application/json")


async def debug_events(request: Request) -> Response:
    """Every record after number `from`, as it happens, and a heartbeat each second."""
    feed, query = _feed(request), request.query_params
    text = request.headers.get("last-event-id") or query.get("from", "-1")
    try:
        seq = int(text)
    except ValueError:
        raise bad_request(f"from is {text[:40]!r}; give the number of a record", "from") from None
    return feed.view(seq, query.get("epoch", feed.header.epoch)[:_LONGEST_EPOCH])


async def debug_control(request: Request) -> Response:
    """Stop the engine, step it, let it run: a lease, which one viewer holds at a time."""
    _feed(request)
    serving: Serving = request.app.state.serving
    if serving.controls is None:
        raise ApiError(
            403, "this server can be watched, not stopped: it was started without --debug-control"
        )
    body = await read_body(request.scope, request.receive, serving.max_body)
    asked, unknown = decode(body, Control)
    if unknown:
        raise bad_request(f"{unknown[0]} is no field of a control", unknown[0])
    return json_reply(serving.controls.do(asked))


def _feed(request: Request) -> Feed:
    """The feed, for those who may have it."""
    serving: Serving = request.app.state.serving
    assert serving.feed
    if "origin" in request.headers:
        raise _forbidden("web pages may not ask for it")
    if serving.api_key is None:
        peer = request.client.host if request.client else ""
        if not is_loopback(peer):
            raise _forbidden("it is for this machine only; a server with --api-key lets others in")
        if not is_loopback(request.url.hostname or ""):
            raise _forbidden("ask for it by the address 127.0.0.1 or the name localhost")
    return serving.feed


def _forbidden(why: str) -> ApiError:
    return ApiError(403, f"what the engine does is not shown: {why}")


ROUTES = (
    Route("GET", "/debug/state", debug_state, Joining, errors=(403, 503)),
    Route("GET", "/debug/events", debug_events, "text/event-stream", errors=(400, 403, 503)),
    Route(
        "POST",
        "/debug/control",
        debug_control,
        Controlled,
        Control,
        errors=(400, 403, 409, 413),
    ),
)
