"""The server's cost is measured in a process of its own, and what slows it down shows."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from minisgl_tui.api import overhead
from minisgl_tui.api.engine_thread import Generation, Update
from minisgl_tui.api.load import Stream, run_streams
from minisgl_tui.api.simulated import SimulatedServer, byte_tokenizer
from minisgl_tui.engine.bench.measures import RunFailed
from minisgl_tui.engine.bench.paced import PacedRunner, paced_engine, time_bare
from minisgl_tui.engine.sampling import SamplingParams

from .conftest import Live, live


@pytest.fixture(scope="module")
def runner() -> PacedRunner:
    return PacedRunner(0.005)


@pytest.fixture(scope="module")
def paced(runner: PacedRunner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server in this process, whose steps take 5 ms."""
    model = SimpleNamespace(
        engine=paced_engine(runner),
        tokenizer=byte_tokenizer(tmp_path_factory.mktemp("bytes")),
        default_params=SamplingParams(),
    )
    with live(model) as server:
        yield server


def test_every_figure_of_server_and_bare_engine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(overhead, "TOKENS", 40)
    found = overhead.measure((1, 4), step_seconds=0.002, repeats=1)
    assert [row.streams for row in found.rows] == [1, 4]
    for row in found.rows:
        assert row.bare_step >= 0.002 and row.server_step > 0
        assert row.bare_cpu > 0 and row.server_cpu > 0
        assert 0 < row.delay_p50 <= row.delay_p99
        assert row.tokens_per_s > 0 and row.requests_per_s > 0
    assert "added" in overhead.show(found)


def test_the_server_process_ends_with_the_block_that_it_was_started_for():
    with SimulatedServer(0.0) as server:
        process = server._process
        assert 0 < server.ask().cpu <= server.ask().cpu
    assert process.returncode == 0


def test_a_step_of_the_bare_engine_takes_as_long_as_it_was_told():
    assert time_bare(0.004, 3, 10).step >= 0.004


async def test_what_holds_tokens_up_shows_in_their_delay(
    paced: Live, runner: PacedRunner, monkeypatch: pytest.MonkeyPatch
):
    async def shortest() -> float:
        clients = await run_streams(paced.url, 2, 20)
        ended = dict(runner.ends)
        return min(delay for client in clients for delay in client.delays(ended))

    assert await shortest() > 0
    put = Generation.put

    def slow(self: Generation, update: Update) -> None:
        time.sleep(0.05)
        put(self, update)

    monkeypatch.setattr(Generation, "put", slow)
    assert await shortest() > 0.05


async def test_a_stream_with_too_few_events_is_no_measurement(
    paced: Live, monkeypatch: pytest.MonkeyPatch
):
    put, tokens = Generation.put, iter(range(5))

    def lossy(self: Generation, update: Update) -> None:
        if next(tokens, None) != 3:
            put(self, update)

    monkeypatch.setattr(Generation, "put", lossy)
    with pytest.raises(RunFailed, match=r"streams of 8 tokens had \[7\] events"):
        await run_streams(paced.url, 1, 8)


@pytest.mark.parametrize("cut", range(1, 25))
async def test_events_are_counted_once_wherever_the_network_cuts_them(cut: int):
    done = asyncio.get_running_loop().create_future()
    stream = Stream(b"", done)
    data = b'9\r\ndata: {"a": {}}\n\n\r\n9\r\ndata: {}\n\ndata: {"b"}\n\n\r\ndata: [DONE]'
    for start in range(0, len(data), cut):
        assert not done.done()
        stream.data_received(data[start : start + cut])
    assert len(stream.times) == 3 and done.done()


def test_the_byte_tokenizer_spells_every_byte(tmp_path: Path):
    tokenizer = byte_tokenizer(tmp_path)
    assert tokenizer.vocab_size == 256
    assert [tokenizer.token_bytes(token) for token in range(256)] == [
        bytes([byte]) for byte in range(256)
    ]
    assert tokenizer.encode("A 😀") == list("A 😀".encode())
