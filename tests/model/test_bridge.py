"""The transformers bridge: what it refuses and why, what it never does, an engine on it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from minisgl_tui.engine import LLM, SamplingParams
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.events import Preempted
from minisgl_tui.engine.loader import open_checkpoint
from minisgl_tui.engine.model_store import resolve
from minisgl_tui.engine.models.base import Attend, AttentionSpec
from minisgl_tui.engine.models.bridge import TransformersCheckpoint
from minisgl_tui.engine.models.fields import Unsupported
from minisgl_tui.engine.models.native import NativeCheckpoint
from minisgl_tui.engine.models.packing import check_packing
from minisgl_tui.engine.models.probe import Refusal, find_window
from torch import Tensor
from torch.nn import functional as F

from .harness import (
    CPU,
    make_checkpoint,
    make_runner,
    prefill_logits,
    random_tokens,
    reference_greedy,
    reference_logits,
)
from .tiny_gguf import make_gguf

WHY_NOT = {
    "bart": "takes no positions",
    "bert": "looks ahead",
    "bloom": "takes no positions.*ALiBi",
    "diffllama": "attention of a layer more than once",
    "doge": "adds to its attention scores, or hides keys",
    "falcon": "not written for transformers' attention functions",
    "gemma3-embedding": "looks ahead",
    "gemma4-shared-kv": "share keys and values",
    "gpt-neo": "not written for transformers' attention functions",
    "gpt-oss": "sinks",
    "lfm2": "Lfm2ShortConv",
    "llama4": "neither causal.*attention is in chunks",
    "mamba": "recurrent",
    "mpt": "takes no positions",
    "qwen3-next": "Qwen3NextGatedDeltaNet",
    "roberta-decoder": "numbers positions in its own way",
    "rwkv": "recurrent",
    "xglm": "not written for transformers' attention functions",
}


@pytest.fixture
def gemma2(tmp_path: Path) -> Path:
    make_checkpoint("gemma2", tmp_path)
    return tmp_path


def load(directory: Path, impl: str = "transformers", **settings: Any) -> Any:
    checkpoint = open_checkpoint(directory, impl)
    return checkpoint.load(dtype=torch.float32, device=CPU, **settings)


def change_config(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(directory: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


# --- what cannot be run exactly ---


@pytest.mark.parametrize("name", WHY_NOT)
def test_what_cannot_be_run_exactly_is_refused_with_the_reason(name: str, tmp_path: Path):
    model = make_checkpoint(name, tmp_path)
    with pytest.raises(Unsupported, match=WHY_NOT[name]) as error:
        load(tmp_path)
    text = str(error.value)
    assert type(model).__name__ in text and "use another model" in text
    assert "\n" not in text


def test_a_model_that_a_newer_transformers_has_rewritten_is_right_or_refused(tmp_path: Path):
    """GPT-J takes attention functions from transformers 5.24 on."""
    model = make_checkpoint("gptj", tmp_path)
    try:
        load(tmp_path)
    except Unsupported as error:
        assert "not written for transformers' attention functions" in str(error)
        return
    tokens = random_tokens(60)
    logits = prefill_logits(make_runner(tmp_path), tokens, 17)
    torch.testing.assert_close(logits, reference_logits(model, tokens)[-1], rtol=1e-4, atol=1e-4)


def test_dynamic_and_long_rope_are_limited_to_where_a_neighbour_changes_nothing(tmp_path: Path):
    """Both stretch positions by the longest text in the batch, from some length on."""
    for name, length in (("llama-dynamic-rope", 512), ("phi3-longrope", 128)):
        directory = tmp_path / name
        model = make_checkpoint(name, directory)
        assert open_checkpoint(directory).max_context == length
        tokens = random_tokens(length)
        runner = make_runner(directory)
        expected = reference_logits(model, tokens)[-1]
        torch.testing.assert_close(
            prefill_logits(runner, tokens, 99), expected, rtol=1e-4, atol=1e-4
        )


def test_auto_is_native_where_that_can_and_the_bridge_elsewhere(tmp_path: Path, gemma2: Path):
    make_checkpoint("llama", tmp_path / "llama")
    assert isinstance(open_checkpoint(tmp_path / "llama"), NativeCheckpoint)
    assert isinstance(open_checkpoint(tmp_path / "llama", "transformers"), TransformersCheckpoint)
    assert isinstance(open_checkpoint(gemma2), TransformersCheckpoint)
    with pytest.raises(Unsupported, match="Gemma2ForCausalLM"):
        open_checkpoint(gemma2, "native")


def test_what_neither_can_run_is_refused_with_both_reasons(tmp_path: Path):
    make_checkpoint("bloom", tmp_path)
    with pytest.raises(
        Unsupported, match=r"takes no positions.*nor natively.*supported are"
    ) as error:
        open_checkpoint(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rms_norm_eps": "x"}, "rms_norm_eps"),
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
        ({"num_key_value_heads": 4}, "KV heads"),
    ],
)
def test_a_broken_config_is_not_passed_on_to_the_bridge(
    tmp_path: Path, changes: dict[str, Any], named: str
):
    make_checkpoint("llama", tmp_path)
    change_config(tmp_path, **changes)
    with pytest.raises(UserError, match=named) as error:
        open_checkpoint(tmp_path)
    assert not isinstance(error.value, Unsupported)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hidden_size": "big"}, "hidden_size"),
        ({"hidden_size": 10**30}, "hidden size"),
        ({"num_hidden_layers": 90_000, "layer_types": None}, "num_hidden_layers is 90000"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"max_position_embeddings": 10**12}, "max_position_embeddings"),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"model_type": "gemma99"}, "knows no model_type 'gemma99'"),
        ({"model_type": ["gemma2"]}, "knows no model_type"),
        ({"architectures": None}, "names no architecture"),
        ({"architectures": ["Gemma2ForSequenceClassification"]}, "no causal language model"),
        ({"hidden_act": "nonsense", "hidden_activation": "nonsense"}, "nonsense"),
    ],
)
def test_an_impossible_config_is_named(gemma2: Path, changes: dict[str, Any], named: str):
    change_config(gemma2, **changes)
    with pytest.raises(UserError, match=named) as error:
        load(gemma2)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


# --- what it never does ---


def test_code_in_a_checkpoint_is_never_run(gemma2: Path, tmp_path: Path):
    ran = tmp_path / "ran"
    (gemma2 / "evil.py").write_text(f"open({str(ran)!r}, 'w')\n")
    classes = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    change_config(gemma2, auto_map=classes, _attn_implementation="org/kernel")
    (gemma2 / "adapter_config.json").write_text('{"base_model_name_or_path": "org/other"}')
    load(gemma2)
    change_config(gemma2, model_type="evil")
    with pytest.raises(Unsupported, match="never run"):
        load(gemma2)
    assert not ran.exists()


def test_pickle_weights_are_refused(gemma2: Path):
    (gemma2 / "model.safetensors").rename(gemma2 / "pytorch_model.bin")
    for changes in ({}, {"transformers_weights": "pytorch_model.bin"}):
        change_config(gemma2, **changes)
        with pytest.raises(UserError, match="pickle"):
            load(gemma2)


def test_nothing_is_written_to_the_terminal(gemma2: Path, capfd: pytest.CaptureFixture[str]):
    change_config(gemma2, bos_token_id=10**6, use_cache=True)  # worth a warning to transformers
    capfd.readouterr()
    runner = make_runner(gemma2)
    prefill_logits(runner, random_tokens(20), 7)
    assert capfd.readouterr() == ("", "")


# --- weights ---


def test_a_missing_tensor_is_named(gemma2: Path):
    rewrite(gemma2, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(UserError, match=r"model\.layers\.1\.mlp\.up_proj\.weight is missing"):
        load(gemma2)


def test_an_unexpected_tensor_is_named(gemma2: Path):
    rewrite(gemma2, lambda tensors: tensors.update(extra=torch.zeros(3)))
    with pytest.raises(UserError, match="tensor extra is unexpected"):
        load(gemma2)


def test_a_misshapen_tensor_is_named_with_both_shapes(gemma2: Path):
    rewrite(gemma2, lambda tensors: tensors.update({"model.norm.weight": torch.zeros(5)}))
    with pytest.raises(UserError, match=r"safetensors: tensor model\.norm\.weight has .*\[48\]"):
        load(gemma2)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.float8_e4m3fn])
def test_weights_that_are_codes_are_refused(gemma2: Path, dtype: torch.dtype):
    name = "model.layers.0.mlp.up_proj.weight"
    rewrite(gemma2, lambda tensors: tensors.update({name: tensors[name].to(dtype)}))
    with pytest.raises(UserError, match=r"layers\.0\.mlp\.up_proj\.weight has dtype .*quantized"):
        load(gemma2)


def test_integers_that_are_no_weights_may_be_there(tmp_path: Path):
    """As old checkpoints of GPT-2 have them, under names without the head's prefix."""
    make_checkpoint("gpt2", tmp_path)
    mask = torch.ones(1, 1, 8, 8, dtype=torch.uint8)
    rewrite(tmp_path, lambda tensors: tensors.update({"transformer.h.0.attn.bias": mask}))
    load(tmp_path)


