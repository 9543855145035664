"""``check`` agrees where nothing is wrong, and names what is."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from minisgl_tui.engine.check import Comparison, Divergence, Report, check
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.models import decoder
from minisgl_tui.engine.models.rope import RopeConfig, inverse_frequencies
from minisgl_tui.engine.runner.attention.sdpa import SdpaAttention
from minisgl_tui.tui.check_command import show
from minisgl_tui.tui.cli import main
from safetensors.torch import load_file, save_file

from .harness import make_checkpoint

SMALL: dict[str, Any] = {"prompts": 5, "max_tokens": 6, "device": "cpu", "dtype": "float32"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    make_checkpoint("llama", path)
    return path


def run(path: Path, **changes: Any) -> Report:
    return check(str(path), **SMALL | changes)


def parted(report: Report) -> list[tuple[str, str]]:
    return [(one.first, one.second) for one in report.comparisons if one.divergence]


def test_float32_agrees_in_every_way(tiny: Path):
    report = run(tiny, prompts=8)
    assert report.agrees and report.ok
    pairs = [(one.first, one.second) for one in report.comparisons]
    assert pairs[:3] == [("alone", "batched"), ("cold", "warm"), ("whole", "chunks of 16")]
    assert pairs[-1] == ("minisgl-tui", "transformers")
    assert report.prompt_tokens == [3, 9, 17, 33, 64, 130, 250, 400]
    assert report.cached_tokens > 400


@pytest.mark.parametrize("name", ["mixtral", "smollm3"])
def test_other_families_agree_too(name: str, tmp_path: Path):
    make_checkpoint(name, tmp_path)
    assert run(tmp_path).agrees


def test_a_wrong_rotation_parts_from_transformers_alone(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
):
    def faster(rope: RopeConfig, head_dim: int) -> torch.Tensor:
        return inverse_frequencies(rope, head_dim) * 1.3

    monkeypatch.setattr(decoder, "inverse_frequencies", faster)
    report = run(tiny)
    assert parted(report) == [("minisgl-tui", "transformers")] and not report.ok
    divergence = report.comparisons[-1].divergence
    assert divergence is not None and divergence.tokens[0] != divergence.tokens[1]
    assert min(divergence.margins) > 0
    assert len(divergence.texts) == 2 and divergence.position < 6
    assert report.prompt_tokens[divergence.prompt] == divergence.prompt_tokens


def test_a_broken_backend_is_found_out(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    whole = SdpaAttention.prepare

    def prepare(self: SdpaAttention, plan: Any, cache: Any) -> Any:
        attend = whole(self, plan, cache)
        return lambda layer, q, k, v: attend(layer, q, k, v) * 1.5

    monkeypatch.setattr(SdpaAttention, "prepare", prepare)
    report = run(tiny, attention="reference")
    assert ("reference", "sdpa") in parted(report) and not report.ok


def test_a_backend_that_does_not_run_here_is_said_to_be_skipped(tiny: Path):
    report = run(tiny, prompts=1)
    assert "CUDA" in report.skipped["varlen"] and report.agrees
    assert any("varlen" in line and "CUDA" in line for line in show(report))


def test_what_transformers_does_not_take_is_still_compared_otherwise(tmp_path: Path):
    make_checkpoint("llama", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["model_type"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    report = run(tmp_path)
    assert report.agrees and len(report.comparisons) == 5
    assert "model_type" in report.skipped["transformers"]


def test_logits_that_are_not_numbers_are_no_answer(tmp_path: Path):
    make_checkpoint("llama", tmp_path)
    weights = tmp_path / "model.safetensors"
    save_file({name: one * math.nan for name, one in load_file(weights).items()}, weights)
    with pytest.raises(UserError, match=r"not answered: .* logits are not numbers \(NaN\)"):
        run(tmp_path)


def test_bfloat16_is_reported_but_never_failed(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        decoder, "inverse_frequencies", lambda rope, dim: torch.ones(dim // 2, device="cpu")
    )
    report = run(tiny, dtype="bfloat16")
    assert report.dtype == "bfloat16" and not report.agrees and report.ok


def test_the_command_prints_each_pair_and_exits_by_what_it_found(
    tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    words = ["check", "--model", str(tiny), "--dtype", "float32", "--device", "cpu"]
    words += ["--prompts", "3", "--max-tokens", "4"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "alone = batched" in shown and "3 of 3 agree" in shown and "parts at" not in shown
    monkeypatch.setattr(
        decoder, "inverse_frequencies", lambda rope, dim: torch.ones(dim // 2, device="cpu")
    )
    assert main([*words, "--json"]) == 1
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["agrees"] is False and found["comparisons"][-1]["divergence"]["margins"]
    assert "float32 must not" in captured.err


def test_a_divergence_is_one_line_with_both_tokens_and_margins():
    divergence = Divergence(2, 17, 5, (28, 30), (",", "."), (0.0, 0.125))
    comparison = Comparison("alone", "batched", 3, 2, divergence)
    lines = show(
        Report("m", "bfloat16", "cpu", "sdpa", [3, 9, 17], 8, 16, [comparison], {"varlen": "no"})
    )
    (line,) = [line for line in lines if "parts at" in line]
    assert line.strip() == (
        "prompt 2 (17 tokens) parts at token 5: alone 28 ',', batched 30 '.'; margins 0 and 0.125"
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"prompts": 0}, "--prompts is 0"),
        ({"prompts": 5_000_000}, "--prompts is 5000000; give 1 to 1000"),
        ({"max_tokens": 0}, "--max-tokens"),
        ({"max_tokens": 511}, "512"),
    ],
)
def test_what_cannot_be_run_is_refused(tiny: Path, changes: dict[str, int], named: str):
    with pytest.raises(UserError, match=named):
        run(tiny, **changes)
