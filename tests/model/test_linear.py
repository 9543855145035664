"""Weights multiply alike in either layout, and where packing fails they stay as they are. What the
processor is good at is measured."""

import os
import platform
import subprocess
import sys
from typing import Any

import pytest
import torch
from minisgl_tui.engine.models import linear
from minisgl_tui.engine.models.linear import MANY_ROWS, PATIENCE, Layouts, Linear, Packed


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


def adapting(dtype: torch.dtype = torch.bfloat16, bias: bool = True) -> Linear:
    made = layer(dtype, bias)
    linear.adapt_linears(made)
    return made


def layouts(made: Linear) -> Layouts:
    assert isinstance(made.layout, Layouts) and made.weight is None
    return made.layout


def use(made: Linear, rows: int, times: int) -> None:
    for _ in range(times):
        made(torch.ones(rows, 64, dtype=torch.bfloat16))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 7, 300])
def test_no_layout_changes_a_product_beyond_rounding(rows: int, bias: bool):
    made = layer(bias=bias)
    x = torch.randn(rows, 64).bfloat16()
    expected = made(x)
    linear.adapt_linears(made)
    for last in (7, 1):  # packed, then plain again
        use(made, last, PATIENCE)
        found = made(x)
        assert found.shape == expected.shape == (rows, 96)
        torch.testing.assert_close(found, expected, rtol=0.02, atol=0.1)


def test_a_weight_is_packed_after_some_products_of_a_few_rows_and_unpacked_after_some_of_one():
    made, exact = adapting(), layer().weight
    use(made, 4, PATIENCE - 1)
    assert layouts(made).packed is None
    use(made, 4, 1)
    assert layouts(made).packed is not None and layouts(made).plain is None
    use(made, 1, PATIENCE)
    plain = layouts(made).plain
    assert layouts(made).packed is None and plain is not None and torch.equal(plain, exact)


def test_a_weight_stays_as_it_is_while_both_kinds_of_product_come_and_for_long_prompts():
    made = adapting()
    for _ in range(PATIENCE):
        use(made, 4, PATIENCE - 1)
        use(made, 1, 1)
    use(made, MANY_ROWS, PATIENCE)
    assert layouts(made).packed is None


def test_the_weights_of_a_model_are_not_all_rearranged_at_once():
    layers = [layer() for _ in range(12)]
    linear.adapt_linears(torch.nn.ModuleList(layers))
    packed: list[int] = []
    for _ in range(PATIENCE + 2):
        for made in layers:
            made(torch.ones(4, 64, dtype=torch.bfloat16))
        packed.append(sum(layouts(made).packed is not None for made in layers))
    assert packed[-4:] == [0, 4, 8, 12]


def test_a_weight_that_others_read_is_kept_in_both_layouts():
    weight = layer().weight
    both = Layouts(weight, shared=True)
    for rows in (1, 4) * PATIENCE:
        x = torch.randn(rows, 64).bfloat16()
        torch.testing.assert_close(both.multiply(x), x @ weight.T, rtol=0.02, atol=0.1)
    assert both.plain is not None and both.packed is not None


def test_one_row_leaves_the_switch_of_onednn_as_it_was():
    made = adapting()
    for enabled in (False, True):
        torch._C._set_mkldnn_enabled(enabled)
        use(made, 1, 1)
        assert torch._C._get_mkldnn_enabled() is enabled


def test_this_build_of_pytorch_packs():
    assert adapting().layout is not None


@pytest.mark.parametrize("bias", [True, False])
def test_float32_is_packed_for_good(bias: bool):
    made = layer(torch.float32, bias)
    inputs = [torch.randn(rows, 64) for rows in (0, 1, 7, 300)]
    expected = [made(x) for x in inputs]
    linear.adapt_linears(made)
    assert isinstance(made.layout, Packed) and made.weight is None
    for x, product in zip(inputs, expected, strict=True):
        torch.testing.assert_close(made(x), product)
        torch.testing.assert_close(made(x, product), product + product)


def test_float16_stays_as_it_is():
    made = adapting(torch.float16)
    assert made.layout is None and made.weight is not None


def missing(*args: Any) -> torch.Tensor:
    raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")


def wrong(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return torch.zeros(len(x), 96, dtype=x.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("pack", missing),
        ("multiply_packed", missing),
        ("multiply_packed", wrong),
        ("multiply_row", wrong),
    ],
)
def test_where_packing_is_missing_or_wrong_the_plain_product_is_used(
    name: str, fault: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(linear, name, fault)
    made = layer(dtype)
    x = torch.randn(3, 64).to(dtype)
    before = made(x)
    linear.adapt_linears(made)
    assert made.layout is None
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


def test_the_layers_of_somebody_elses_model_adapt():
    model = Theirs().bfloat16()
    before = model(IDS)
    linear.adapt_foreign_linears(model, lambda: model(IDS))
    assert model.up.weight.is_meta and model.down.weight.is_meta
    assert model.head.weight is model.embed.weight and not model.head.weight.is_meta
    for _ in range(PATIENCE + 1):
        torch.testing.assert_close(model(IDS), before, rtol=0.05, atol=0.1)


def test_a_model_that_reads_a_weight_itself_is_left_as_it_is():
    model = Theirs(looks=True).bfloat16()
    before, weight = model(IDS), model.up.weight
    # Nothing raises where a weight without values only spreads: so the caller looks at the result.
    linear.adapt_foreign_linears(model, lambda: model(IDS).tolist())
    assert model.up.weight is weight and "forward" not in vars(model.up)
    assert torch.equal(model(IDS), before)
