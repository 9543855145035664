"""What cannot be watched is told in one line, with what to do."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.tokenizer import Tokenizer
from minisgl_tui.tui.cli import main
from minisgl_tui.tui.sources.http import HttpSource
from minisgl_tui.tui.sources.server import DebugServer
from tui.pilot import NARROW, running

from .served import LOOPBACK, Watched, served


@contextmanager
def answering(pages: dict[str, tuple[int, str, dict[str, str]]]) -> Iterator[str]:
    """A web server with those pages: status, body, headers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, headers = pages.get(self.path, (404, "<html>not here</html>", {}))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{LOOPBACK}:{server.server_address[1]}"
        finally:  # or its thread would go on with whatever gets the number of its socket next
            server.shutdown()


async def refusal(url: str, key: str | None = None) -> str:
    async with DebugServer(url, key) as server:
        with pytest.raises(UserError) as error:
            await server.state()
    assert "\n" not in str(error.value)
    return str(error.value)


async def test_nobody_listens_there() -> None:
    with answering({}) as url:
        port = url.rpartition(":")[2]
    assert await refusal(url) == (
        f"nothing listens at {url}: start a server there, minisgl-tui serve --debug --port {port}"
    )


async def test_there_is_no_such_host() -> None:
    assert await refusal("nowhere.invalid:1") == (
        "there is no host nowhere.invalid: check the address"
    )


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://host:port"])
def test_what_is_no_address(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attach", url]) == 2
    said = f"minisgl-tui: the server's address is {url!r}; give http://HOST:PORT\n"
    assert capsys.readouterr().err == said


async def test_a_server_of_ours_without_its_debug_routes(tokenizer: Tokenizer) -> None:
    with served(tokenizer, debug=False) as server:
        assert await refusal(server.url) == (
            f"{server.url} serves without its debug routes: start it with serve --debug"
        )


async def test_a_server_that_wants_a_key(tokenizer: Tokenizer) -> None:
    with served(tokenizer, api_key="right") as server:
        how = "give the server's with --api-key or MINISGL_TUI_API_KEY"
        assert await refusal(server.url) == f"{server.url} wants a key: {how}"
        assert await refusal(server.url, "wrong") == f"{server.url} does not take this key: {how}"
        async with DebugServer(server.url, "right") as one:
            assert (await one.state()).seq == -1


@pytest.mark.parametrize(
    ("pages", "says"),
    [
        ({}, "{url} is no server of minisgl-tui, and has no debug routes that this program knows"),
        (
            {"/v1/models": (200, json.dumps({"data": [{"owned_by": "vllm"}]}), {})},
            "{url} is a server of vllm, and has no debug routes that this program knows",
        ),
        (
            {"/debug/state": (200, "<html>\n<b>hello</b>", {})},
            "{url} is no server of minisgl-tui: it answers '<html> <b>hello</b>'",
        ),
        (
            {"/debug/state": (200, json.dumps({"header": {"v": 2}, "state": 7}), {})},
            "{url} speaks version 2 of the debug protocol, and this program 1: install a newer "
            "minisgl-tui here",
        ),
        (
            {"/debug/state": (302, "", {"Location": "https://elsewhere/debug/state"})},
            "{url} sends on to https://elsewhere/debug/state: give that address",
        ),
        (
            {"/debug/state": (503, json.dumps({"error": {"message": "too many"}}), {})},
            "{url} answers 503: too many",
        ),
        (
            {"/debug/state": (403, json.dumps({"error": {"message": "not from there"}}), {})},
            "{url} does not let this viewer in: not from there",
        ),
    ],
)
async def test_other_servers(pages: dict[str, Any], says: str) -> None:
    with answering(pages) as url:
        assert await refusal(url) == says.format(url=url)


async def test_the_screens_end_in_that_line() -> None:
    with answering({}) as url:
        async with running(NARROW, HttpSource(url), ready=False) as on:
            await on.until(lambda: on.app.return_code is not None)
        assert on.app.return_code == 2
        assert on.app.fatal and on.app.fatal.startswith(f"{url} is no server of minisgl-tui")


# --- what the server lets in ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tokenizer: Tokenizer) -> Iterator[Watched]:
    with served(tokenizer, control=False) as one:
        yield one


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:30000"}, 403),
    ],
)
def test_web_pages_and_other_names_of_this_machine_are_kept_out(
    server: Watched, headers: dict[str, str], status: int
) -> None:
    reply = httpx2.get(f"{server.url}/debug/state", headers=headers)
    assert reply.status_code == status
    assert status == 200 or "what the engine does is not shown" in reply.json()["error"]["message"]


async def test_a_server_that_is_only_to_be_watched_is_not_stopped(server: Watched) -> None:
    reply = server.control("pause", "anna")
    assert reply.status_code == 403 and "--debug-control" in reply.json()["error"]["message"]
    async with DebugServer(server.url) as asked:
        with pytest.raises(UserError, match="does not let viewers stop it: this server can be"):
            await asked.control({"op": "pause", "holder": "anna"})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"op": "jump"}, "op"),
        ({"op": "pause", "holder": ""}, "holder has 0 characters"),
        ({"op": "pause", "lease_seconds": 0.1}, "lease_seconds is 0.1; give 1 to 600"),
        ({"op": "step", "count": 0}, "0 steps cannot be taken"),
        ({"op": "break", "condition": "free <"}, "something is missing at the end"),
        ({"op": "pause", "colour": 1}, "colour"),
    ],
)
def test_a_bad_wish_is_refused_with_the_field(
    tokenizer: Tokenizer, fields: dict[str, Any], says: str
) -> None:
    with served(tokenizer) as server:
        reply = server.control(**{"holder": "anna", **fields})
        assert reply.status_code == 400
        assert says in reply.json()["error"]["message"]
        assert server.serving.controls and server.serving.controls.lease() is None


def test_a_key_that_no_header_can_hold_is_told_before_anything_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["attach"], ["record", "-o", str(tmp_path / "a.mtrace")]):
        assert main([*words, "http://h", "--api-key", "ключ"]) == 2
        said = capsys.readouterr().err
        assert "the API key has characters other than printable ASCII" in said
        assert said.count("\n") == 1
