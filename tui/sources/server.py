"""The debug routes of a running server, and what keeps one from asking them, in a line each.

Asks and reads, nothing else: when to try again, and what to make of the answers, is
`following.py`'s.
"""

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx2
import msgspec

from ...engine.asking import base_url, bearer, error_message, shortened
from ...engine.errors import UserError
from ...engine.feed import Controlled, Joining
from ...engine.trace import VERSION
from ..engine_flags import API_KEY_VARIABLE

CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 10.0  # without a sign of life, the connection is taken to be dead
OURS = "minisgl-tui"  # who owns the models of our servers, as they say

T = TypeVar("T")


class Unreachable(UserError):
    """No answer came, or it broke off."""


class Refused(UserError):
    """The server answered, but not what it was asked for."""

    def __init__(self, message: str, status: int = 200) -> None:
        super().__init__(message)
        self.status = status


class DebugServer:
    """The server at ``url``; ``HOST:PORT`` will do. Use as a context manager.

    Every question may raise `Unreachable` or `Refused`, with what to do next.
    """

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self.url = base_url(url if "://" in url else f"http://{url}", "the server's address")
        self._client = httpx2.AsyncClient(
            headers=bearer(api_key),
            timeout=httpx2.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
        )
        self._has_key = bool(api_key)

    async def __aenter__(self) -> "DebugServer":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.aclose()

    async def state(self) -> Joining:
        """The engine's state at the end of some record, and all that has to be known with it."""
        with self._errors():
            response = await self._client.get(f"{self.url}/debug/state")
        await self._check(response)
        return self.read_state(response.content)

    def read_state(self, body: bytes | str) -> Joining:
        """The state in an answer."""
        version = _version_of(body)
        if version is None:
            raise Refused(f"{self.url} is no server of minisgl-tui: it answers {_start_of(body)!r}")
        if version > VERSION:
            raise Refused(
                f"{self.url} speaks version {version} of the debug protocol, and this program "
                f"{VERSION}: install a newer minisgl-tui here"
            )
        try:
            return msgspec.json.decode(body, type=Joining)
        except msgspec.DecodeError as error:
            raise Refused(f"{self.url} sent a state that cannot be read ({error})") from error

    async def events(self, seq: int, epoch: str) -> AsyncIterator[httpx2.ServerSentEvent]:
        """What happens after record ``seq`` of the run ``epoch``, until the server ends it."""
        query: dict[str, Any] = {"from": seq, "epoch": epoch}
        with self._errors():
            async with self._client.stream(
                "GET", f"{self.url}/debug/events", params=query
            ) as response:
                await self._check(response)
                async for event in httpx2.EventSource(response, max_event_size=None):
                    yield event

    async def control(self, body: dict[str, Any]) -> Controlled:
        """Have the server do what a `Control` of those fields says."""
        with self._errors():
            response = await self._client.post(f"{self.url}/debug/control", json=body)
        await self._check(response, "does not let viewers stop it")
        return msgspec.json.decode(response.content, type=Controlled)

    # --- errors ----------------------------------------------------------------------------------

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """What goes wrong on the way, as `Unreachable`."""
        try:
            yield
        except httpx2.ConnectTimeout as error:
            raise Unreachable(
                f"{self.url} does not answer within {CONNECT_SECONDS:g} s: check the address, and "
                "whether a firewall is in between"
            ) from error
        except httpx2.TimeoutException as error:
            raise Unreachable(f"{self.url} was silent for {SILENCE_SECONDS:g} s") from error
        except httpx2.ConnectError as error:
            raise Unreachable(self._no_connection(error)) from error
        except httpx2.InvalidURL as error:
            raise Unreachable(f"{self.url} is no address: {error}") from error
        except httpx2.HTTPError as error:
            words = str(error) or type(error).__name__
            raise Unreachable(f"the connection to {self.url} broke: {shortened(words)}") from error

    def _no_connection(self, error: httpx2.ConnectError) -> str:
        url = httpx2.URL(self.url)
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, socket.gaierror):
                return f"there is no host {url.host}: check the address"
            if isinstance(cause, ConnectionRefusedError):
                port = f" --port {url.port}" if url.port else ""
                return (
                    f"nothing listens at {self.url}: start a server there, minisgl-tui serve "
                    f"--debug{port}"
                )
            cause = cause.__cause__ or cause.__context__
        return f"cannot connect to {self.url}: {shortened(str(error))}"

    async def _check(
        self, response: httpx2.Response, forbidden: str = "does not let this viewer in"
    ) -> None:
        """Raises `Refused` for an answer other than 200."""
        status = response.status_code
        if status == 200:
            return
        said = error_message(await response.aread())
        if status == 401:
            wrong = "does not take this key" if self._has_key else "wants a key"
            words = f"{self.url} {wrong}: give the server's with --api-key or {API_KEY_VARIABLE}"
        elif status == 403:
            words = f"{self.url} {forbidden}: {said}"
        elif status == 404:
            words = await self._not_found()
        elif response.is_redirect:
            to = response.headers.get("location", "elsewhere")
            words = f"{self.url} sends on to {shortened(to)}: give that address"
        else:
            words = f"{self.url} answers {status}: {said}"
        raise Refused(words, status)

    async def _not_found(self) -> str:
        """What a server without these routes is, by the owner of its models."""
        owner = ""
        try:
            models = (await self._client.get(f"{self.url}/v1/models")).json()
            owner = str(models["data"][0]["owned_by"])
        except (httpx2.HTTPError, ValueError, LookupError, TypeError, RecursionError):
            pass
        if owner == OURS:
            return f"{self.url} serves without its debug routes: start it with serve --debug"
        what = f"a server of {shortened(owner)}" if owner else "no server of minisgl-tui"
        return f"{self.url} is {what}, and has no debug routes that this program knows"


class _Preface(msgspec.Struct):
    v: int


class _Head(msgspec.Struct):
    header: _Preface


def _version_of(body: bytes | str) -> int | None:
    """The version of the protocol that a state is written in; None if it is no state."""
    try:
        return msgspec.json.decode(body, type=_Head).header.v
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _start_of(body: bytes | str) -> str:
    text = body if isinstance(body, str) else body[:200].decode(errors="replace")
    return shortened(text[:60])
