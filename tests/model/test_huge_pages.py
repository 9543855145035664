"""Tensors in huge pages are tensors like others, and their memory comes and goes."""

import mmap
import re
import sys
from pathlib import Path

import pytest
import torch
from minisgl_tui.engine.models import huge_pages
from minisgl_tui.engine.models.huge_pages import PAGE, HugePages

MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) .*?^VmFlags:(.*?)$", re.M | re.S)


def resident() -> int:
    """Bytes of memory this process has written and not given back."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) << 10


@pytest.mark.parametrize("chunk", [0, 1, 5000, 32 * PAGE])
def test_tensors_lie_apart_and_aligned(chunk: int):
    memory = HugePages(chunk)
    shapes = [(3, 5), (1,), (0, 4), (70, 700), (2, 3, 4), (), (1000, 1025)]
    dtypes = [torch.bfloat16, torch.float32, torch.uint8, torch.float64]
    tensors = [memory.empty(shape, dtype) for shape in shapes for dtype in dtypes]
    for value, tensor in enumerate(tensors):
        tensor.fill_(value)
    for value, tensor in enumerate(tensors):
        assert (tensor == value).all()
        assert tensor.data_ptr() % 64 == 0 and tensor.is_contiguous()
    expected = [(torch.Size(shape), dtype) for shape in shapes for dtype in dtypes]
    assert [(tensor.shape, tensor.dtype) for tensor in tensors] == expected


@pytest.mark.skipif(sys.platform != "linux", reason="huge pages are asked for on Linux")
def test_the_system_is_asked_for_huge_pages():
    tensor = HugePages().empty((PAGE,), torch.uint8)
    assert tensor.data_ptr() % PAGE == 0
    flags = ""
    for first, last, entry in MAPPING.findall(Path("/proc/self/smaps").read_text()):
        if int(first, 16) <= tensor.data_ptr() < int(last, 16):
            flags = entry
    assert " hg" in flags


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_taken_when_it_is_written_and_given_back_with_the_last_tensor():
    size, before = 64 << 20, resident()
    memory = HugePages(2 * size)
    tensors = [memory.empty((size,), torch.uint8) for _ in range(2)]
    assert resident() - before < size // 8
    tensors[0].fill_(1)
    assert size * 7 / 8 < resident() - before < size * 9 / 8
    del memory, tensors[1]
    assert resident() - before > size * 7 / 8
    tensors.clear()
    assert resident() - before < size // 8


def test_what_cannot_be_had_is_an_error():
    for size in (1 << 46, 1 << 62, 1 << 90):
        with pytest.raises(torch.OutOfMemoryError, match="cannot be had"):
            HugePages().empty((size,), torch.float32)


@pytest.mark.parametrize("missing", ["the constant", "the kernel's support"])
def test_without_huge_pages_others_will_do(missing: str, monkeypatch: pytest.MonkeyPatch):
    if missing == "the constant":
        monkeypatch.setattr(huge_pages, "_ADVICE", 0)
    else:

        class Plain(mmap.mmap):
            def madvise(self, *_: int) -> None:
                raise OSError(22, "Invalid argument")

        monkeypatch.setattr(huge_pages.mmap, "mmap", Plain)
    tensor = HugePages().empty((3, 4), torch.float32)
    assert tensor.fill_(2).sum() == 24
