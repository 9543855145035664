"""Where each tensor of a checkpoint goes in the decoder.

Owns the names that checkpoints use. The decoder's own parameters are called alike, except where it
keeps several of a checkpoint's tensors in one: q, k and v; gate and up; all experts of a layer.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass

from torch import Tensor

from .config import ModelConfig
from .decoder import Decoder


@dataclass(frozen=True, slots=True)
class WeightSlot:
    """Rows ``[start, start + rows)`` of ``parameter``, or of its entry ``expert``."""

    parameter: str
    start: int
    rows: int
    expert: int | None = None

    def of(self, parameter: Tensor) -> Tensor:
        """The slice of ``parameter`` that the checkpoint's tensor fills, with its shape."""
        whole = parameter if self.expert is None else parameter[self.expert]
        return whole[self.start : self.start + self.rows]


def weight_slots(model: Decoder, stored: Container[str]) -> dict[str, WeightSlot]:
    """Checkpoint tensor name → the slice of a parameter that it fills.

    ``stored`` are the names in the checkpoint: experts come under three kinds of names.
    """
    return dict(_weight_slots(model, stored))


def ignorable(name: str, model: Decoder) -> bool:
    """Tensors some checkpoints carry that hold nothing new: tied heads, rotary tables."""
    return name.endswith("rotary_emb.inv_freq") or (
        name == "lm_head.weight" and model.lm_head is None
    )


def _weight_slots(model: Decoder, stored: Container[str]) -> Iterator[tuple[str, WeightSlot]]:
    fused = _fused(model.config)
    sparse = () if model.config.experts is None else model.config.experts.sparse
    for layer, has_experts in enumerate(sparse):
        if has_experts:
            yield from _expert_slots(model.config, layer, stored)
    for name, parameter in model.named_parameters():
        if name == "embed_tokens":
            yield "model.embed_tokens.weight", WeightSlot(name, 0, parameter.shape[0])
            continue
        if not name.endswith((".weight", ".bias")):
            continue  # of experts
        stored_as = name if name.startswith("lm_head.") else f"model.{name}"
        module, _, kind = stored_as.rpartition(".")
        parent, _, leaf = module.rpartition(".")
        start = 0
        for part, rows in fused.get(leaf, ((leaf, parameter.shape[0]),)):
            path = f"{parent}.{part}.{kind}" if parent else f"{part}.{kind}"
            yield path, WeightSlot(name, start, rows)
            start += rows


def _fused(config: ModelConfig) -> dict[str, tuple[tuple[str, int], ...]]:
    """Parameter → the tensors it holds in a checkpoint, each with its rows, in order."""
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    inner = config.intermediate_size
    return {
        "qkv_proj": (("q_proj", q), ("k_proj", kv), ("v_proj", kv)),
        "gate_up_proj": (("gate_proj", inner), ("up_proj", inner)),
    }


def _expert_slots(
    config: ModelConfig, layer: int, stored: Container[str]
) -> Iterator[tuple[str, WeightSlot]]:
    """Qwen's names, Mixtral's, or all experts of a layer in one tensor, as in memory."""
    experts = config.experts
    assert experts is not None
    count, inner, hidden = experts.num_experts, experts.intermediate_size, config.hidden_size
    ours, theirs = f"layers.{layer}.mlp", f"model.layers.{layer}.mlp"
    mixtral = f"model.layers.{layer}.block_sparse_moe"
    if f"{theirs}.experts.gate_up_proj" in stored:
        yield f"{theirs}.gate.weight", WeightSlot(f"{ours}.gate", 0, count)
        for name in ("gate_up_proj", "down_proj"):
            yield f"{theirs}.experts.{name}", WeightSlot(f"{ours}.{name}", 0, count)
        return
    block, gate, up, down = theirs, "gate_proj", "up_proj", "down_proj"
    if f"{mixtral}.gate.weight" in stored:
        block, gate, up, down = mixtral, "w1", "w3", "w2"
    yield f"{block}.gate.weight", WeightSlot(f"{ours}.gate", 0, count)
    for index in range(count):
        path = f"{block}.experts.{index}"
        yield f"{path}.{gate}.weight", WeightSlot(f"{ours}.gate_up_proj", 0, inner, index)
        yield f"{path}.{up}.weight", WeightSlot(f"{ours}.gate_up_proj", inner, inner, index)
        yield f"{path}.{down}.weight", WeightSlot(f"{ours}.down_proj", 0, hidden, index)
