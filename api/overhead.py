"""What the server costs: many streams from a model of no cost, beside the bare engine.

The server runs in a process of its own, the client in this one. The client reads sockets and
counts the ends of events, nothing more, so that it is not what is measured.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter
from urllib.parse import urlsplit

import msgspec

from ..engine.bench.contention import Others
from ..engine.bench.measures import RunFailed, percentile
from ..engine.bench.paced import LETTERS, prompts, time_bare
from ..engine.bench.report import DISTURBING, table
from .simulated import SimulatedServer

Progress = Callable[[str, float | None], None]

STREAMS = (1, 8, 64, 256)
TOKENS = 200  # of a stream; at least two for each that starts before it
_SHORT_REQUESTS = 400  # for requests a second
_EVENT_END, _LAST = b"}\n\n", b"[DONE]"


class Row(msgspec.Struct, kw_only=True):
    """The figures with ``streams`` at a time, medians over the repeats.

    ``bare_step`` and ``server_step`` are the seconds of a step in which every stream gets a token,
    by the engine alone and as its clients see it; ``delay_p50`` and ``delay_p99`` from the end of a
    forward pass until a client has its token. ``bare_cpu`` and ``server_cpu`` are processor seconds
    a token, of the engine and of the whole server process. ``tokens_per_s`` is what the server
    streams, and ``requests_per_s`` what it answers in one token each, with steps of no time.
    """

    streams: int
    bare_step: float
    server_step: float
    delay_p50: float
    delay_p99: float
    bare_cpu: float
    server_cpu: float
    tokens_per_s: float
    requests_per_s: float

    @property
    def added(self) -> float:
        """Seconds that the server adds to a step."""
        return self.server_step - self.bare_step


class Overhead(msgspec.Struct):
    """``others`` is the cores that other programs took meanwhile; None where that is not known."""

    step_seconds: float
    repeats: int
    rows: list[Row]
    others: float | None


def measure(
    streams: Sequence[int] = STREAMS,
    *,
    step_seconds: float,
    repeats: int,
    progress: Progress = lambda stage, fraction: None,
) -> Overhead:
    """Compare server and bare engine where a step takes ``step_seconds``. RunFailed where an answer
    is not what was asked for."""
    progress("starting two servers", None)
    with SimulatedServer(step_seconds) as paced, SimulatedServer(0.0) as fast:
        rows: list[Row] = []
        watch, began, before = Others(), perf_counter(), paced.ask().cpu + fast.ask().cpu
        for index, count in enumerate(streams):
            progress(f"{count} streams", index / len(streams))
            tokens = max(TOKENS, 2 * count)
            asyncio.run(
                _streams(paced.url, count, tokens // 10)
            )  # connections, memory, first calls
            asyncio.run(_streams(fast.url, count, tokens // 10))
            runs = [_run(paced, fast, count, tokens, step_seconds) for _ in range(repeats)]
            rows.append(
                Row(
                    streams=count,
                    **{
                        name: median(getattr(run, name) for run in runs)
                        for name in Row.__struct_fields__[1:]
                    },
                )
            )
        others = watch.cores()
        if others is not None:
            ours = (paced.ask().cpu + fast.ask().cpu - before) / (perf_counter() - began)
            others = max(0.0, others - ours)
    return Overhead(step_seconds, repeats, rows, others)


def _run(
    paced: SimulatedServer, fast: SimulatedServer, streams: int, tokens: int, step: float
) -> Row:
    bare = time_bare(step, streams, tokens)
    before = paced.ask()
    clients = asyncio.run(_streams(paced.url, streams, tokens))
    after = paced.ask()
    delays = [delay for client in clients for delay in client.delays(dict(after.steps))]
    fastest = asyncio.run(_streams(fast.url, streams, tokens))
    seconds = max(one.times[-1] for one in fastest) - min(one.asked for one in fastest)
    return Row(
        streams=streams,
        bare_step=bare.step,
        server_step=_step_of(clients),
        delay_p50=percentile(delays, 0.5) or 0.0,
        delay_p99=percentile(delays, 0.99) or 0.0,
        bare_cpu=bare.cpu,
        server_cpu=(after.cpu - before.cpu) / streams / tokens,
        tokens_per_s=streams * tokens / seconds,
        requests_per_s=asyncio.run(_requests_per_second(fast.url, streams)),
    )


def show(overhead: Overhead) -> str:
    """The figures as a table."""
    rows = [
        ("", "step, ms", "", "", "delay, ms", "CPU µs/token", "", "steps of no time", ""),
        (
            "streams",
            "engine",
            "server",
            "added",
            "p50 / p99",
            "engine",
            "server",
            "tok/s",
            "requests/s",
        ),
    ]
    for one in overhead.rows:
        rows.append(
            (
                str(one.streams),
                f"{one.bare_step * 1e3:.2f}",
                f"{one.server_step * 1e3:.2f}",
                f"{one.added * 1e3:.2f}",
                f"{one.delay_p50 * 1e3:.2f} / {one.delay_p99 * 1e3:.2f}",
                f"{one.bare_cpu * 1e6:.1f}",
                f"{one.server_cpu * 1e6:.1f}",
                f"{one.tokens_per_s:,.0f}",
                f"{one.requests_per_s:,.0f}",
            )
        )
    head = (
        f"the HTTP server beside the bare engine, on a model whose steps take "
        f"{overhead.step_seconds * 1e3:g} ms; medians of {overhead.repeats}"
    )
    text = f"{head}\n\n{table(rows)}"
    if overhead.others is not None and overhead.others > DISTURBING:
        text += f"\n\nother programs took {overhead.others:.1f} cores: it was slower for that"
    return text


# --- the client ----------------------------------------------------------------------------------


class _Stream(asyncio.Protocol):
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


async def _streams(url: str, streams: int, tokens: int) -> list[_Stream]:
    """``streams`` answers of ``tokens`` tokens, asked for together."""
    host, port = _address(url)
    loop = asyncio.get_running_loop()
    waiting: list[asyncio.Future[None]] = []
    clients: list[_Stream] = []
    for prompt in prompts(streams):
        waiting.append(loop.create_future())
        body = {"prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "stream": True}
        clients.append(_Stream(_post(host, body), waiting[-1]))
        await loop.create_connection(lambda: clients[-1], host, port)
    for client in clients:
        client.ask()
    await asyncio.gather(*waiting)
    for client in clients:
        client.close()
    if any(len(client.times) != tokens for client in clients):
        counts = sorted({len(client.times) for client in clients})
        raise RunFailed(f"streams of {tokens} tokens had {counts} events")
    return clients


def _step_of(clients: list[_Stream]) -> float:
    """Seconds of a step while all of them get tokens: from when the last has its first token to
    when the first has its last."""
    began = max(client.times[0] for client in clients)
    ended = min(client.times[-1] for client in clients)
    steps = sum(began < at <= ended for client in clients for at in client.times) / len(clients)
    if not steps:
        raise RunFailed(f"{len(clients)} streams never ran all together; give steps more time")
    return (ended - began) / steps


async def _requests_per_second(url: str, connections: int) -> float:
    """Plain answers of one token, over ``connections`` that are kept open."""
    host, port = _address(url)
    left = iter(prompts(max(_SHORT_REQUESTS, 4 * connections)))
    count = 0

    async def ask() -> None:
        nonlocal count
        reader, writer = await asyncio.open_connection(host, port)
        for prompt in left:
            writer.write(_post(host, {"prompt": prompt, "max_tokens": 1, "ignore_eos": True}))
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            if not head.startswith(b"HTTP/1.1 200"):
                raise RunFailed(f"a request was answered {head.splitlines()[0].decode()}")
            count += 1
        writer.close()

    began = perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(connections):
            tasks.create_task(ask())
    return count / (perf_counter() - began)


def _post(host: str, body: dict[str, object]) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    return parts.hostname, parts.port
