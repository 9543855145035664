"""A pretend Hub on this machine: enough of its HTTP interface to download one repository."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub_with(name: str, directory: Path, stall_on: str = "") -> Iterator[tuple[str, list[str]]]:
    """Serve ``directory`` as Hub model ``name``: its address, and the files asked for so far.

    A file called ``stall_on`` is sent halfway, and then nothing more comes.
    """
    fetched: list[str] = []
    stopping = threading.Event()
    files = {path.name: path for path in directory.iterdir() if path.is_file()}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(send_body=True)

        def do_HEAD(self) -> None:
            self._answer(send_body=False)

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _answer(self, send_body: bool) -> None:
            path = self.path.split("?")[0]
            if path.startswith(f"/api/models/{name}/tree/"):
                return self._json([_entry(file) for file in files.values()])
            if path.startswith(f"/api/models/{name}"):
                siblings = [{"rfilename": file} for file in files]
                return self._json({"id": name, "sha": COMMIT, "siblings": siblings})
            file = files.get(path.rpartition("/")[2])
            if file is None or f"/{name}/resolve/" not in path:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            return self._file(file, send_body)

        def _json(self, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _file(self, file: Path, send_body: bool) -> None:
            body = file.read_bytes()
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if send_body:
                fetched.append(file.name)
                if file.name == stall_on:
                    self.wfile.write(body[: len(body) // 2])
                    self.wfile.flush()
                    stopping.wait(60)
                else:
                    self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", fetched
    finally:
        stopping.set()
        server.shutdown()
        server.server_close()


def _entry(file: Path) -> dict[str, object]:
    body = file.read_bytes()
    oid = hashlib.sha1(body).hexdigest()
    return {"type": "file", "path": file.name, "size": len(body), "oid": oid}
