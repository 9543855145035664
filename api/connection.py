"""Answers that end when their client goes: event streams, and work done for a plain answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .access import note
from .errors import ApiError, bad_request

T = TypeVar("T")
Batches = AsyncIterator[list[msgspec.Struct]]
BODY_SECONDS = 60.0  # that a body may pause for
CLIENT_GONE = 499  # nobody reads it; for the log


class ClientGone(Exception):
    """The client closed the connection before its answer was complete."""


async def while_connected(receive: Receive, work: Awaitable[T]) -> T:
    """The result of ``work``; it is cancelled, and ClientGone raised, when the client goes."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body. ApiError 413 as soon as it is known to be over ``limit`` bytes, 408 where the
    rest does not come."""
    headers = dict(scope["headers"])
    kind = headers.get(b"content-type", b"application/json").split(b";")[0].strip().lower()
    if kind != b"application/json":
        raise bad_request(f"the content type is {kind.decode('latin-1')[:80]!r}; send JSON")
    declared = headers.get(b"content-length", b"0")
    if int(declared) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    while True:
        try:
            message = await asyncio.wait_for(receive(), BODY_SECONDS)
        except TimeoutError:
            raise _unfinished(size) from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise _too_large(limit)
        if not message.get("more_body"):
            return b"".join(chunks)


def _unfinished(size: int) -> ApiError:
    return ApiError(
        408,
        f"nothing came for {BODY_SECONDS:g} s after {size} bytes of the body; send all of it",
        headers={"Connection": "close"},
    )


def _too_large(limit: int) -> ApiError:
    return ApiError(
        413,
        f"the body has more than {limit} bytes, which is this server's limit; send less at a time",
        code="request_too_large",
        headers={"Connection": "close"},
    )


class EventStream(Response):
    """Server-sent events: each of ``batches`` is some objects, sent as they come, then ``[DONE]``.

    An ApiError on the way is the last object. ``end`` is called however it ends.
    """

    ending = b"data: [DONE]\n\n"

    def __init__(self, batches: Batches, end: Callable[[], None]) -> None:
        super().__init__(media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._batches = batches
        self._end = end
        self._encode = msgspec.json.Encoder().encode

    def event(self, said: msgspec.Struct) -> bytes:
        return b"data: " + self._encode(said) + b"\n\n"

    def failure(self, error: ApiError) -> Sequence[msgspec.Struct]:
        """The objects that say what went wrong."""
        return [error.body]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await while_connected(receive, self._send(scope, send))
        except ClientGone:
            note(scope, status=CLIENT_GONE)
        finally:
            self._end()

    async def _send(self, scope: Scope, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )

        async def write(body: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": body, "more_body": more})

        try:
            async for batch in self._batches:
                await write(b"".join(map(self.event, batch)))
        except ApiError as error:
            note(scope, status=error.status)
            await write(b"".join(map(self.event, self.failure(error))))
        await write(self.ending, more=False)
