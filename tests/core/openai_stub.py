"""A small HTTP server that answers ``/v1/completions`` as a test tells it to."""

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
Chunk = Body | str | float  # a JSON chunk, a raw line, or seconds to wait


class Stub:
    """What the server does: ``stream`` gives the chunks of an answer, or ``status`` with ``text``
    refuses it. ``bodies`` are the requests that came; ``busiest`` is the most at a time."""

    def __init__(self, stream: Callable[[Body], Iterable[Chunk]]) -> None:
        self.stream = stream
        self.status, self.text, self.kind = 200, "", "text/event-stream"
        self.models: Body | str = {"data": [{"id": "stub"}]}  # as JSON, or the text itself
        self.bodies: list[Body] = []
        self.keys: set[str | None] = set()
        self.busiest = self.busy = 0
        self.url = ""
        self.lock = threading.Lock()


def completion(text: str = "a", reason: str | None = None, **more: Any) -> Body:
    return {"choices": [{"index": 0, "text": text, "finish_reason": reason}], **more}


def usage(prompt: int, output: int, cached: int | None = None) -> Body:
    details = {} if cached is None else {"prompt_tokens_details": {"cached_tokens": cached}}
    return {"prompt_tokens": prompt, "completion_tokens": output, **details}


def well_behaved(body: Body) -> Iterator[Chunk]:
    """One token a chunk, and their number as often as it is asked for."""
    prompt, count = len(body["prompt"]), body["max_tokens"]
    options = body["stream_options"]
    for n in range(1, count + 1):
        more = {"usage": usage(prompt, n)} if options.get("continuous_usage_stats") else {}
        yield completion("a", "length" if n == count else None, **more)
    yield {"choices": [], "usage": usage(prompt, count, cached=prompt // 2)}
    yield "[DONE]"


@contextmanager
def serving(stream: Callable[[Body], Iterable[Chunk]] = well_behaved) -> Iterator[Stub]:
    stub = Stub(stream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            models = stub.models if isinstance(stub.models, str) else json.dumps(stub.models)
            self._send(200, "application/json", models)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with stub.lock:
                stub.keys.add(self.headers.get("authorization"))
                stub.bodies.append(body)
                stub.busy += 1
                stub.busiest = max(stub.busiest, stub.busy)
            try:
                if stub.status != 200:
                    self._send(stub.status, "application/json", stub.text)
                else:
                    self._stream(body)
            finally:
                with stub.lock:
                    stub.busy -= 1

        def _stream(self, body: Body) -> None:
            self.send_response(200)
            self.send_header("content-type", stub.kind)
            self.send_header("connection", "close")
            self.end_headers()
            self.close_connection = True
            for chunk in stub.stream(body):
                if isinstance(chunk, float):
                    time.sleep(chunk)
                    continue
                text = chunk if isinstance(chunk, str) else json.dumps(chunk)
                self.wfile.write(f"data: {text}\n\n".encode())
                self.wfile.flush()

        def _send(self, status: int, kind: str, text: str) -> None:
            data = text.encode()
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
