"""From a loaded model to a listening server, and back: start, banner, graceful end."""

import asyncio
import contextlib
import gc
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import uvicorn

from ..engine.errors import UserError
from ..engine.trace import Header, Model, RecordTo, new_header
from .access import is_loopback
from .app import create_app
from .control import Controls
from .engine_thread import EngineThread
from .feed import Feed
from .patience import PatientProtocol
from .serving import MAX_BODY, Serving
from .shown import Shown, shown
from .tool_template import check_parser

if TYPE_CHECKING:
    from ..engine.llm import LLM

log = logging.getLogger("minisgl_tui.api")

Progress = Callable[[str, float | None], None]

DRAIN_SECONDS = 10.0
MAX_QUEUED = 1024
_BACKLOG = 2048
_LAST_WORDS = 1.0  # seconds for errors to be read at the end


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """``model_name`` is what clients call the model; ``cors`` are the origins of web pages that may
    ask (``*``: any); ``drain`` are seconds that requests under way are given at the end. With
    ``record_to`` everything that the engine does is recorded, with ``debug`` viewers may watch it,
    with ``debug_control`` stop it too. With ``debug_redact`` neither gets to see what was said."""

    host: str
    port: int
    model_name: str
    api_key: str | None = None
    cors: tuple[str, ...] = ()
    max_queued: int = MAX_QUEUED
    max_body: int = MAX_BODY
    drain: float = DRAIN_SECONDS
    tool_parser: str = "auto"
    record_to: RecordTo | None = None
    debug: bool = False
    debug_control: bool = False
    debug_redact: bool = False


def serve(model: str, settings: ServerSettings, engine: dict[str, Any], progress: Progress) -> None:
    """Load ``model`` with the ``engine`` settings (as `LLM` names them) and serve until a signal.

    Raises UserError for an address that cannot be had, before anything slow begins.
    """
    check_parser(settings.tool_parser)
    sock = bind(settings.host, settings.port)
    with contextlib.closing(sock):
        # Threads that spin while they wait take the time of those that serve.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        progress("starting PyTorch", None)
        from ..engine.llm import LLM

        llm = LLM(model, progress=progress, **engine)
        if llm.tokenizer is None:
            raise UserError(f"{model} has no tokenizer; a server needs one")
        serving = Serving(
            model=settings.model_name,
            tokenizer=llm.tokenizer,
            defaults=llm.default_params,
            thread=EngineThread(llm.engine, settings.max_queued),
            api_key=settings.api_key,
            cors=settings.cors,
            max_body=settings.max_body,
            tool_parser=settings.tool_parser,
        )
        seen = shown(serving.thread, _header(llm), llm.tokenizer, settings.debug_redact)
        if settings.debug:
            watch(serving, seen, settings.debug_control)
        gc.collect()
        gc.freeze()  # the model lives as long as the server: no collection need walk it
        _log_to_stderr()
        server = Server(serving, settings, banner(serving, settings, sock))
        progress("", None)
        with _recording(settings.record_to, seen):
            try:
                server.run([sock])
            except KeyboardInterrupt:  # the ordinary end, which uvicorn passes on when it is done
                pass
            finally:
                serving.thread.stop()


@contextlib.contextmanager
def _recording(record_to: RecordTo | None, seen: Shown) -> Iterator[None]:
    """Everything that happens meanwhile is written to the file, if one is wanted."""
    if record_to is None:
        yield
        return
    with record_to.open(seen.header, seen.speller, log.error) as writer:
        seen.listen(lambda record: writer.write(record, seen.state))
        yield


def _header(llm: "LLM") -> Header:
    made, engine = llm.model_info, llm.engine
    model = Model(made.name, made.architecture, made.dtype, made.device, str(made.path))
    return new_header(engine.config, model, engine.clock(), llm.tokenizer)


def watch(serving: Serving, seen: Shown, control: bool) -> None:
    """Let viewers watch ``seen``, what the engine does, and with ``control`` stop it."""
    feed = serving.feed = Feed(serving.thread, seen)
    if control:
        serving.controls = Controls(serving.thread.debugger, feed.changed)
        feed.lease = serving.controls.lease


class Server(uvicorn.Server):
    """Says where it listens, and at the end lets requests under way finish, up to a limit."""

    def __init__(self, serving: Serving, settings: ServerSettings, banner: str = "") -> None:
        super().__init__(
            uvicorn.Config(
                create_app(serving),
                http=PatientProtocol,
                backlog=_BACKLOG,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=60,
            )
        )
        self._serving = serving
        self._drain = settings.drain
        self._banner = banner

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._banner:
            print(self._banner, flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._serving.feed:
            self._serving.feed.close()
        hurry = asyncio.create_task(self._hurry())
        await super().shutdown(sockets)
        hurry.cancel()
        if self.force_exit:  # a second signal
            self._cut_off()
            if self.server_state.tasks:
                await asyncio.wait(self.server_state.tasks, timeout=_LAST_WORDS)
            await self.lifespan.shutdown()

    async def _hurry(self) -> None:
        """At the deadline end what still runs, then cut off who neither reads nor sends."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._drain
        await self._serving.thread.drain(self._drain)
        await asyncio.sleep(deadline - loop.time() + _LAST_WORDS)
        self._cut_off()

    def _cut_off(self) -> None:
        for connection in tuple(self.server_state.connections):
            connection.transport.abort()


def bind(host: str, port: int) -> socket.socket:
    """A socket that has the address and does not listen yet. UserError if it cannot be had."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, proto)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"cannot listen on --host {host} --port {port}: {reason}; choose another"
        ) from error
    return sock


def banner(serving: Serving, settings: ServerSettings, sock: socket.socket) -> str:
    """What is served where, and a line to try it with."""
    config = serving.thread.engine.config
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{sock.getsockname()[1]}"
    key = " -H 'Authorization: Bearer KEY'" if settings.api_key else ""
    lines = [
        f"minisgl-tui serves {serving.model} at {url}/v1",
        f"  KV pool  {config.num_blocks} blocks of {config.block_size} tokens",
        f"  context  {serving.context} tokens, {serving.thread.limit} requests at most",
        f"  try      curl {url}/v1/chat/completions -H 'Content-Type: application/json'{key} "
        f'-d \'{{"messages": [{{"role": "user", "content": "Hello"}}]}}\'',
    ]
    texts = "without texts" if settings.debug_redact else "prompts and answers included"
    if settings.record_to:
        lines.append(f"  records  {settings.record_to.path}, {texts}")
    if settings.debug:
        how = " --control" if settings.debug_control else ""
        lines.append(f"  watch    minisgl-tui attach {url}{how}, {texts}")
    if not settings.api_key and not is_loopback(settings.host):
        lines.append("  warning  anybody who reaches this address may use it: set --api-key")
    return "\n".join(lines)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    for name, level in (("minisgl_tui.api", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
