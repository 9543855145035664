"""How long a client may take to say what it wants, and how much it may say before that.

uvicorn waits without end for the rest of a head, and keeps all of it. Here a connection that takes
too long over its request line and headers, or never sends any, is closed.
"""

import asyncio
from typing import Any

import msgspec
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from .errors import ApiError

MAX_HEAD = 64 << 10  # bytes; what is read at one go may be more
HEAD_SECONDS = 60.0


class _Patience(asyncio.Protocol):
    """In front of uvicorn's protocol, which sets ``cycle`` once a head is complete."""

    cycle: Any
    transport: Any
    loop: asyncio.AbstractEventLoop
    _head = 0  # bytes of the head so far
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._head = 0
            self._stop_waiting()
            return
        self._head += len(data)
        self._wait()
        if self._head > MAX_HEAD and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


PatientProtocol: Any = type("PatientProtocol", (_Patience, AutoHTTPProtocol), {})
"""uvicorn's fastest protocol, with these limits."""


def _too_large() -> bytes:
    error = ApiError(431, f"the headers have more than {MAX_HEAD} bytes; send fewer")
    body = msgspec.json.encode(error.body)
    head = (
        "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


_TOO_LARGE = _too_large()
