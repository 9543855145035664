"""Packed weights multiply as plain ones do, and where packing fails nothing is packed. What the
processor is good at is measured."""

import os
import platform
import subprocess
import sys
from typing import Any

import pytest
import torch
from minisgl_tui.engine.models import linear
from minisgl_tui.engine.models.linear import Linear


def layer(dtype: torch.dtype = torch.bfloat16, bias: bool = True) -> Linear:
    torch.manual_seed(0)
    made = Linear(64, 96, bias).to(dtype)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made


@pytest.fixture(autouse=True)
def forget_the_check():
    linear._packing_works.cache_clear()
    yield
    linear._packing_works.cache_clear()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 7, 300])
def test_packing_changes_no_product_beyond_rounding(rows: int, bias: bool):
    made = layer(bias=bias)
    x = torch.randn(rows, 64).bfloat16()
    before = made(x)
    made.pack()
    after = made(x)
    assert after.shape == before.shape == (rows, 96)
    torch.testing.assert_close(after, before, rtol=0.02, atol=0.1)


def test_this_build_of_pytorch_packs():
    made = layer()
    made.pack()
    assert made.packed is not None and made.weight is None


def test_float32_stays_as_it_is():
    made = layer(torch.float32)
    made.pack()
    assert made.packed is None


def missing(*args: Any) -> torch.Tensor:
    raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")


def wrong(x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return torch.zeros(len(x), 96, dtype=x.dtype)


@pytest.mark.parametrize(
    ("name", "fault"), [("pack", missing), ("multiply_packed", missing), ("multiply_packed", wrong)]
)
def test_where_packing_is_missing_or_wrong_the_plain_product_is_used(
    name: str, fault: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(linear, name, fault)
    made = layer()
    x = torch.randn(3, 64).bfloat16()
    before = made(x)
    made.pack()
    assert made.packed is None
    assert torch.equal(made(x), before)


def auto_dtype(**environment: str) -> str:
    """What ``--dtype auto`` means on the CPU, in a process of its own."""
    code = (
        "import torch; from minisgl_tui.engine.runner.device import resolve_dtype; "
        "print(resolve_dtype('auto', torch.device('cpu')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names instruction sets of x86")
def test_bfloat16_is_chosen_where_the_processor_multiplies_it_and_only_there():
    with_it = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert auto_dtype() == ("torch.bfloat16" if with_it else "torch.float32")
    assert auto_dtype(ONEDNN_MAX_CPU_ISA="AVX2") == "torch.float32"


class Theirs(torch.nn.Module):
    """A model with a layer of its own, a tied pair, and perhaps a look at a weight."""

    def __init__(self, looks: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(64, 64)
        self.up = torch.nn.Linear(64, 96)
        self.down = torch.nn.Linear(96, 64, bias=False)
        self.head = torch.nn.Linear(64, 64, bias=False)
        self.head.weight = self.embed.weight
        self.looks = looks

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.down(self.up(self.embed(ids)).to(self.up.weight.dtype))
        return self.head(x + self.up.weight.mean() if self.looks else x)


IDS = torch.arange(10)[None]


def test_the_layers_of_somebody_elses_model_are_packed():
    model = Theirs().bfloat16()
    before = model(IDS)
    linear.pack_linears(model, lambda: model(IDS))
    assert model.up.weight.is_meta and model.down.weight.is_meta
    assert model.head.weight is model.embed.weight and not model.head.weight.is_meta
    torch.testing.assert_close(model(IDS), before, rtol=0.05, atol=0.1)


def test_a_model_that_reads_a_weight_itself_is_left_as_it_is():
    model = Theirs(looks=True).bfloat16()
    before, weight = model(IDS), model.up.weight
    # Nothing raises where a weight without values only spreads: so the caller looks at the result.
    linear.pack_linears(model, lambda: model(IDS).tolist())
    assert model.up.weight is weight and "forward" not in vars(model.up)
    assert torch.equal(model(IDS), before)
