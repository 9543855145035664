"""Clients that take little time themselves: streams over raw sockets, their events only counted."""

import asyncio
import json
from time import perf_counter
from urllib.parse import urlsplit

from ..engine.bench.measures import RunFailed
from ..engine.bench.paced import LETTERS, prompts

_EVENT_END, _LAST = b"}\n\n", b"[DONE]"


class Stream(asyncio.Protocol):
    """Sends one request; notes when, and when each event of its answer came."""

    def __init__(self, request: bytes, done: "asyncio.Future[None]") -> None:
        self.asked = 0.0
        self.times: list[float] = []
        self._request = request
        self._done = done
        self._first = b""  # all that came up to the first event
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def ask(self) -> None:
        self.asked = perf_counter()
        self._transport.write(self._request)

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        if not self.times:
            self._first += data
        text = self._tail + data
        self.times += [perf_counter()] * (text.count(_EVENT_END) - self._tail.count(_EVENT_END))
        if _LAST in text and not self._done.done():
            self._done.set_result(None)
        self._tail = text[1 - len(_LAST) :]  # with the next data it may hold one of the two

    def delays(self, ended: dict[int, float]) -> list[float]:
        """Seconds from the end of the forward pass that gave a token until it was here.

        The first token's letter tells its step, and each step gives one more.
        """
        letter = self._first.split(b'"text":"', 1)[1][0]
        steps = [step for step, at in ended.items() if at <= self.times[0]]
        first = max(step for step in steps if LETTERS[step % len(LETTERS)] == letter)
        return [at - ended[step] for step, at in enumerate(self.times, start=first)]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(RunFailed("the server closed a connection in mid-answer"))


async def run_streams(
    url: str, streams: int, tokens: int, *, an_event_each: bool = True
) -> list[Stream]:
    """``streams`` answers of ``tokens`` tokens, asked for together. RunFailed if not each token
    gave an event, ``an_event_each``, as it does where no character takes several tokens."""
    host, port = address_of(url)
    loop = asyncio.get_running_loop()
    waiting: list[asyncio.Future[None]] = []
    clients: list[Stream] = []
    for prompt in prompts(streams):
        waiting.append(loop.create_future())
        body = {"prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "stream": True}
        clients.append(Stream(post(host, body), waiting[-1]))
        await loop.create_connection(lambda: clients[-1], host, port)
    for client in clients:
        client.ask()
    await asyncio.gather(*waiting)
    for client in clients:
        client.close()
    if an_event_each and any(len(client.times) != tokens for client in clients):
        counts = sorted({len(client.times) for client in clients})
        raise RunFailed(f"streams of {tokens} tokens had {counts} events")
    return clients


def post(host: str, body: dict[str, object]) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def address_of(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    return parts.hostname, parts.port
