"""Clients that stall, trickle, break off or come by the thousand, and a server told to end."""

import asyncio
import contextlib
import json
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from minisgl_tui.api.simulated import byte_tokenizer
from minisgl_tui.engine.bench.paced import PacedRunner, paced_engine
from minisgl_tui.engine.plan import Plan, StepOutput
from minisgl_tui.engine.sampling import SamplingParams

from .conftest import Live, live, served
from .test_bad_requests import assert_refused
from .waiting import until

TEXT = "/v1/completions"
MANY = {"prompt": "x", "max_tokens": 3000, "n": 16, "ignore_eos": True, "stream": True}


class Moody(PacedRunner):
    """Fails in every step that a prompt with ``!`` is in."""

    def execute(self, plan: Plan) -> StepOutput:
        if any(ord("!") in row.request.tokens[: row.request.prompt_len] for row in plan.rows):
            raise RuntimeError("the device is gone")
        return super().execute(plan)


def model(directory: Path, step: float = 0.002) -> Any:
    return SimpleNamespace(
        engine=paced_engine(Moody(step)),
        tokenizer=byte_tokenizer(directory),
        default_params=SamplingParams(),
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Steps of 2 ms; bodies of 100,000 bytes at most."""
    with live(model(tmp_path_factory.mktemp("bytes")), max_body=100_000, drain=0.2) as one:
        yield one
        one.assert_nothing_left()


def post(body: dict[str, Any], **headers: str) -> bytes:
    content = json.dumps(body).encode()
    given = {"Host": "h", "Content-Type": "application/json", "Content-Length": str(len(content))}
    lines = [f"{name}: {value}\r\n" for name, value in (given | headers).items()]
    return f"POST {TEXT} HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + content


@asynccontextmanager
async def connection(
    server: Live, send: bytes = b"", window: int | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection on which ``send`` has been sent; ``window`` makes its receive buffer small."""
    sock = socket.socket()
    if window:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    sock.setblocking(False)
    host, port = server.url.removeprefix("http://").split(":")
    await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=sock, limit=window or 1 << 20)
    writer.write(send)
    await writer.drain()
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def answers(server: Live, **body: Any) -> httpx2.Response:
    body = {"prompt": "hello", "max_tokens": 5, "ignore_eos": True, **body}
    async with httpx2.AsyncClient(base_url=server.url, timeout=60) as http:
        return await http.post(TEXT, json=body)


async def test_a_client_that_does_not_read_stalls_nobody_and_its_answer_waits_bounded(server: Live):
    async with connection(server, post(MANY), window=4096) as (reader, _):
        await until(lambda: server.serving.thread.live == 16)
        began = time.monotonic()
        for _ in range(10):
            assert (await answers(server)).status_code == 200
        assert time.monotonic() - began < 30
        # Its tokens are made and wait, so its blocks are free before it reads one.
        await until(lambda: server.serving.thread.live == 0, 120)
        connections: set[Any] = set(server.server.server_state.connections)
        (waiting,) = [one for one in connections if one.cycle]
        assert waiting.transport.get_write_buffer_size() < 1 << 20
        raw = b""
        while not raw.endswith(b"0\r\n\r\n"):
            raw += await reader.read(1 << 16)
    assert raw.count(b'"text":"') == 16 * 3000 and raw.count(b'"finish_reason":"length"') == 16


async def test_a_stream_abandoned_unread_ends(server: Live):
    async with connection(server, post(MANY), window=4096):
        await until(lambda: server.serving.thread.live == 16)
    await until(lambda: server.serving.thread.live == 0)
    await until(lambda: not server.server.server_state.tasks)


@pytest.mark.parametrize("stall", ["unread stream", "half a body", "half a header", "idle"])
async def test_a_client_that_stalls_does_not_keep_the_server_from_ending(
    stall: str, tmp_path: Path
):
    sent = {
        "unread stream": post(MANY),
        "half a body": post(MANY)[:-5],
        "half a header": post(MANY)[:30],
        "idle": b"",
    }
    with live(model(tmp_path, step=0.0), drain=0.2) as server:
        async with connection(server, sent[stall], window=4096):
            await until(lambda: bool(server.server.server_state.connections))
            await asyncio.sleep(0.2)
            await until(lambda: not server.serving.thread.live, 60)
            server.server.should_exit = True
            await until(lambda: not server.thread.is_alive(), 15)


async def test_a_half_sent_body_is_no_request_and_holds_nobody_up(server: Live):
    async with connection(server, post(MANY)[:-5]) as (_, writer):
        assert (await answers(server)).status_code == 200
        assert not server.serving.thread.live
        writer.close()
    await until(lambda: not server.server.server_state.tasks)
    async with connection(server, post(MANY)[:-5]) as (reader, writer):
        await asyncio.sleep(0.1)
        writer.write(post(MANY)[-5:])
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")


async def test_a_body_of_exactly_the_limit_is_read_and_one_byte_more_is_not(server: Live):
    def padded(size: int) -> bytes:
        body = b'{"prompt": "x", "max_tokens": 1, "user": "'
        return body + b"a" * (size - len(body) - 2) + b'"}'

    assert server.send(TEXT, padded(100_000)).status_code == 200
    assert_refused(server.send(TEXT, padded(100_001)), 413)


async def test_a_thousand_idle_connections_cost_the_others_nothing(server: Live):
    async with asyncio.TaskGroup() as tasks:
        leave = asyncio.Event()

        async def idle() -> None:
            async with connection(server, b"POST /v1/completions HTTP/1.1\r\nHost:"):
                await leave.wait()

        try:
            for _ in range(1000):
                tasks.create_task(idle())
            await until(lambda: len(server.server.server_state.connections) >= 1000, 60)
            assert (await answers(server)).status_code == 200
        finally:
            leave.set()
    await until(lambda: not server.server.server_state.connections, 30)


