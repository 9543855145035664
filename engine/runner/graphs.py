"""Decode steps as recordings: on a GPU, launching the kernels of a small model takes longer than
running them, so the launches of a whole step are recorded once and replayed.

A recording has fixed shapes and addresses. Steps in which every row is one token are padded to the
next power of two in rows and in blocks, their inputs go into one tensor, and each shape is recorded
when it first occurs. What is recorded is ordinary code; only ``CudaRecorder`` knows of CUDA.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..models.base import CausalLM
from .attention.base import RowSpan, token_slots
from .attention.grouped import decode_part
from .kv_cache import KVCache

Forward = Callable[[], Tensor]


class Recorder(Protocol):
    """Makes a fast version of a function that reads and writes fixed tensors."""

    def record(self, forward: Forward) -> Forward: ...


class CudaRecorder:
    """CUDA graphs that share one memory pool; they never run at the same time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, forward: Forward) -> Forward:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # lazy initialisation must not be recorded
            forward()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            logits = forward()

        def replay() -> Tensor:
            graph.replay()
            return logits

        return replay


class DecodeGraphs:
    """Forward passes of pure decode steps, by shape.

    Owns the recordings and their input tensors. ``disabled`` says why nothing is recorded any more,
    after a model turned out to do what cannot be recorded.
    """

    def __init__(self, model: CausalLM, cache: KVCache, recorder: Recorder) -> None:
        self.model, self.cache, self.recorder = model, cache, recorder
        self.disabled = ""
        self._shapes: dict[tuple[int, int], _Recording] = {}

    def prepare(self, input_ids: Sequence[int], spans: Sequence[RowSpan]) -> Forward | None:
        """The forward pass of a step, which gives logits ``[rows, vocab]`` float32 that last until
        the next one; None where the step cannot be replayed."""
        if self.disabled or any(span.count > 1 for span in spans):
            return None
        shape = _power_of_two(len(spans)), _power_of_two(max(len(span.blocks) for span in spans))
        recording = self._shapes.get(shape)
        if recording is None:
            recording = _Recording(self.model, self.cache, *shape)
            recording.fill(input_ids, spans)
            try:
                recording.run = self.recorder.record(recording.forward)
            except RuntimeError as error:  # such as work that waits for the GPU
                self.disabled = str(error).splitlines()[0]
                return None
            self._shapes[shape] = recording
        recording.fill(input_ids, spans)
        return lambda: recording.run()[: len(spans)]


class _Recording:
    """One shape: ``batch`` rows of up to ``blocks`` blocks.

    ``inputs [batch, 4 + blocks]`` int64 has a row's token, position, slot, length and block table.
    """

    run: Forward

    def __init__(self, model: CausalLM, cache: KVCache, batch: int, blocks: int) -> None:
        self.model, self.cache = model, cache
        self.inputs = torch.empty(batch, 4 + blocks, dtype=torch.int64, device=cache.device)

    def fill(self, input_ids: Sequence[int], spans: Sequence[RowSpan]) -> None:
        """Put a step into the inputs; rows it does not have write where nobody reads."""
        cache, padding = self.cache, self.cache.padding_block
        values = np.full(self.inputs.shape, padding, dtype=np.int64)
        values[:, :4] = (0, 0, cache.scratch_block * cache.block_size, 1)
        slots = token_slots(spans, cache.block_size)
        for row, token, slot, span in zip(values, input_ids, slots, spans, strict=False):
            row[:4] = (token, span.start, slot, span.length)
            row[4 : 4 + len(span.blocks)] = span.blocks
        self.inputs.copy_(torch.from_numpy(values))

    def forward(self) -> Tensor:
        """The step whose inputs are filled in, ``[batch, vocab]``."""
        cache = self.cache
        input_ids, positions, slots, lengths = self.inputs[:, :4].contiguous().unbind(dim=1)
        tables = self.inputs[:, 4:]
        parts = {spec: decode_part(spec, tables, lengths, cache) for spec in set(cache.layers)}

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            cache.write(layer, slots, k, v)
            return parts[cache.layers[layer]].attend(cache, layer, q)

        rows = torch.arange(len(self.inputs), device=cache.device)
        return self.model(input_ids, positions, attend, rows)


def _power_of_two(size: int) -> int:
    """The next power of two from ``size`` on."""
    return 1 << (size - 1).bit_length()
