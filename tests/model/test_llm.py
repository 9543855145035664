"""``LLM`` from Python: prompts in, completions out in the same order."""

import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from minisgl_tui.engine import LLM, SamplingParams
from minisgl_tui.engine.errors import RequestRefused, UserError

from .harness import make_checkpoint, random_tokens, reference_greedy

GREEDY = SamplingParams(temperature=0, max_tokens=10, ignore_eos=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("llama")
    return path, make_checkpoint("llama", path)


def make(checkpoint: tuple[Path, Any], **settings: Any) -> LLM:
    defaults: dict[str, Any] = {"dtype": "float32", "device": "cpu", "num_blocks": 64}
    return LLM(str(checkpoint[0]), skip_tokenizer=True, **{**defaults, **settings})


def test_results_come_in_the_order_of_the_prompts(checkpoint: tuple[Path, Any]):
    prompts = [random_tokens(length, length) for length in (40, 3, 17)]
    expected = [reference_greedy(checkpoint[1], prompt, 10) for prompt in prompts]
    answers = make(checkpoint).generate(prompts, GREEDY)
    assert [answer.token_ids for answer in answers] == expected
    assert {answer.finish_reason for answer in answers} == {"length"}


def test_one_prompt_gives_a_list_of_one(checkpoint: tuple[Path, Any]):
    assert len(make(checkpoint).generate([5, 6, 7], GREEDY)) == 1
    assert make(checkpoint).generate([], GREEDY) == []


def test_each_prompt_may_have_its_own_parameters(checkpoint: tuple[Path, Any]):
    params = [SamplingParams(max_tokens=n, ignore_eos=True) for n in (2, 5)]
    answers = make(checkpoint).generate([[5, 6], [7, 8]], params)
    assert [len(answer.token_ids) for answer in answers] == [2, 5]
    with pytest.raises(UserError, match="3"):
        make(checkpoint).generate([[5, 6], [7, 8]], [GREEDY] * 3)


def test_a_repeated_prompt_is_cached_until_the_cache_is_reset(checkpoint: tuple[Path, Any]):
    llm = make(checkpoint, block_size=4)
    prompt = random_tokens(30)
    cold, warm = llm.generate([prompt], GREEDY)[0], llm.generate([prompt], GREEDY)[0]
    assert (cold.cached_tokens, warm.cached_tokens) == (0, 28)
    assert cold.token_ids == warm.token_ids
    assert llm.reset_prefix_cache() > 0
    assert llm.generate([prompt], GREEDY)[0].cached_tokens == 0


def test_a_pool_so_small_that_requests_are_preempted_changes_no_token(checkpoint: tuple[Path, Any]):
    prompts = [random_tokens(length, length) for length in (20, 21, 22, 23)]
    params = [SamplingParams(max_tokens=30, ignore_eos=True, seed=i) for i in range(4)]
    roomy = make(checkpoint, block_size=4, num_blocks=200).generate(prompts, params)
    tight = make(checkpoint, block_size=4, num_blocks=18).generate(prompts, params)
    assert [answer.token_ids for answer in tight] == [answer.token_ids for answer in roomy]


def test_a_seeded_request_repeats_in_any_company(checkpoint: tuple[Path, Any]):
    params = SamplingParams(seed=42, max_tokens=12, top_p=0.9, ignore_eos=True)
    alone = make(checkpoint).generate([[9, 9, 9]], params)[0].token_ids
    crowd = [SamplingParams(max_tokens=12, ignore_eos=True)] * 3
    prompts = [random_tokens(20, seed) for seed in range(3)]
    together = make(checkpoint, seed=7, max_batch_tokens=9).generate(
        [*prompts, [9, 9, 9]], [*crowd, params]
    )
    assert together[-1].token_ids == alone


def test_the_engine_seed_decides_for_requests_without_one(checkpoint: tuple[Path, Any]):
    params = SamplingParams(max_tokens=20, ignore_eos=True)
    first, again, other = (
        make(checkpoint, seed=seed).generate([[5, 6, 7]], params)[0].token_ids for seed in (1, 1, 2)
    )
    assert first == again != other


def test_logprobs_come_one_per_token(checkpoint: tuple[Path, Any]):
    params = SamplingParams(temperature=0, max_tokens=6, logprobs=2, ignore_eos=True)
    [answer] = make(checkpoint).generate([[5, 6, 7]], params)
    assert len(answer.logprobs) == 6
    for token, entry in zip(answer.token_ids, answer.logprobs, strict=True):
        assert entry.top[0] == (token, entry.logprob)


def test_a_prompt_that_can_never_fit_is_refused_and_nothing_stays_behind(
    checkpoint: tuple[Path, Any],
):
    llm = make(checkpoint)
    with pytest.raises(RequestRefused, match=r"prompt 1: .*600"):
        llm.generate([[5, 6], [7] * 600], GREEDY)
    assert not llm.engine.has_work()
    assert llm.generate([[5, 6]], GREEDY)[0].finish_reason == "length"


def test_text_without_a_tokenizer_is_refused(checkpoint: tuple[Path, Any]):
    with pytest.raises(UserError, match="skip_tokenizer"):
        make(checkpoint).generate("Hello", GREEDY)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"attention": "best"}, "--attention"),
        ({"dtype": "int3"}, "--dtype"),
        ({"device": "cuda:7"}, "--device"),
        ({"overlap": True}, "--overlap is for GPUs"),
        (
            {"compile_kernels": True},
            "--compile is for --dtype bfloat16 .* and this is float32 on cpu",
        ),
        ({"schedule_policy": "nice"}, "--schedule-policy"),
        ({"eviction_policy": "rude"}, "--eviction-policy"),
        ({"kv_memory": "lots", "num_blocks": None}, "--kv-memory"),
        ({"kv_memory": "1GB"}, "--num-blocks and --kv-memory"),
        ({"block_size": 0}, "--block-size"),
        ({"num_blocks": 0}, "--num-blocks"),
    ],
)
def test_a_bad_setting_is_named(checkpoint: tuple[Path, Any], settings: dict[str, Any], named: str):
    with pytest.raises(UserError, match=named):
        make(checkpoint, **settings)


def test_a_pool_that_nobody_sized_says_what_it_takes(checkpoint: tuple[Path, Any]):
    stages: list[str] = []
    llm = make(checkpoint, num_blocks=None, progress=lambda stage, fraction: stages.append(stage))
    (said,) = [stage for stage in stages if stage.startswith("KV pool")]
    assert f"{llm.engine.config.num_blocks} blocks of 16 tokens" in said
    assert "GB" in said and "cpu" in said and "--kv-memory" in said


def test_the_first_example_of_the_readme_answers_as_it_says(smollm: Path):
    text = (Path(__file__).parents[2] / "README.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    (said,) = re.findall(r"print\(answer\.text, answer\.finish_reason\)  # (.+)", code)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[0] == said and done.returncode == 0, done.stderr


def test_text_goes_in_and_comes_out(smollm: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: Any, **settings: Any) -> None:
        raise AssertionError("a model on this machine must not ask the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    stages: set[str] = set()
    llm = LLM("smollm2-135m", num_blocks=64, progress=lambda stage, fraction: stages.add(stage))
    [answer] = llm.generate("The capital of France is", GREEDY)
    assert answer.text.startswith(" Paris")
    [reply] = llm.chat([{"role": "user", "content": "Say hello."}], GREEDY)
    assert reply.text
    assert stages == {"loading the tokenizer", "loading weights"}
    info = llm.model_info
    assert (info.layers, info.parameters, info.max_context) == (30, 134_515_008, 8192)
    assert llm.engine.config.max_model_len == 8192
