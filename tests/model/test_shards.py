"""Checkpoints in several files and odd types: loaded whole, or refused by file and tensor."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.loader import open_checkpoint
from minisgl_tui.engine.models.files import INDEX_NAME
from safetensors.torch import load_file, save_file

from .harness import CPU, make_checkpoint

TENSOR = "model.layers.1.mlp.up_proj.weight"


def load(directory: Path) -> Any:
    return open_checkpoint(directory).load(dtype=torch.float32, device=CPU)


def refusal(directory: Path) -> str:
    with pytest.raises(UserError) as error:
        load(directory)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """Several files and an index."""
    make_checkpoint("llama", tmp_path / "whole").save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    return tmp_path


def shard_of(directory: Path, tensor: str) -> Path:
    return directory / json.loads((directory / INDEX_NAME).read_text())["weight_map"][tensor]


def move(tensor: str, source: Path, target: Path | None, *, keep: bool = False) -> None:
    tensors = load_file(source)
    moved = tensors[tensor] if keep else tensors.pop(tensor)
    save_file(tensors, source)
    if target is not None:
        save_file({**load_file(target), tensor: moved}, target)


def other(directory: Path, shard: Path) -> Path:
    return next(path for path in sorted(directory.glob("model-*")) if path != shard)


def test_half_a_shard_is_named(sharded: Path):
    shard = shard_of(sharded, TENSOR)
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    assert f"{shard} is damaged or cut short" in refusal(sharded)


def test_a_shard_that_is_not_there_is_named(sharded: Path):
    shard = shard_of(sharded, TENSOR)
    shard.unlink()
    assert f"{shard} is missing, though {INDEX_NAME} names it" in refusal(sharded)


def test_a_tensor_that_its_shard_lacks_is_named(sharded: Path):
    shard = shard_of(sharded, TENSOR)
    move(TENSOR, shard, None)
    assert f"{shard}: tensor {TENSOR} is missing, though {INDEX_NAME} says" in refusal(sharded)


def test_a_tensor_in_another_shard_than_the_index_says_is_named(sharded: Path):
    shard = shard_of(sharded, TENSOR)
    move(TENSOR, shard, other(sharded, shard))
    assert f"{shard}: tensor {TENSOR} is missing, though {INDEX_NAME} says" in refusal(sharded)


def test_a_tensor_in_two_shards_is_named_with_both(sharded: Path):
    shard = shard_of(sharded, TENSOR)
    move(TENSOR, shard, other(sharded, shard), keep=True)
    text = refusal(sharded)
    assert TENSOR in text and shard.name in text and other(sharded, shard).name in text


@pytest.mark.parametrize("mapped", [{}, [], None, "x"])
def test_an_index_that_maps_nothing_is_named(sharded: Path, mapped: Any):
    (sharded / INDEX_NAME).write_text(json.dumps({"weight_map": mapped}))
    assert INDEX_NAME in refusal(sharded)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.uint8])
def test_a_tensor_of_a_quantized_type_is_named(tmp_path: Path, dtype: torch.dtype):
    make_checkpoint("llama", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors[TENSOR] = tensors[TENSOR].to(dtype)
    save_file(tensors, tmp_path / "model.safetensors")
    text = refusal(tmp_path)
    assert f"model.safetensors: tensor {TENSOR} has dtype" in text and "BF16" in text


def test_gptq_weights_without_a_word_in_the_config_are_refused_as_quantized(tmp_path: Path):
    make_checkpoint("llama", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors[TENSOR]
    tensors[TENSOR.replace("weight", "qweight")] = torch.zeros(6, 80, dtype=torch.int32)
    save_file(tensors, tmp_path / "model.safetensors")
    assert "qweight has dtype I32, as in a quantized checkpoint" in refusal(tmp_path)


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "bitsandbytes", "compressed-tensors"])
def test_a_quantization_method_is_refused_by_name(tmp_path: Path, method: str):
    make_checkpoint("llama", tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text()) | {"quantization_config": {"quant_method": method}}
    path.write_text(json.dumps(config))
    assert method in refusal(tmp_path)


def test_a_config_without_an_architecture_says_so(tmp_path: Path):
    make_checkpoint("llama", tmp_path)
    (tmp_path / "config.json").write_text('{"hidden_size": 48}')
    assert "names no architecture" in refusal(tmp_path)


def test_an_adapter_beside_the_model_is_not_read(tmp_path: Path):
    make_checkpoint("llama", tmp_path)
    save_file({"lora_A": torch.zeros(2)}, tmp_path / "adapter_model.safetensors")
    assert load(tmp_path)


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_of_its_own_is_read_where_the_config_says_so(tmp_path: Path, tied: bool):
    """A stored head beside tied embeddings holds nothing new, as in transformers."""
    make_checkpoint("llama", tmp_path, tie_word_embeddings=tied)
    tensors = load_file(tmp_path / "model.safetensors")
    assert ("lm_head.weight" in tensors) != tied
    head = torch.randn(199, 48)
    save_file({**tensors, "lm_head.weight": head}, tmp_path / "model.safetensors")
    model = load(tmp_path)
    assert model.lm_head is None if tied else torch.equal(model.lm_head.weight, head)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_stored_in_any_float_type_are_read(tmp_path: Path, dtype: torch.dtype):
    make_checkpoint("llama", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({k: v.to(dtype) for k, v in tensors.items()}, tmp_path / "model.safetensors")
    assert torch.equal(load(tmp_path).norm.weight, tensors["model.norm.weight"].to(dtype).float())
