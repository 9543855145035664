"""The demos show what their titles say, with the default model's tokenizer."""

from pathlib import Path

import pytest
from minisgl_tui import demos
from minisgl_tui.engine.config import EngineConfig
from minisgl_tui.engine.engine import Engine
from minisgl_tui.engine.simulate import SimulatedRunner, random_tokens
from minisgl_tui.engine.state import EngineState
from minisgl_tui.engine.tokenizer import Tokenizer
from minisgl_tui.tui.session import ModelCodec


@pytest.fixture(scope="module")
def tokenizer(smollm: Path) -> Tokenizer:
    return Tokenizer(smollm)


def play(name: str, tokenizer: Tokenizer) -> tuple[EngineState, list[list[int]]]:
    """Run demo ``name`` on the oracle; returns the last picture and the prompts."""
    workload = demos.load(name)
    config = EngineConfig(**workload.engine.given())  # pyright: ignore[reportArgumentType]
    runner = SimulatedRunner(config.num_blocks, config.block_size, random_tokens(0, 100))
    engine = Engine(config, runner, runner.clock)
    state = EngineState(config)
    engine.log.listen(state.apply)
    codec = ModelCodec(tokenizer, workload.system)
    requests = workload.expanded()
    prompts = [codec.encode(request) for request in requests]
    while requests or engine.has_work():
        while requests and (requests[0].at_step <= engine.step_count or not engine.has_work()):
            request = requests.pop(0)
            engine.submit(codec.encode(request), request.params())
        engine.step()
    return state, prompts


def common_prefix(prompts: list[list[int]]) -> int:
    length = 0
    while len({tuple(prompt[: length + 1]) for prompt in prompts}) == 1:
        length += 1
    return length


def test_a_hundred_chats_compute_their_system_prompt_of_512_tokens_once(tokenizer) -> None:
    state, prompts = play("hundred-chats", tokenizer)
    size = state.config.block_size
    shared = common_prefix(prompts) // size * size
    assert len(prompts) == 100
    assert shared >= 512
    own = sum(len(prompt) - shared for prompt in prompts)
    assert state.stats.prefill_tokens <= shared + own
    assert state.stats.cached_tokens >= 99 * shared


def test_three_chats_are_cut_into_chunks_and_share(tokenizer) -> None:
    state, prompts = play("three-chats", tokenizer)
    assert max(map(len, prompts)) > state.config.max_batch_tokens
    assert state.requests[1].cached_tokens >= 48
    assert state.requests[2].cached_tokens >= 48


def test_the_tight_pool_defers_evicts_and_preempts(tokenizer) -> None:
    state, _ = play("tight-pool", tokenizer)
    assert state.stats.preemptions
    assert state.stats.evicted_blocks
    assert state.stats.deferred["no_blocks"]
    assert all(r.finish_reason == "length" for r in state.requests.values())