def test_memory_is_not_taken_for_sizes_that_the_weights_do_not_have(
    gemma2: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(TransformersCheckpoint, "load", None)
    change_config(gemma2, vocab_size=10**7)
    with pytest.raises(UserError, match=r"has [0-9,]{11} parameters by these sizes, but the w"):
        load(gemma2)


def test_truncated_weights_are_named(gemma2: Path):
    weights = gemma2 / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors is damaged or cut short"):
        load(gemma2)


def test_weights_arrive_in_the_dtype_asked_for_and_progress_is_told(gemma2: Path):
    told: list[float] = []
    checkpoint = open_checkpoint(gemma2)
    model = checkpoint.load(dtype=torch.bfloat16, device=CPU, progress=told.append)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert told == sorted(told) and len(told) > 10 and told[-1] <= 1


def test_what_progress_raises_comes_out_unchanged(gemma2: Path):
    def stop(fraction: float) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match=r"^enough$"):
        load(gemma2, progress=stop)


# --- how it finds out ---


def causal(window: int | None = None, chunk: int | None = None) -> Callable[..., Tensor]:
    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = key <= query
        if window is not None:
            seen &= key > query - window
        if chunk is not None:
            seen &= key // chunk == query // chunk
        return seen

    return rule


@pytest.mark.parametrize("window", [1, 2, 20, 99])
def test_a_window_is_read_off_the_mask(window: int):
    assert find_window(causal(window), 100) == window


