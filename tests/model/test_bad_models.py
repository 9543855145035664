"""Whatever is wrong with a model is said in one line that names it; nothing else happens."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from minisgl_tui.engine import LLM
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.loader import open_checkpoint
from minisgl_tui.engine.model_store import check, resolve
from minisgl_tui.engine.models.config import read_config
from minisgl_tui.engine.runner.attention.registry import make_backend
from minisgl_tui.engine.runner.device import resolve_device, resolve_dtype
from minisgl_tui.engine.runner.kv_cache import parse_memory

from .harness import CPU, make_checkpoint


@pytest.fixture
def model(tmp_path: Path) -> Path:
    make_checkpoint("llama", tmp_path)
    return tmp_path


def load(directory: Path, impl: str = "auto") -> Any:
    return open_checkpoint(directory, impl).load(dtype=torch.float32, device=CPU)


def change_config(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("MINISGL_TUI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    import huggingface_hub

    def unreachable(*args: Any, **settings: Any) -> None:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "model_info", unreachable)


def test_an_unknown_name_lists_what_is_accepted():
    with pytest.raises(UserError) as error:
        resolve("no-such-model")
    text = one_line(error)
    for part in ("'no-such-model'", "local directory", ".gguf", "org/name", "smollm2-135m"):
        assert part in text


def test_a_hub_id_without_a_network_says_that_the_hub_is_out_of_reach(no_network: None):
    with pytest.raises(UserError, match=r"org/name.*Hub is out of reach.*Name or service"):
        resolve("org/name")


@pytest.mark.parametrize("name", ["missing.gguf", "/nowhere/at/all", "./also/not/there"])
def test_a_missing_path_is_named(name: str):
    with pytest.raises(UserError, match=name):
        resolve(name)


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="give the directory"):
        resolve(str(tmp_path / "model.safetensors"))


def test_a_gguf_file_of_something_else_is_refused(tmp_path: Path, no_network: None):
    (tmp_path / "a.gguf").write_bytes(b"not at all")
    with pytest.raises(UserError, match="not a GGUF file"):
        resolve(str(tmp_path / "a.gguf"))
    (tmp_path / "b.gguf").write_bytes(b"GGUF\x03\0\0\0" + b"\xff" * 40)
    with pytest.raises(UserError, match="cannot be converted"):
        resolve(str(tmp_path / "b.gguf"))


def test_a_directory_without_a_config_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"config\.json is missing"):
        resolve(str(tmp_path))


def test_a_directory_without_weights_is_refused(model: Path):
    (model / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no \*\.safetensors"):
        resolve(str(model))


def test_pickle_weights_are_refused_by_name(model: Path):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pickle.*pytorch_model\.bin"):
        resolve(str(model))


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"architectures": 3', "\xff\xfe"])
def test_a_broken_config_is_named(model: Path, text: str):
    (model / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"config\.json"):
        resolve(str(model))


def test_an_unsupported_architecture_is_named_with_those_supported(model: Path):
    change_config(model, architectures=["GPT2LMHeadModel"])
    with pytest.raises(UserError) as error:
        load(model)
    assert "GPT2LMHeadModel" in one_line(error) and "Qwen3ForCausalLM" in one_line(error)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rope_parameters": {"rope_type": "longrope"}}, "longrope.*as a sequence grows"),
        ({"rope_parameters": {"rope_type": "spiral"}}, "spiral"),
        ({"rope_parameters": {"rope_type": ["yarn"]}}, "rope type \\['yarn'\\]"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 1e15}}, "factor is 1000000"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_parameters": None, "rope_scaling": {"type": "dynamic"}}, "dynamic"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 2.0}}, "low_freq_factor"),
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"hidden_size": "big"}, "hidden_size"),
        ({"num_key_value_heads": 4}, "KV heads"),
    ],
)
def test_what_the_decoder_does_not_compute_is_refused_by_name(
    model: Path, changes: dict[str, Any], named: str
):
    change_config(model, **changes)
    with pytest.raises(UserError, match=named):
        load(model, "native")


def test_both_spellings_of_the_rope_settings_mean_the_same(model: Path):
    scaling = {"rope_type": "linear", "factor": 4.0}
    change_config(model, rope_parameters={**scaling, "rope_theta": 5e5})
    new = read_config(model)
    change_config(model, rope_parameters=None, rope_theta=5e5, rope_scaling=scaling)
    assert read_config(model) == new and new.rope.theta == 5e5


def test_yarn_stretches_the_context_where_the_config_still_says_the_old_length(model: Path):
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
    change_config(model, rope_parameters=yarn)
    assert open_checkpoint(model).max_context == 2048


def test_a_null_quantization_config_counts_as_not_given(model: Path):
    change_config(model, quantization_config=None)
    assert load(model)


def test_a_context_longer_than_the_model_is_refused(model: Path):
    with pytest.raises(UserError, match="512"):
        LLM(str(model), skip_tokenizer=True, device="cpu", max_model_len=513)


def test_truncated_weights_are_named(model: Path):
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors is damaged or cut short"):
        load(model)


@pytest.mark.parametrize("garbage", [b"", b"\0" * 7, b"\xff" * 64, b"\x10" + b"\0" * 7 + b"{" * 16])
def test_a_garbage_header_is_named(model: Path, garbage: bytes):
    (model / "model.safetensors").write_bytes(garbage)
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        load(model)


def rewrite(directory: Path, change: Any) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")


def test_a_missing_tensor_is_named(model: Path):
    rewrite(model, lambda tensors: tensors.pop("model.layers.1.self_attn.k_proj.weight"))
    with pytest.raises(UserError, match=r"layers\.1\.self_attn\.k_proj\.weight is missing"):
        load(model)


def test_an_unexpected_tensor_is_named(model: Path):
    rewrite(model, lambda tensors: tensors.update(extra=torch.zeros(1)))
    with pytest.raises(UserError, match="tensor extra is unexpected"):
        load(model)


def test_a_name_cannot_write_to_the_terminal(model: Path):
    rewrite(model, lambda tensors: tensors.update({"a\nb\x1b[31m": torch.zeros(1)}))
    with pytest.raises(UserError, match=r"tensor a\\nb\\x1b\[31m is unexpected"):
        load(model)


def test_a_name_with_a_high_number_does_not_make_layers(model: Path):
    change_config(model, num_hidden_layers=20_000)
    rewrite(model, lambda tensors: tensors.update({"model.layers.19999.x": torch.zeros(1)}))
    with pytest.raises(UserError, match=r"the weights have 4 layers, but .* 20000"):
        load(model)


def test_a_misshapen_tensor_is_named_with_both_shapes(model: Path):
    rewrite(model, lambda t: t.update({"model.norm.weight": torch.zeros(5)}))
    with pytest.raises(UserError, match=r"model\.norm\.weight has shape \[5\].*\[48\]"):
        load(model)


def test_a_missing_shard_is_named(model: Path):
    index = {"weight_map": {"model.norm.weight": "model-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"model-00002\.safetensors is missing"):
        resolve(str(model))


@pytest.mark.parametrize("name", ["", "..", "../model.safetensors", "a" * 5000, "a\0b"])
@pytest.mark.parametrize("find", [resolve, check])
def test_an_index_names_plain_files_only(model: Path, name: str, find: Callable[[str], Any]):
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(UserError, match=r"is missing, though model\.safetensors\.index\.json"):
        find(str(model))


def test_names_on_the_command_line_list_their_choices():
    for make, name in (
        (lambda: make_backend("flash", CPU), "reference, sdpa"),
        (lambda: resolve_dtype("int8", CPU), "bfloat16"),
        (lambda: resolve_device("abacus"), "cuda"),
        (lambda: resolve_device("cuda:99"), "CUDA devices"),
    ):
        with pytest.raises(UserError, match=name):
            make()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512MB", 512_000_000),
        ("2GiB", 2 << 30),
        ("1.5g", 1_500_000_000),
        ("64 KiB", 65536),
        ("1000", 1000),
        ("7B", 7),
        (4096, 4096),
    ],
)
def test_memory_sizes_are_understood(text: str | int, size: int):
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GB", "1XB", "GB", "1e9", "1 2"])
def test_what_is_no_memory_size_is_refused(text: str):
    with pytest.raises(UserError, match="--kv-memory"):
        parse_memory(text)


def test_a_pool_too_small_for_a_block_is_refused(model: Path):
    with pytest.raises(UserError, match="holds no block"):
        LLM(str(model), skip_tokenizer=True, device="cpu", kv_memory="100B")
