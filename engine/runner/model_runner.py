"""Executes a plan: packs the tokens of the step, runs the decoder, samples.

Owns the model, the KV cache and the order of work in a step; decides nothing about requests.
"""

from itertools import chain
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from ..models.base import CausalLM
from ..plan import Plan, StepOutput
from .attention.base import (
    AttentionBackend,
    AttentionPlan,
    begun_blocks,
    row_spans,
    token_slots,
)
from .kv_cache import KVCache
from .sampler import SampleRow, request_seed, sample, token_logprobs


class ModelRunner:
    """A ``Runner`` over a model with its weights; ``seed`` is the engine's."""

    def __init__(
        self, model: CausalLM, cache: KVCache, attention: AttentionBackend, *, seed: int = 0
    ) -> None:
        self.model = model
        self.cache = cache
        self.attention = attention
        self.seed = seed

    @torch.inference_mode()
    def execute(self, plan: Plan) -> StepOutput:
        """Write the KV of every row's tokens and sample one token for each row that asks."""
        started = perf_counter()
        inputs = self._inputs(plan)
        prepared = perf_counter()
        logits = self._forward(inputs)
        forwarded = perf_counter()
        rows = [
            SampleRow(
                row.request.params,
                request_seed(row.request.params, self.seed, row.request.id),
                row.end,
            )
            for row in plan.rows
            if row.samples
        ]
        tokens = sample(logits, rows) if rows else []
        logprobs = token_logprobs(logits, rows, tokens) if rows else []
        timings = {
            "prepare": prepared - started,
            "forward": forwarded - prepared,
            "sample": perf_counter() - forwarded,
        }
        return StepOutput(tokens, logprobs, timings)

    @torch.inference_mode()
    def logits(self, plan: Plan) -> Tensor:
        """As ``execute`` but without choosing: ``[rows that sample, vocab]`` float32."""
        return self._forward(self._inputs(plan))

    def _inputs(self, plan: Plan) -> tuple[Tensor, Tensor, AttentionPlan, Tensor]:
        """Token ids ``[N]``, positions ``[N]``, the attention plan, rows to sample ``[S]``."""
        device = self.cache.device
        # Packed by shape, so that rows which attention runs together lie together.
        rows = sorted(plan.rows, key=lambda row: (row.count, row.end))
        spans = row_spans(rows, self.cache.block_size)
        tokens = list(chain.from_iterable(r.request.tokens[r.start : r.end] for r in rows))
        positions = np.concatenate([np.arange(row.start, row.end) for row in rows])
        last = {id(row): span.first + span.count - 1 for row, span in zip(rows, spans, strict=True)}
        ends = [last[id(row)] for row in plan.rows if row.samples]
        self.cache.clear(begun_blocks(spans, self.cache.block_size))
        slots = torch.from_numpy(token_slots(spans, self.cache.block_size)).to(device)
        return (
            torch.tensor(tokens, dtype=torch.int64, device=device),
            torch.from_numpy(positions).to(device),
            AttentionPlan(spans, slots),
            torch.tensor(ends, dtype=torch.int64, device=device),
        )

    def _forward(self, inputs: tuple[Tensor, Tensor, AttentionPlan, Tensor]) -> Tensor:
        input_ids, positions, attention_plan, sample_rows = inputs
        attend = self.attention.prepare(attention_plan, self.cache)
        logits = self.model(input_ids, positions, attend, sample_rows)
        if logits.device.type == "cuda":
            torch.cuda.synchronize(logits.device)  # so that the timings mean what they say
        return logits
