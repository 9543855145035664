"""Loading costs the memory of the weights once, and says how far it is."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.loader import open_checkpoint
from minisgl_tui.engine.models import huge_pages
from minisgl_tui.engine.models.decoder import Decoder
from minisgl_tui.engine.runner.kv_cache import bytes_per_block

from .harness import CPU, make_checkpoint

MEASURE = """
import resource, sys, torch
from pathlib import Path
from minisgl_tui.engine.loader import open_checkpoint
import safetensors.torch
def peak():
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) * 1024
before = peak()
model = open_checkpoint(Path(sys.argv[1])).load(dtype=torch.float32, device=torch.device("cpu"))
size = sum(parameter.nbytes for parameter in model.parameters())
print((peak() - before) / size, size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_float32_weights_are_never_in_memory_twice(tmp_path: Path):
    make_checkpoint(
        "llama", tmp_path, hidden_size=768, intermediate_size=3072, num_hidden_layers=10
    )
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=True
    )
    ratio, size = map(float, done.stdout.split())
    assert size > 300e6
    assert ratio < 1.3


WHOLE = """
import sys
from pathlib import Path
from minisgl_tui.engine import LLM, SamplingParams
from minisgl_tui.engine.tokenizer import Tokenizer
import minisgl_tui.engine.llm
def peak():
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) * 1024
Tokenizer(Path(sys.argv[1]))  # imported before, as its code is no part of the model
before = peak()
llm = LLM(sys.argv[1], dtype="bfloat16", device="cpu", num_blocks=256)
llm.generate([[7] * 400] * 4, SamplingParams(temperature=0, max_tokens=4))
pool = sum(tensor.nbytes for tensor in (*llm.runner.cache.keys, *llm.runner.cache.values))
print((peak() - before - pool) / llm.model_info.weight_bytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_the_default_model_takes_little_more_than_its_weights_and_the_pool(smollm: Path):
    """The packed output layer is the larger part of what comes on top: 0.2 of the weights."""
    done = subprocess.run(
        [sys.executable, "-c", WHOLE, str(smollm)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 1.3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_are_cast_as_they_come(tmp_path: Path, dtype: torch.dtype):
    make_checkpoint("llama", tmp_path)
    exact = open_checkpoint(tmp_path).load(dtype=torch.float32, device=CPU)
    cast = open_checkpoint(tmp_path).load(dtype=dtype, device=CPU)
    for ours, theirs in zip(cast.parameters(), exact.parameters(), strict=True):
        assert ours.dtype == dtype and torch.equal(ours, theirs.to(dtype))
    assert isinstance(cast, Decoder) and cast.inverse_frequencies.dtype == torch.float32


def test_progress_rises_to_one(tmp_path: Path):
    make_checkpoint("llama", tmp_path)
    seen: list[float] = []
    open_checkpoint(tmp_path).load(dtype=torch.float32, device=CPU, progress=seen.append)
    assert seen == sorted(seen) and seen[-1] == 1.0


def test_a_block_is_as_large_as_its_keys_and_values(tmp_path: Path):
    make_checkpoint("llama", tmp_path)
    layers = open_checkpoint(tmp_path).attention
    assert bytes_per_block(layers, 16, torch.bfloat16) == 2 * 3 * 16 * 2 * 8 * 2


def test_weights_that_no_memory_is_left_for_are_refused_with_their_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: int, **__: int) -> None:
        raise OSError(12, "Cannot allocate memory")

    make_checkpoint("llama", tmp_path)
    monkeypatch.setattr(huge_pages, "_ADVICE", 14)
    monkeypatch.setattr(huge_pages.mmap, "mmap", full)
    with pytest.raises(UserError, match=r"the weights need 0\.0 GB, more than cpu has free; use"):
        open_checkpoint(tmp_path).load(dtype=torch.float32, device=CPU)