@pytest.mark.parametrize("rule", [causal(), causal(100), causal(5000), causal(chunk=100)])
def test_a_window_as_long_as_the_context_is_none(rule: Callable[..., Tensor]):
    assert find_window(rule, 100) is None


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (causal(chunk=16), "neither causal nor"),
        (causal(chunk=50), "neither causal nor"),
        (lambda b, h, query, key: key <= query + 1, "looks ahead"),
        (lambda b, h, query, key: key >= 0, "looks ahead"),
        (lambda b, h, query, key: (key <= query) & (key % 2 == 0), "neither causal nor"),
        (lambda b, h, query, key: (key <= query) & (key > 3), "neither causal nor"),
    ],
)
def test_other_masks_are_refused(rule: Callable[..., Tensor], reason: str):
    with pytest.raises(Refusal, match=reason):
        find_window(rule, 100)


def packed(change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
    """Check a toy model whose states are of token ids and positions that ``change`` has spoilt."""
    table = torch.randn(300, 1, 8)

    def forward(ids: Tensor, positions: Tensor | None, attend: Attend, rows: Tensor) -> Tensor:
        own = torch.arange(len(ids)) if positions is None else positions
        ids, own = change(ids, own)
        x = table[ids] * torch.cos(own.float())[:, None, None]
        return attend(0, x, x, x)[rows, 0]

    spec = AttentionSpec(num_heads=1, num_kv_heads=1, head_dim=8, value_dim=8, scale=1.0)
    sizes = {"vocab_size": 300, "max_context": 1000}
    check_packing(forward, [spec], **sizes, dtype=torch.float32, device=CPU)


def test_a_model_of_tokens_and_positions_may_be_packed():
    packed(lambda ids, positions: (ids, positions))


@pytest.mark.parametrize(
    "change",
    [
        lambda ids, positions: (ids, torch.arange(len(ids))),
        lambda ids, positions: (ids, positions + positions.max()),
        lambda ids, positions: (F.pad(ids, (1, 0))[:-1], positions),
        lambda ids, positions: (ids.cumsum(0) % 300, positions),
    ],
    ids=["counts positions itself", "by the longest", "token shift", "running sum"],
)
def test_a_model_that_mixes_tokens_or_positions_is_refused(change: Any):
    with pytest.raises(Refusal, match="do not determine"):
        packed(change)


# --- a whole engine ---


def test_gemma2_runs_with_a_prefix_cache_chunks_and_preemption(tmp_path: Path):
    model = make_checkpoint("gemma2", tmp_path)
    shared = random_tokens(40)
    prompts = [[*shared, *random_tokens(9, seed)] for seed in (1, 2, 3)]
    expected = [reference_greedy(model, prompt, 24) for prompt in prompts]
    llm = LLM(
        tmp_path,
        dtype="float32",
        device="cpu",
        block_size=4,
        num_blocks=32,
        max_batch_tokens=11,
        skip_tokenizer=True,
    )
    preempted: list[Any] = []

    def listen(record: Any) -> None:
        preempted.extend(event for event in record.events if isinstance(event, Preempted))

    llm.engine.log.listen(listen)
    params = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
    answers = llm.generate(prompts, params)
    assert [answer.token_ids for answer in answers] == expected
    assert preempted and any(answer.cached_tokens for answer in answers)
    (again,) = llm.generate([prompts[0]], params)
    assert again.token_ids == expected[0] and again.cached_tokens >= 40


def test_a_gguf_file_of_another_architecture_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MINISGL_TUI_CACHE", str(tmp_path / "cache"))
    model = make_gguf(tmp_path / "tiny.gguf", "starcoder2")
    directory = resolve(str(tmp_path / "tiny.gguf"))
    tokens = random_tokens(40)
    expected = reference_logits(model, tokens)[-1]
    actual = prefill_logits(make_runner(directory), tokens, 7)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_packed_weights_change_nothing_beyond_rounding(gemma2: Path):
    model = TransformersCheckpoint(gemma2).load(dtype=torch.bfloat16, device=CPU)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)

    ids = torch.tensor(random_tokens(20))
    with torch.inference_mode():
        before = model(ids, torch.arange(20), attend, torch.arange(20))
        model.pack()
        after = model(ids, torch.arange(20), attend, torch.arange(20))
    packed = [module for module in model.model.modules() if hasattr(module, "up_proj")]
    assert packed and all(mlp.up_proj.weight.is_meta for mlp in packed)
    torch.testing.assert_close(after, before, rtol=0.05, atol=0.3)


def test_two_models_in_one_process_do_not_meet(tmp_path: Path):
    runners, models = [], []
    for name in ("gemma2", "gpt2"):
        models.append(make_checkpoint(name, tmp_path / name))
        runners.append(make_runner(tmp_path / name))
    tokens = random_tokens(30)
    for runner, model in [*zip(runners, models, strict=True)] * 2:
        expected = reference_logits(model, tokens)[-1]
        torch.testing.assert_close(
            prefill_logits(runner, tokens, 7), expected, rtol=1e-4, atol=1e-4
        )


def test_the_default_model_says_the_same_through_the_bridge(smollm: Path):
    settings: dict[str, Any] = {"dtype": "float32", "device": "cpu", "num_blocks": 64}
    params = SamplingParams(temperature=0, max_tokens=16)
    prompts = ["The capital of France is", "def fibonacci(n):"]
    native, bridged = (
        [
            answer.token_ids
            for answer in LLM(smollm, model_impl=impl, **settings).generate(prompts, params)
        ]
        for impl in ("native", "transformers")
    )
    assert native == bridged
