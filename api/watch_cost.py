"""What it costs a server to be watched: the same streams with nobody watching, one, and five.

Two servers, one with ``--debug`` and one without, take turns under the same load. The viewers are
`minisgl-tui record` of the debug server, each a process of its own on the same machine, so that
what they take of the processors counts too; the last of five connects and never reads.
"""

import asyncio
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from statistics import median

import msgspec

from ..engine.bench.measures import RunFailed
from ..engine.bench.report import table
from .load import address_of, run_streams

Serve = Callable[[bool], AbstractContextManager[str]]
Progress = Callable[[str, float | None], None]

STREAMS, TOKENS, REPEATS = 64, 64, 5


class Setup(msgspec.Struct, frozen=True):
    """How the server is watched, and the share of the throughput without it that is to be left."""

    name: str
    debug: bool
    viewers: int = 0
    stalled: int = 0
    target: float = 0.0


SETUPS = (
    Setup("without --debug", False),
    Setup("--debug, nobody attached", True, target=0.98),
    Setup("one viewer", True, 1, target=0.95),
    Setup("five viewers, one of them stalled", True, 4, 1, target=0.9),
)


class WatchCost(msgspec.Struct):
    """Medians over the rounds: tokens a second, and of each round the share of those without
    ``--debug``, with the least and the most."""

    setup: Setup
    tokens_per_s: float
    share: float
    least: float
    most: float


def measure(
    serve: Serve,
    record: Sequence[str],
    *,
    streams: int = STREAMS,
    tokens: int = TOKENS,
    repeats: int = REPEATS,
    progress: Progress,
) -> list[WatchCost]:
    """``serve`` starts a server, with ``--debug`` or without, and gives its address; the words
    ``record``, then an address and a file, record one. Raises RunFailed where a viewer or an answer
    fails."""
    with ExitStack() as stack:
        progress("starting two servers", None)
        urls = {debug: stack.enter_context(serve(debug)) for debug in (False, True)}
        for url in urls.values():  # first calls
            _tokens_per_s(url, streams, 8)
        rates: dict[Setup, list[float]] = {setup: [] for setup in SETUPS}
        for index in range(repeats):
            first = index % len(SETUPS)  # each in its turn begins a round
            for place, setup in enumerate((*SETUPS[first:], *SETUPS[:first])):
                done = (index + place / len(SETUPS)) / repeats
                progress(f"round {index + 1} of {repeats}: {setup.name}", done)
                with _watched(urls[setup.debug], setup, record):
                    rates[setup].append(_tokens_per_s(urls[setup.debug], streams, tokens))
    return [_cost(setup, rates[setup], rates[SETUPS[0]]) for setup in SETUPS]


def _cost(setup: Setup, rates: list[float], unwatched: list[float]) -> WatchCost:
    shares = [rate / whole for rate, whole in zip(rates, unwatched, strict=True)]
    return WatchCost(setup, median(rates), median(shares), min(shares), max(shares))


def show(costs: list[WatchCost]) -> str:
    """A table, with the targets beside the figures."""
    rows = [("", "tok/s", "share", "from – to", "target")]
    for one in costs:
        target = f"{one.setup.target:.0%}" if one.setup.target else "–"
        span = f"{one.least:.1%} – {one.most:.1%}"
        rows.append((one.setup.name, f"{one.tokens_per_s:,.0f}", f"{one.share:.1%}", span, target))
    return table(rows)


@contextmanager
def _watched(url: str, setup: Setup, record: Sequence[str]) -> Iterator[None]:
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="minisgl-tui-"))
        viewers = [
            stack.enter_context(_viewer([*record, url, "-o", str(Path(directory) / f"{i}.mtrace")]))
            for i in range(setup.viewers)
        ]
        for _ in range(setup.stalled):
            stack.enter_context(_stalled(url))
        yield
        if any(viewer.poll() is not None for viewer in viewers):
            raise RunFailed("a viewer ended while the server was watched")


@contextmanager
def _viewer(words: Sequence[str]) -> Iterator["subprocess.Popen[str]"]:
    """Somebody who takes in every record, from when he has the state."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(words, stdout=quiet, stderr=subprocess.PIPE, text=True) as one:
        assert one.stderr
        try:
            line = one.stderr.readline()
            if "recording to" not in line:
                raise RunFailed(f"a viewer did not start: {line.strip()}")
            yield one
        finally:
            one.terminate()


@contextmanager
def _stalled(url: str) -> Iterator[None]:
    """Somebody who asks for all that happens, and reads none of it."""
    host, port = address_of(url)
    with socket.create_connection((host, port)) as one:
        one.sendall(f"GET /debug/events?from=-1 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        yield


def _tokens_per_s(url: str, streams: int, tokens: int) -> float:
    clients = asyncio.run(run_streams(url, streams, tokens, an_event_each=False))
    seconds = max(one.times[-1] for one in clients) - min(one.asked for one in clients)
    return streams * tokens / seconds
