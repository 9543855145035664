"""What ``LLM`` accepts from Python, and that the rest is refused in one line before it runs."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from minisgl_tui.engine import LLM, SamplingParams
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.runner.kv_cache import KVCache, parse_memory

from .harness import CPU, make_checkpoint

GREEDY = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
SETTINGS: dict[str, Any] = {
    "dtype": "float32",
    "device": "cpu",
    "num_blocks": 64,
    "skip_tokenizer": True,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    make_checkpoint("llama", path)
    return path


@pytest.fixture(scope="module")
def llm(checkpoint: Path) -> LLM:
    return LLM(checkpoint, **SETTINGS)  # a Path will do


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as error:
        call()
    assert "\n" not in str(error.value) and len(str(error.value)) < 250
    return str(error.value)


@pytest.mark.parametrize(
    "prompts",
    [
        (5, 6, 7),
        range(5, 8),
        np.array([5, 6, 7]),
        torch.tensor([5, 6, 7]),
        [np.int64(5), np.int64(6), np.int64(7)],
        [np.array([5, 6, 7])],
        [torch.tensor([5, 6, 7])],
        list(torch.tensor([5, 6, 7])),
        np.array([[5, 6, 7]]),
    ],
    ids=lambda prompts: type(prompts).__name__,
)
def test_any_integers_are_token_ids(llm: LLM, prompts: Any):
    [answer] = llm.generate(prompts, GREEDY)
    assert answer.token_ids == llm.generate([[5, 6, 7]], GREEDY)[0].token_ids


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        (None, "prompts is None (NoneType)"),
        (5, "prompts is 5 (int)"),
        (b"abc", "(bytes)"),
        ((prompt for prompt in [[5]]), "(generator)"),
        ({"a": 1}, "(dict)"),
        ([None], "prompt 0 is None"),
        ([[5], 6], "prompt 1 is 6 (int)"),
        ([[5.9, 6.2]], "a token id is 5.9 (float)"),
        ([5.9], "prompt 0 is 5.9 (float)"),
        (np.array([5.9]), "5.9 (float)"),
        ([["5", "6"]], "a token id is '5' (str)"),
        ([5, [6]], "a token id is [6] (list)"),
    ],
)
def test_what_is_no_prompt_is_refused_with_what_was_given(llm: LLM, prompts: Any, said: str):
    assert said in refusal(lambda: llm.generate(prompts, GREEDY))


@pytest.mark.parametrize("params", [{}, {"temperature": 0}, "x", [None], iter([GREEDY])])
def test_what_are_no_params_is_refused(llm: LLM, params: Any):
    assert "give SamplingParams" in refusal(lambda: llm.generate([[5]], params))


@pytest.mark.parametrize("messages", ["hi", None, 5, ["hi"], [["hi"]], {"role": "user"}])
def test_what_are_no_messages_is_refused(llm: LLM, messages: Any):
    assert "messages is " in refusal(lambda: llm.chat(messages))


@pytest.mark.parametrize("model", [None, 5, b"bytes"])
def test_a_model_that_is_no_name_is_refused(model: Any):
    assert "the model is " in refusal(lambda: LLM(model))


def test_threads_that_share_a_model_take_turns(llm: LLM):
    prompts = [[token, token + 1] for token in range(3, 23)]
    expected = [answer.token_ids for answer in llm.generate(prompts, GREEDY)]
    found: list[list[list[int]]] = []

    def work() -> None:
        for _ in range(3):
            found.append([answer.token_ids for answer in llm.generate(prompts, GREEDY)])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [expected] * 9


def test_what_progress_raises_comes_out_unchanged(checkpoint: Path):
    class Cancelled(RuntimeError):
        pass

    def cancel(stage: str, fraction: float | None) -> None:
        if stage == "loading weights":
            raise Cancelled

    with pytest.raises(Cancelled):
        LLM(checkpoint, progress=cancel, **SETTINGS)


@pytest.mark.parametrize("size", ["9" * 400 + "G", "9" * 40 + "TiB"])
def test_a_pool_beyond_all_machines_is_refused(size: str):
    assert "--kv-memory" in refusal(lambda: parse_memory(size))


@pytest.mark.parametrize("huge_pages", [False, True])
@pytest.mark.parametrize(
    ("num_blocks", "block_size"), [(10**26, 16), (8, 10**26), (2**62, 2**62), (2**44, 16)]
)
def test_a_pool_that_no_machine_can_hold_is_refused_with_its_size(
    llm: LLM, num_blocks: int, block_size: int, huge_pages: bool
):
    said = refusal(
        lambda: KVCache(
            llm.runner.cache.layers,
            num_blocks=num_blocks,
            block_size=block_size,
            dtype=torch.float32,
            device=CPU,
            huge_pages=huge_pages,
        )
    )
    assert "GB on cpu" in said and str(num_blocks) in said


def test_half_a_surrogate_pair_is_refused(smollm: Path):
    from minisgl_tui.engine.tokenizer import Tokenizer

    tokenizer = Tokenizer(smollm)
    said = refusal(lambda: tokenizer.encode("a\ud800b"))
    assert "U+D800 at index 1" in said
    assert refusal(lambda: tokenizer.apply_chat([{"role": "user", "content": "a\ud800b"}])) == said
