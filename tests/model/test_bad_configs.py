"""Whatever config.json says, it is read, or refused in one line that names the field."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.loader import open_checkpoint
from minisgl_tui.engine.models.config import parse_config, read_config

from .harness import CPU, SMALL, make_checkpoint

PLAIN: dict[str, Any] = {"architectures": ["LlamaForCausalLM"], **SMALL}
MISTRAL: dict[str, Any] = {"architectures": ["MistralForCausalLM"]}
QWEN: dict[str, Any] = {"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": True}
MOE: dict[str, Any] = {"architectures": ["Qwen3MoeForCausalLM"], "num_experts": 4}
SMOLLM3: dict[str, Any] = {"architectures": ["SmolLM3ForCausalLM"]}


def yarn(**changes: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "yarn", "factor": 4} | changes}


def llama3(**changes: Any) -> dict[str, Any]:
    settings = {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}
    return {"rope_parameters": settings | changes}


def test_the_plain_config_is_read():
    assert parse_config(PLAIN, Path("config.json")).head_dim == 8


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        *[({"rms_norm_eps": bad}, "rms_norm_eps") for bad in (None, "x", [1], -1, 0, math.nan)],
        *[({"rope_theta": bad}, "rope_theta") for bad in ("x", 0, -1, math.inf, [1])],
        ({"rope_parameters": {"rope_type": "linear", "factor": "x"}}, "factor"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 0}}, "factor"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "between layers"),
        (llama3(low_freq_factor=0), "low_freq_factor"),
        (llama3(low_freq_factor=4), "low_freq_factor"),
        (llama3(original_max_position_embeddings="x"), "original_max_position_embeddings"),
        *[({"architectures": bad}, "architecture") for bad in ([], {}, [["a"]], ["a\nb"], [None])],
        *[({"quantization_config": bad}, "quantized") for bad in ("x", 5, {})],
        *[(MISTRAL | {"sliding_window": bad}, "sliding_window") for bad in ("x", 0, 1.5, True)],
        (QWEN | {"sliding_window": "x", "max_window_layers": 0}, "sliding_window"),
        (QWEN | {"max_window_layers": "x"}, "max_window_layers"),
        (QWEN | {"layer_types": 5}, "layer_types"),
        *[(yarn(factor=bad), "factor") for bad in ("x", 0, [2])],
        (yarn(beta_fast=0), "beta_fast"),
        (yarn(truncate="no"), "truncate"),
        (yarn(mscale=-1), "mscale"),
        (yarn(rope_theta=1), "rope_theta"),
        *[(MOE | {"num_experts": bad}, "num_experts") for bad in ("x", -1, 10**9)],
        (MOE | {"num_experts_per_tok": 5}, "num_experts_per_tok"),
        (MOE | {"num_experts_per_tok": 2, "moe_intermediate_size": 0}, "moe_intermediate_size"),
        *[(MOE | {"mlp_only_layers": bad}, "mlp_only_layers") for bad in (5, ["x"])],
        (MOE | {"decoder_sparse_step": 0}, "decoder_sparse_step"),
        *[(SMOLLM3 | {"no_rope_layers": bad}, "no_rope_layers") for bad in (5, [1], [2] * 3)],
        (SMOLLM3 | {"no_rope_layers": [[1]] * 3}, "no_rope_layers"),
        (SMOLLM3 | {"no_rope_layer_interval": 0}, "no_rope_layer_interval"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings"),
        ({"vocab_size": 10**19}, "vocab_size"),
        ({"hidden_size": 10**30}, "hidden_size"),
        ({"head_dim": 10**10}, "head_dim"),
        ({"head_dim": 7}, "head_dim"),
        ({"num_hidden_layers": 10**400}, "num_hidden_layers"),
        ({"max_position_embeddings": 10**12}, "max_position_embeddings"),
    ],
)
def test_what_a_field_cannot_be_is_refused_by_its_name(changes: dict[str, Any], named: str):
    with pytest.raises(UserError, match=named) as error:
        parse_config(PLAIN | changes, Path("config.json"))
    assert "\n" not in str(error.value) and len(str(error.value)) < 250


def test_a_config_nested_too_deep_is_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="not readable JSON"):
        read_config(tmp_path)


def test_layers_that_the_weights_do_not_have_are_noticed_before_any_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    make_checkpoint("llama", tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 90_000}))
    monkeypatch.setattr("minisgl_tui.engine.models.native.Decoder", None)
    with pytest.raises(UserError, match=r"weights have 3 layers.*num_hidden_layers 90000"):
        open_checkpoint(tmp_path).load(dtype=torch.float32, device=CPU)
