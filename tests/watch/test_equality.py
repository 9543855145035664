"""What a viewer sees is what the engine holds, step by step, with many clients streaming."""

import asyncio
import threading

import pytest
from minisgl_tui.api.load import run_streams
from minisgl_tui.engine.bench.paced import PacedRunner, paced_engine
from minisgl_tui.engine.events import StepRecord
from minisgl_tui.engine.state import EngineState
from minisgl_tui.engine.tokenizer import Tokenizer
from minisgl_tui.tui.sources.base import Link, Message, Ready
from minisgl_tui.tui.sources.http import HttpSource

from .served import Watched, served

SAMPLES = 100


class Picture:
    """What the screens would have: a state by the one reducer, and its digest after each step."""

    def __init__(self) -> None:
        self.digests: dict[int, str] = {}
        self.state: EngineState | None = None
        self.seqs: list[int] = []
        self.joined = 0
        self.lost = ""
        self.begun = threading.Event()

    def put(self, message: Message) -> None:
        if isinstance(message, Ready):
            self.state = message.state
            self.joined += 1
            self.begun.set()
        elif isinstance(message, Link):
            self.lost = self.lost or message.lost
        elif isinstance(message, StepRecord):
            assert self.state
            self.state.apply(message)
            self.seqs.append(message.seq)
            if is_step(message):
                self.digests[message.seq] = self.state.digest()


def is_step(record: StepRecord) -> bool:
    """Or else something that came between two steps, such as a request."""
    return bool(record.timings)


def sample(server: Watched) -> dict[int, str]:
    """Digests of the engine's own picture, taken in its thread."""
    digests: dict[int, str] = {}

    def look(record: StepRecord) -> None:
        if is_step(record):
            digests[record.seq] = server.digest()

    server.serving.thread.engine.log.listen(look)
    return digests


def watch_streams(server: Watched, streams: int) -> None:
    taken, picture = sample(server), Picture()
    source = HttpSource(server.url)
    source.start(picture)
    try:
        assert picture.begun.wait(30)
        asyncio.run(run_streams(server.url, streams, SAMPLES, an_event_each=False))
        debugger = server.serving.thread.debugger
        for _ in range(3000):
            if debugger.idle and len(picture.digests) == len(taken):
                break
            threading.Event().wait(0.02)
    finally:
        source.close()
        assert source.wait(30)
    assert len(taken) >= SAMPLES
    assert picture.digests == taken
    assert picture.joined == 1 and picture.lost == ""
    assert picture.seqs == list(range(picture.seqs[0], picture.seqs[0] + len(picture.seqs)))
    assert server.serving.feed and server.serving.feed.dropped == 0


def test_a_thousand_streams_of_a_simulated_model(tokenizer: Tokenizer) -> None:
    with served(tokenizer, engine=paced_engine(PacedRunner(0.004))) as server:
        watch_streams(server, 1000)


@pytest.fixture(scope="module")
def llm():
    from minisgl_tui.engine.llm import LLM

    return LLM("smollm2-135m", num_blocks=1024)


def test_sixty_four_streams_of_the_real_model(llm) -> None:
    with served(llm.tokenizer, engine=llm.engine) as server:
        watch_streams(server, 64)
