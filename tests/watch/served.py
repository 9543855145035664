"""Servers to watch, in a thread of this process, and a wire to them that can be cut."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx2
from minisgl_tui.api.engine_thread import EngineThread
from minisgl_tui.api.server import Server, ServerSettings, bind, watch
from minisgl_tui.api.serving import Serving
from minisgl_tui.api.shown import shown
from minisgl_tui.engine.bench.paced import PacedRunner, paced_engine
from minisgl_tui.engine.engine import Engine
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.tokenizer import Tokenizer
from minisgl_tui.engine.trace import Model, new_header

LOOPBACK, MODEL = "127.0.0.1", "simulated"


@dataclass
class Watched:
    """A server on a model that computes nothing, with its debug routes."""

    url: str
    serving: Serving
    server: Server
    thread: threading.Thread

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def ask(self, tokens: int = 8, prompt: str = "Hello, this is a prompt") -> httpx2.Response:
        body = {"prompt": prompt, "max_tokens": tokens, "ignore_eos": True}
        return httpx2.post(f"{self.url}/v1/completions", json=body, timeout=60)

    def ask_on(self, tokens: int) -> threading.Thread:
        """The same without waiting for the answer."""
        asking = threading.Thread(target=self._ask_quietly, args=(tokens,), daemon=True)
        asking.start()
        return asking

    def _ask_quietly(self, tokens: int) -> None:
        with suppress(httpx2.HTTPError):
            self.ask(tokens)

    def control(self, op: str, holder: str, **fields: Any) -> httpx2.Response:
        body = {"op": op, "holder": holder, **fields}
        return httpx2.post(f"{self.url}/debug/control", json=body, timeout=60)

    def digest(self) -> str:
        """Of the engine's own picture, which has to be at rest."""
        return self.serving.thread.state.digest()

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        self.serving.thread.stop()
        assert not self.thread.is_alive()


def serve(
    tokenizer: Tokenizer,
    port: int = 0,
    *,
    engine: Engine | None = None,
    step: float = 0.004,
    debug: bool = True,
    control: bool = True,
    redact: bool = False,
    **settings: Any,
) -> Watched:
    """Serves ``engine``, or else a model that computes nothing in ``step`` seconds."""
    engine = engine or paced_engine(PacedRunner(step), 512)
    thread = EngineThread(engine, 1024)
    serving = Serving(MODEL, tokenizer, SamplingParams(), thread, **settings)
    if debug:
        header = new_header(engine.config, Model(MODEL), engine.clock(), tokenizer)
        watch(serving, shown(thread, header, tokenizer, redact), control)
    sock = bind(LOOPBACK, port)
    server = Server(serving, ServerSettings(LOOPBACK, port, MODEL, drain=0.2))
    return _started(server, serving, sock)


def _started(server: Server, serving: Serving, sock: socket.socket) -> Watched:
    thread = threading.Thread(target=server.run, args=([sock],), daemon=True)
    thread.start()
    for _ in range(1000):
        if server.started:
            break
        thread.join(0.01)
    assert server.started
    return Watched(f"http://{LOOPBACK}:{sock.getsockname()[1]}", serving, server, thread)


@contextmanager
def served(tokenizer: Tokenizer, port: int = 0, **settings: Any) -> Iterator[Watched]:
    one = serve(tokenizer, port, **settings)
    try:
        yield one
    finally:
        one.stop()


class Wire:
    """A connection to ``port`` by way of this one, which does what wires do: it is cut, or nothing
    comes through for a while."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._socket = socket.create_server((LOOPBACK, 0))
        self.url = f"http://{LOOPBACK}:{self._socket.getsockname()[1]}"
        self.flows = threading.Event()
        self.flows.set()
        self._ends: list[socket.socket] = []
        self._left: int | None = None  # bytes until the cut
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, after: int = 0) -> None:
        """End what is connected, once ``after`` more bytes have come."""
        self._left = after
        if not after:
            self._end()

    def close(self) -> None:
        self.flows.set()
        self._socket.close()
        self._end()

    def _end(self) -> None:
        self._left = None
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends.clear()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._socket.accept()
                try:
                    far = socket.create_connection((LOOPBACK, self._to))
                except OSError:
                    near.close()
                    continue
                self._ends += [near, far]
                for one, other, counts in ((near, far, False), (far, near, True)):
                    threading.Thread(
                        target=self._carry, args=(one, other, counts), daemon=True
                    ).start()

    def _carry(self, one: socket.socket, other: socket.socket, counts: bool) -> None:
        with suppress(OSError):
            while data := one.recv(4096):
                self.flows.wait()
                if counts and self._left is not None:
                    data = data[: self._left]
                    self._left -= len(data)
                other.sendall(data)
                if counts and self._left == 0:
                    self._end()
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
