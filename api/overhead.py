"""What the server costs: many streams from a model of no cost, beside the bare engine.

The server runs in a process of its own, the client in this one. The client reads sockets and
counts the ends of events, nothing more, so that it is not what is measured.
"""

import asyncio
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter

import msgspec

from ..engine.bench.contention import Others
from ..engine.bench.measures import RunFailed, percentile
from ..engine.bench.paced import prompts, time_bare
from ..engine.bench.report import DISTURBING, table
from .load import Stream, address_of, post, run_streams
from .simulated import SimulatedServer

Progress = Callable[[str, float | None], None]

STREAMS = (1, 8, 64, 256)
TOKENS = 200  # of a stream; at least two for each that starts before it
_SHORT_REQUESTS = 400  # for requests a second


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
                run_streams(paced.url, count, tokens // 10)
            )  # connections, memory, first calls
            asyncio.run(run_streams(fast.url, count, tokens // 10))
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
    clients = asyncio.run(run_streams(paced.url, streams, tokens))
    after = paced.ask()
    delays = [delay for client in clients for delay in client.delays(dict(after.steps))]
    fastest = asyncio.run(run_streams(fast.url, streams, tokens))
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


def _step_of(clients: list[Stream]) -> float:
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
    host, port = address_of(url)
    left = iter(prompts(max(_SHORT_REQUESTS, 4 * connections)))
    count = 0

    async def ask() -> None:
        nonlocal count
        reader, writer = await asyncio.open_connection(host, port)
        for prompt in left:
            writer.write(post(host, {"prompt": prompt, "max_tokens": 1, "ignore_eos": True}))
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