async def test_a_step_that_fails_is_an_error_for_each_of_its_clients_and_the_server_lives_on(
    server: Live,
):
    async with httpx2.AsyncClient(base_url=server.url, timeout=60) as http:

        async def stream() -> str:
            body = {"prompt": "x", "max_tokens": 2000, "ignore_eos": True, "stream": True}
            return (await http.post(TEXT, json=body)).text

        streams = [asyncio.create_task(stream()) for _ in range(8)]
        await until(lambda: server.serving.thread.live == 8)
        await asyncio.sleep(0.2)
        for _ in range(3):
            failed = await http.post(TEXT, json={"prompt": "!"})
            assert assert_refused(failed, 500)["type"] == "server_error"
        for text in await asyncio.gather(*streams):
            *_, last, done, rest = text.split("\n\n")
            assert (done, rest) == ("data: [DONE]", "")
            assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_error"
        assert (await answers(server)).status_code == 200


async def test_a_head_that_grows_too_large_is_a_431(server: Live):
    async with connection(server, b"POST /v1/completions HTTP/1.1\r\n") as (reader, writer):
        with contextlib.suppress(ConnectionError):
            for index in range(4000):
                writer.write(b"X-%d: %s\r\n" % (index, b"a" * 1000))
                await writer.drain()
        with contextlib.suppress(ConnectionError):
            said = await asyncio.wait_for(reader.read(), 10)
            assert said.startswith(b"HTTP/1.1 431 ") and b'"message":"the headers have' in said
    assert (await answers(server)).status_code == 200


async def test_a_head_of_an_ordinary_size_is_read_however_it_comes(server: Live):
    request = post({"prompt": "x", "max_tokens": 1}, **{"X-Long": "a" * 30_000})
    async with connection(server) as (reader, writer):
        for _ in range(2):  # the second over the connection that was kept
            for start in range(0, len(request), 1000):
                writer.write(request[start : start + 1000])
                await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))


@pytest.mark.parametrize("sent", [b"", b"POST /v1/compl", post(MANY)[:60]])
async def test_a_head_that_takes_too_long_ends_its_connection(
    server: Live, monkeypatch: pytest.MonkeyPatch, sent: bytes
):
    monkeypatch.setattr("minisgl_tui.api.patience.HEAD_SECONDS", 0.3)
    async with connection(server, sent) as (reader, _):
        assert await asyncio.wait_for(reader.read(), 10) == b""
    # Not one that came in time, however long its answer takes.
    async with connection(server, post({**MANY, "max_tokens": 400, "n": 1})) as (reader, _):
        assert (await reader.readuntil(b"0\r\n\r\n")).count(b"data: {") == 400


async def test_a_body_that_stops_coming_is_a_408(server: Live, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("minisgl_tui.api.connection.BODY_SECONDS", 0.3)
    async with connection(server, post(MANY)[:-5]) as (reader, _):
        said = await asyncio.wait_for(reader.read(), 10)
    assert said.startswith(b"HTTP/1.1 408 ") and b"bytes of the body; send all of it" in said


# --- signals -------------------------------------------------------------------------------------


def last_words(events: list[str]) -> str:
    """How a stream ended: its finish reason, or the code of its error."""
    last = json.loads(events[-2].removeprefix("data: "))
    assert events[-1] == "data: [DONE]"
    return last["error"]["code"] if "error" in last else last["choices"][0]["finish_reason"]


async def test_32_streams_each_end_whole_or_with_an_error_when_the_server_is_terminated(
    tiny_model: Path,
):
    with served(tiny_model, "--dtype", "float32", "--drain", "0.5") as one:
        begun = 0

        async def stream(http: httpx2.AsyncClient, index: int) -> str:
            nonlocal begun
            body: dict[str, Any] = {"prompt": "x", "ignore_eos": True, "stream": True}
            body |= {"max_tokens": 30} if index % 2 else {"max_tokens": 500, "n": 8}
            async with http.stream("POST", one.url + TEXT, json=body) as answer:
                events: list[str] = []
                async for line in answer.aiter_lines():
                    begun += not events
                    events += [line] if line else []
            return last_words(events)

        async with httpx2.AsyncClient(timeout=60) as http:
            streams = [asyncio.create_task(stream(http, index)) for index in range(32)]
            await until(lambda: begun == 32, 60)
            one.process.send_signal(signal.SIGTERM)
            ends = await asyncio.gather(*streams)
        assert "shutting_down" in ends and set(ends) <= {"length", "shutting_down"}
        assert one.process.wait(20) == 128 + signal.SIGTERM
        assert "Traceback" not in one.said()


def test_a_second_interrupt_ends_at_once_what_the_first_lets_finish(tiny_model: Path):
    with served(tiny_model, "--dtype", "float32", "--drain", "600") as one:
        body = {"prompt": "x", "max_tokens": 500, "n": 128, "ignore_eos": True, "stream": True}
        with (
            pytest.raises(httpx2.HTTPError),
            httpx2.stream("POST", one.url + TEXT, json=body, timeout=60) as answer,
        ):
            lines = answer.iter_lines()
            next(lines)
            one.process.send_signal(signal.SIGINT)
            time.sleep(0.5)
            assert one.process.poll() is None
            one.process.send_signal(signal.SIGINT)
            list(lines)
        assert one.process.wait(10) == 0
        assert "Traceback" not in one.said()
