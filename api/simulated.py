"""A server on the model that computes nothing (`engine.bench.paced`), in a process of its own.

started as    python -m minisgl_tui.api.simulated STEP_SECONDS NUM_BLOCKS [debug]
says          {"url": "http://127.0.0.1:41234"}   once it listens
reads         any line                            until its input ends, and so does it
says          {"cpu": 1.25}                       seconds of processor time so far
"""

import gc
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from threading import Thread
from time import process_time

import msgspec

from ..engine.bench.measures import RunFailed
from ..engine.bench.paced import MOST_STREAMS, NUM_BLOCKS, PacedRunner, paced_engine
from ..engine.sampling import SamplingParams
from ..engine.tokenizer import Tokenizer, byte_of_character
from ..engine.trace import Model, new_header
from .engine_thread import EngineThread
from .server import Server, ServerSettings, bind, watch
from .serving import Serving
from .shown import shown

HOST, MODEL = "127.0.0.1", "simulated"
_PATIENCE = 10.0  # seconds to end by itself
_TEMPLATE = "{% for one in messages %}{{ one.role }}: {{ one.content }}\n{% endfor %}"


class Said(msgspec.Struct):
    """What the server says of itself; ``steps`` are numbers and times, by `perf_counter`, which
    all processes of a machine share."""

    cpu: float
    steps: list[tuple[int, float]]


class SimulatedServer:
    """The server, as a process to ask; with ``debug`` it may be watched. Use as a context manager;
    RunFailed where it does not start."""

    def __init__(
        self, step_seconds: float, num_blocks: int = NUM_BLOCKS, debug: bool = False
    ) -> None:
        settings = [str(step_seconds), str(num_blocks), *(["debug"] if debug else [])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, *settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        self.url = str(json.loads(self._read())["url"])

    def __enter__(self) -> "SimulatedServer":
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def ask(self) -> Said:
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return msgspec.json.decode(self._read(), type=Said)

    def _read(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RunFailed(f"the simulated server ended with exit code {self._process.wait()}")
        return line


def main(step_seconds: float, num_blocks: int, debug: bool = False) -> None:
    with tempfile.TemporaryDirectory(prefix="minisgl-tui-") as directory:
        tokenizer = byte_tokenizer(Path(directory))
    runner = PacedRunner(step_seconds)
    thread = EngineThread(paced_engine(runner, num_blocks), MOST_STREAMS)
    serving = Serving(MODEL, tokenizer, SamplingParams(), thread)
    if debug:
        config, clock = thread.engine.config, thread.engine.clock
        header = new_header(config, Model(MODEL), clock(), tokenizer)
        watch(serving, shown(thread, header, tokenizer, redact=False), control=False)
    settings = ServerSettings(HOST, 0, MODEL, drain=0)
    with bind(HOST, 0) as sock:
        listening = json.dumps({"url": f"http://{HOST}:{sock.getsockname()[1]}"})
        server = Server(serving, settings, banner=listening)
        Thread(target=_answer, args=(server, runner), daemon=True).start()
        gc.collect()
        gc.freeze()  # as `serve` does
        server.run([sock])


def _answer(server: Server, runner: PacedRunner) -> None:
    for _ in sys.stdin:
        steps = [runner.ends.popleft() for _ in range(len(runner.ends))]
        print(msgspec.json.encode(Said(process_time(), steps)).decode(), flush=True)
    server.should_exit = True


def byte_tokenizer(directory: Path) -> Tokenizer:
    """A tokenizer, written to ``directory``, whose tokens are the 256 bytes. Its chats are lines
    that begin with the role."""
    from tokenizers import Tokenizer as Raw
    from tokenizers import decoders, models, pre_tokenizers

    raw = Raw(models.BPE(vocab=byte_of_character(), merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.save(str(directory / "tokenizer.json"))
    (directory / "config.json").write_text('{"model_type": "llama"}')
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": _TEMPLATE}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return Tokenizer(directory)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] == ["debug"])
