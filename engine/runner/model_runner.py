"""Executes a plan: packs the tokens of the step, runs the decoder, samples.

Owns the model, the KV cache and the order of work in a step; decides nothing about requests.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from ..models.base import CausalLM
from ..plan import Foreseen, Plan, Row, Runner, StepOutput
from ..sampling import SamplingParams
from .adjuster import Adjuster
from .ahead import Ahead
from .attention.base import (
    AttentionBackend,
    AttentionPlan,
    begun_blocks,
    row_spans,
    token_slots,
)
from .constraints import Constraints
from .grammars import Grammars
from .graphs import DecodeGraphs
from .kv_cache import KVCache
from .prompt_scores import PromptScores
from .sampler import NO_NUMBERS, SampleRow, choose, request_seed, token_logprobs

_NAN = (
    "the model's logits are not numbers (NaN): its weights are damaged, or too large for this "
    "--dtype; try float32"
)


class ModelRunner(Runner):
    """A ``Runner`` over a model with its weights; ``seed`` is the engine's. Without ``grammars``
    for its tokenizer it takes no grammar. With ``overlap`` it begins with steps before they are
    scheduled."""

    def __init__(
        self,
        model: CausalLM,
        cache: KVCache,
        attention: AttentionBackend,
        *,
        graphs: DecodeGraphs | None = None,
        grammars: Grammars | None = None,
        seed: int = 0,
        overlap: bool = False,
    ) -> None:
        self.model = model
        self.cache = cache
        self.attention = attention
        self.graphs = graphs
        self.seed = seed
        self.grammars = grammars
        self._constraints = Constraints(grammars) if grammars else None
        self._adjuster = Adjuster()
        self.overlaps = overlap
        self._ahead: Ahead | None = None

    def check(self, params: SamplingParams) -> None:
        if self.grammars is None:
            super().check(params)
        else:
            self.grammars.check(params)

    @torch.inference_mode()
    def execute(self, plan: Plan) -> StepOutput:
        """Write the KV of every row's tokens and sample one token for each row that asks."""
        started = perf_counter()
        scores = PromptScores(plan.rows)
        forward = self._plan_forward(plan, scores)
        prepared = perf_counter()
        logits = forward()
        if logits.device.type == "cuda":
            torch.cuda.synchronize(logits.device)  # so that the timings mean what they say
        forwarded = perf_counter()
        sampling = [row for row in plan.rows if row.samples]
        rows = [
            SampleRow(
                row.request.params,
                request_seed(row.request.params, self.seed, row.request.id),
                row.end,
            )
            for row in sampling
        ]
        requests = [row.request for row in sampling]
        mask = self._constraints.mask(requests) if self._constraints else None
        adjusted = self._adjuster.adjust(logits, requests, mask)
        choices = choose(adjusted, rows) if rows else []
        tokens = [choice.token for choice in choices]
        logprobs = token_logprobs(logits, rows, choices) if rows else []
        timings = {
            "prepare": prepared - started,
            "forward": forwarded - prepared,
            "sample": perf_counter() - forwarded,
        }
        scored = scores.by_request() if scores else {}
        pairs = zip(requests, choices, strict=True)
        failed = {request.id: _NAN for request, choice in pairs if choice is NO_NUMBERS}
        if mask:
            failed |= mask.failed
        return StepOutput(tokens, logprobs, timings, scored, failed)

    @torch.inference_mode()
    def logits(self, plan: Plan) -> Tensor:
        """As ``execute`` but without choosing: ``[rows that sample, vocab]`` float32."""
        return self._plan_forward(plan, PromptScores(()))()

    @torch.inference_mode()
    def begin(self, decodes: Sequence[Foreseen]) -> None:
        self._ahead = None
        if not decodes:
            return
        try:
            self._ahead = Ahead(decodes, self._prepare(decodes, PromptScores(()))())
        except Exception:  # the step itself will meet it again, and knows whom to blame
            return

    def _plan_forward(self, plan: Plan, scores: PromptScores) -> Callable[[], Tensor]:
        """As `_prepare`, without the rows that have been run ahead."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return self._prepare(plan.rows, scores)
        places, others = ahead.split(plan.rows)
        if not others:
            return lambda: ahead.merge(places, None)
        forward = self._prepare(others, scores)
        return lambda: ahead.merge(places, forward())

    def _prepare(
        self, planned: Sequence[Row] | Sequence[Foreseen], scores: PromptScores
    ) -> Callable[[], Tensor]:
        """The forward pass of a step: logits ``[rows that sample, vocab]``, in the order planned.
        On the way it finds ``scores``."""
        device, size = self.cache.device, self.cache.block_size
        # Packed by shape, so that rows which attention runs together lie together.
        rows = sorted(planned, key=lambda row: (row.count, row.end))
        spans = row_spans(rows, size)
        self.cache.clear(begun_blocks(spans, size))
        tokens = list(chain.from_iterable(r.request.tokens[r.start : r.end] for r in rows))
        firsts = {id(row): span.first for row, span in zip(rows, spans, strict=True)}
        ends = [firsts[id(row)] + row.count - 1 for row in planned if row.samples]
        sample_rows = torch.tensor(ends, dtype=torch.int64).to(device)
        scoring = scores.scoring(firsts, device)
        replay = self.graphs.prepare(tokens, spans) if self.graphs and not scores else None
        if replay is not None:
            return lambda: replay()[sample_rows]
        positions = np.concatenate([np.arange(row.start, row.end) for row in rows])
        slots = torch.from_numpy(token_slots(spans, size)).to(device)
        attend = self.attention.prepare(AttentionPlan(spans, slots), self.cache)
        input_ids = torch.tensor(tokens, dtype=torch.int64, device=device)
        packed_positions = torch.from_numpy(positions).to(device)
        return lambda: self.model(input_ids, packed_positions, attend, sample_rows, scoring)
