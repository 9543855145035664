"""Live servers on loopback: a tiny random model for the protocol, the default one for texts."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from threading import Event, Thread
from typing import IO, Any

# Before torch is imported: see tests/model/conftest.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import httpx2
import pytest
import torch
from minisgl_tui.api.engine_thread import EngineThread
from minisgl_tui.api.server import Server, ServerSettings, bind
from minisgl_tui.api.serving import Serving
from minisgl_tui.engine import LLM
from minisgl_tui.engine.audit import audit
from minisgl_tui.engine.model_store import resolve
from model.harness import make_checkpoint
from openai import AsyncOpenAI, OpenAI

TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
LOOPBACK = "127.0.0.1"


@dataclass
class Live:
    """A server that runs in a thread of this process, and its engine for tests to look into."""

    url: str
    serving: Serving
    server: Server
    thread: Thread

    @property
    def engine(self) -> Any:
        return self.serving.thread.engine

    def post(self, path: str, **body: Any) -> httpx2.Response:
        return httpx2.post(self.url + path, json=body, timeout=60)

    def send(self, path: str, content: bytes, **headers: str) -> httpx2.Response:
        headers = {"content-type": "application/json", **headers}
        return httpx2.post(self.url + path, content=content, headers=headers, timeout=60)

    def get(self, path: str, **headers: str) -> httpx2.Response:
        return httpx2.get(self.url + path, headers=headers, timeout=60)

    # Any: its overloads take no settings that come as a dictionary.
    def client(self, **settings: Any) -> Any:
        return OpenAI(base_url=self.url + "/v1", api_key="any", max_retries=0, **settings)

    def async_client(self, **settings: Any) -> Any:
        return AsyncOpenAI(base_url=self.url + "/v1", api_key="any", max_retries=0, **settings)

    def assert_nothing_left(self) -> None:
        """Nothing runs or waits, every block is free or cached, and the books are in order."""
        engine = self.engine
        assert not engine.requests and not engine.scheduler.running
        assert engine.cache.free + engine.cache.evictable == engine.config.num_blocks
        assert audit(engine) == []
        assert self.serving.thread.live == 0


@contextmanager
def live(llm: Any, **settings: Any) -> Iterator[Live]:
    """Serve ``llm``, or what has an engine, a tokenizer and defaults as one has; ``settings`` are
    those of `Serving`, `ServerSettings` and the queue."""
    assert llm.tokenizer
    thread = EngineThread(llm.engine, settings.pop("max_queued", 1024))
    drain = settings.pop("drain", 5.0)
    serving = Serving(
        settings.pop("model", "tiny"), llm.tokenizer, llm.default_params, thread, **settings
    )
    sock = bind(LOOPBACK, 0)
    server = Server(serving, ServerSettings(LOOPBACK, 0, serving.model, drain=drain))
    running = Thread(target=server.run, args=([sock],), daemon=True)
    running.start()
    url = f"http://{LOOPBACK}:{sock.getsockname()[1]}"
    for _ in range(500):
        if server.started:
            break
        running.join(0.01)
    assert server.started
    try:
        yield Live(url, serving, server, running)
    finally:
        server.should_exit = True
        running.join(30)
        thread.stop()
        assert not running.is_alive()


@dataclass
class Served:
    """``minisgl-tui serve`` in a process of its own."""

    process: subprocess.Popen[str]
    url: str
    _log: IO[str]

    def said(self) -> str:
        """All that it has written to stderr."""
        self._log.seek(0)
        return self._log.read()


@contextmanager
def served(model: str | Path, *flags: str) -> Iterator[Served]:
    command = [sys.executable, "-m", "minisgl_tui.tui.cli", "serve", "--model", str(model)]
    command += ["--port", "0", *flags]
    with (
        TemporaryFile("w+") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout
            first = process.stdout.readline()
            one = Served(process, first.split(" at ")[-1].strip().removesuffix("/v1"), log)
            assert " at http" in first, one.said()
            yield one
        finally:
            process.kill()


def break_down(llm: LLM, patch: pytest.MonkeyPatch) -> Event:
    """Let the model run five steps and then fail, once the test has said, by the event, that its
    client has heard something: what fails before that is no stream yet."""
    execute, steps, heard = llm.runner.execute, iter(range(5)), Event()

    def execute_or_fail(plan: Any) -> Any:
        if next(steps, None) is None:
            assert heard.wait(30)
            raise RuntimeError("the device is gone")
        return execute(plan)

    patch.setattr(llm.runner, "execute", execute_or_fail)
    return heard


@pytest.fixture(scope="session", autouse=True)
def two_threads() -> None:
    torch.set_num_threads(min(2, os.cpu_count() or 1))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights over bytes, so that its texts are full of halves of characters."""
    directory = tmp_path_factory.mktemp("tiny")
    make_tiny(directory)
    return directory


def make_tiny(directory: Path, *more: str, template: str = TEMPLATE, **config: Any) -> None:
    """A random model whose tokens are bytes, the special ones of `TEMPLATE`, and ``more`` such."""
    from tokenizers import Tokenizer as Raw
    from tokenizers import decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>", *more]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {piece: index for index, piece in enumerate([*special, *letters])}
    raw = Raw(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", unk_token="<unk>")
    tokenizer.add_special_tokens({"additional_special_tokens": special[3:]})
    tokenizer.chat_template = template
    tokenizer.save_pretrained(directory)
    make_checkpoint("llama", directory, vocab_size=len(vocab), **config)


@pytest.fixture(scope="session")
def tiny_with_bos(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a tokenizer that puts ``<s>`` before every text, as Llama's does."""
    from tokenizers import Tokenizer as Raw
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    directory = tmp_path_factory.mktemp("bos")
    for file in tiny_model.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    raw = Raw.from_file(str(directory / "tokenizer.json"))
    raw.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(directory)
    return directory


def tiny_llm(directory: Path, **settings: Any) -> LLM:
    defaults: dict[str, Any] = {"dtype": "float32", "device": "cpu", "num_blocks": 512}
    return LLM(directory, **{**defaults, "block_size": 4, "max_batch_tokens": 256, **settings})


@pytest.fixture(scope="session")
def tiny(tiny_model: Path) -> Iterator[Live]:
    with live(tiny_llm(tiny_model)) as server:
        yield server
        server.assert_nothing_left()


@pytest.fixture(scope="session")
def smollm() -> Iterator[Live]:
    llm = LLM(resolve("smollm2-135m"), dtype="float32", device="cpu", num_blocks=1024)
    with live(llm, model="smollm2-135m") as server:
        yield server
        server.assert_nothing_left()


@pytest.fixture
async def http(tiny: Live) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=tiny.url, timeout=60) as client:
        yield client
