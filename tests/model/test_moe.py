"""Experts: the same tokens in any company, from any spelling of a checkpoint, by any kernel."""

from pathlib import Path

import pytest
import torch
from minisgl_tui.engine.loader import open_checkpoint
from minisgl_tui.engine.models import moe
from minisgl_tui.engine.models.families import ExpertsConfig
from minisgl_tui.engine.models.moe import Experts

from .harness import CPU, make_checkpoint, make_runner, prefill_logits, random_tokens


def experts(top_k: int = 3, normalize: bool = False, inner: int = 20) -> Experts:
    made = Experts(ExpertsConfig(7, top_k, inner, normalize, (True,)), 48)
    torch.manual_seed(0)
    for parameter in made.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.3)
    return made


def one_by_one(made: Experts, x: torch.Tensor) -> torch.Tensor:
    """Each token through each of its experts, as the formula reads."""
    rows: list[torch.Tensor] = []
    for token in x:
        odds = (made.gate @ token).softmax(0)
        best = odds.topk(made.top_k).indices
        scale = odds[best].sum() if made.normalize else 1
        total = torch.zeros_like(token)
        for index in best:
            gate, up = (made.gate_up_proj[index] @ token).chunk(2)
            inner = torch.nn.functional.silu(gate) * up
            total += odds[index] / scale * (made.down_proj[index] @ inner)
        rows.append(total)
    return torch.stack(rows)


@pytest.mark.parametrize("tokens", [1, 2, 500])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("has_kernel", [False, True])
def test_each_token_gets_its_own_experts(
    tokens: int, normalize: bool, has_kernel: bool, monkeypatch: pytest.MonkeyPatch
):
    if not has_kernel:
        monkeypatch.setattr(moe, "_has_kernel", lambda x, weight: False)
    made = experts(normalize=normalize)
    x, residual = torch.randn(tokens, 48), torch.randn(tokens, 48)
    expected = residual + one_by_one(made, x)
    torch.testing.assert_close(made(x, residual), expected, rtol=1e-4, atol=1e-4)


def test_all_tokens_may_choose_the_same_expert():
    made = experts(top_k=1)
    x = torch.randn(1, 48).repeat(100, 1)
    expected = one_by_one(made, x[:1]).repeat(100, 1)
    torch.testing.assert_close(made(x, torch.zeros(100, 48)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("has_kernel", [False, True])
def test_bfloat16_experts_stay_close_to_float32(has_kernel: bool):
    made = experts(inner=16 if has_kernel else 20)
    x = torch.randn(30, 48)
    assert moe._has_kernel(x.bfloat16(), made.down_proj) == has_kernel
    exact = made(x, torch.zeros(30, 48))
    rough = made.bfloat16()(x.bfloat16(), torch.zeros(30, 48).bfloat16()).float()
    same = (rough - exact).norm(dim=1) < 0.05 * exact.norm(dim=1)  # routing may flip for a few
    assert same.sum() >= 27


@pytest.mark.parametrize("name", ["mixtral", "qwen3-moe", "qwen3-moe-some-layers-dense"])
def test_experts_packed_into_one_tensor_load_like_experts_apart(name: str, tmp_path: Path):
    apart, packed = tmp_path / "apart", tmp_path / "packed"
    model = make_checkpoint(name, apart)
    model.save_pretrained(packed, save_original_format=False)
    assert "experts.gate_up_proj" in str((packed / "model.safetensors").read_bytes()[:100_000])
    tokens = random_tokens(40)
    logits = [prefill_logits(make_runner(path), tokens, 40) for path in (apart, packed)]
    assert torch.equal(*logits)


def test_experts_take_no_more_memory_than_their_weights(tmp_path: Path):
    model = make_checkpoint("mixtral", tmp_path)
    loaded = open_checkpoint(tmp_path).load(dtype=torch.float32, device=CPU)
    ours = sum(parameter.numel() for parameter in loaded.parameters())
    assert ours == sum(parameter.numel() for parameter in model.parameters())
