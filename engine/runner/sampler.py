"""Logits to tokens: greedy, temperature, top-k, top-p and min-p, for a batch of mixed requests.
Bias and penalties come before, in ``adjuster``.

The random number of a token comes from its request's seed and its position alone, through a hash.
So a request draws the same tokens whatever else is in the batch, in whichever step or chunk, and
again after preemption; there is no generator state to save.

The order of the filters is that of transformers: temperature, top-k, then top-p over what is left
and renormalised, then min-p relative to the likeliest token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..plan import TokenLogprobs
from ..sampling import SamplingParams

_MASK = (1 << 64) - 1
_COLDEST = 1e-5  # below this temperature only the likeliest token has any weight in float32


@dataclass(frozen=True, slots=True)
class SampleRow:
    """How to choose one token: ``position`` is its index in the request's tokens."""

    params: SamplingParams
    seed: int
    position: int


class Choice(NamedTuple):
    """A token; for a drawn one whose log-probabilities are asked for, among how many that was, and
    with which probability."""

    token: int
    left: int = 0
    share: float = 0.0


NO_NUMBERS = Choice(0, share=float("nan"))
"""For logits among which are NaNs, of which nothing can be chosen."""


def request_seed(params: SamplingParams, engine_seed: int, request_id: int) -> int:
    """The request's own seed, or one derived from the engine's seed and the request's id."""
    if params.seed is not None:
        return params.seed & _MASK
    return _mix(_mix(engine_seed & _MASK) ^ request_id)


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on ``seed`` and ``position`` alone."""
    bits = _mix(_mix(seed & _MASK) ^ position)
    # 48 bits, so that `uniform * total` stays below `total` in float64.
    return (bits >> 16) * 2.0**-48


def _mix(value: int) -> int:
    """SplitMix64 (Steele, Lea and Flood, 2014): scrambles 64 bits."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def sample(logits: Tensor, rows: Sequence[SampleRow]) -> list[int]:
    """The tokens of `choose`."""
    return [choice.token for choice in choose(logits, rows)]


def choose(logits: Tensor, rows: Sequence[SampleRow]) -> list[Choice]:
    """One token for each row of ``logits [S, vocab]`` float32, or `NO_NUMBERS`.

    Greedy rows are the exact argmax of their logits (the lowest id of equals), whatever else is in
    the batch.
    """
    random = [index for index, row in enumerate(rows) if not row.params.greedy]
    if not random:
        return _likeliest(logits)
    choices = [NO_NUMBERS] * len(rows)
    greedy = [index for index, row in enumerate(rows) if row.params.greedy]
    if greedy:
        for index, choice in zip(greedy, _likeliest(_pick(logits, greedy)), strict=True):
            choices[index] = choice
    chosen = [rows[index] for index in random]
    weights = distribution(_pick(logits, random), [row.params for row in chosen])
    draws = [uniform(row.seed, row.position) for row in chosen]
    for at, (index, token) in enumerate(zip(random, _invert(weights, draws), strict=True)):
        if token < 0:
            continue
        choices[index] = Choice(token)
        if rows[index].params.logprobs is not None:
            left = int(weights[at].count_nonzero())
            share = float(weights[at, token] / _wide(weights[at]).sum())
            choices[index] = Choice(token, left, share)
    return choices


def _likeliest(logits: Tensor) -> list[Choice]:
    """The argmax of each row, the lowest of equals. NumPy and PyTorch take NaN for the largest."""
    if logits.device.type == "cpu":  # PyTorch's takes seven times as long there
        scores = logits.numpy()
        best = scores.argmax(axis=-1)
        top = np.take_along_axis(scores, best[:, None], axis=-1)[:, 0]
        tokens = np.where(np.isnan(top), -1, best).tolist()
    else:
        top, best = logits.max(dim=-1)
        tokens = best.masked_fill(top.isnan(), -1).tolist()
    return [Choice(token) if token >= 0 else NO_NUMBERS for token in tokens]


def distribution(logits: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """What each row of ``logits [S, vocab]`` is sampled from: unnormalised weights, float32.

    Every ``params`` has a temperature above 0. The likeliest token has weight 1; tokens that a
    filter removed have weight 0.
    """
    column = logits.new_tensor([max(row.temperature, _COLDEST) for row in params])[:, None]
    # Subtracting the maximum first keeps tiny temperatures from overflowing.
    weights = ((logits - logits.amax(dim=-1, keepdim=True)) / column).exp()
    sorting = [index for index, row in enumerate(params) if row.top_k or row.top_p < 1]
    if len(sorting) == len(params):
        weights = _keep_top(weights, params)
    elif sorting:
        weights[sorting] = _keep_top(weights[sorting], [params[index] for index in sorting])
    if any(row.min_p for row in params):
        floor = logits.new_tensor([row.min_p for row in params])[:, None]
        weights = weights.masked_fill(weights < floor, 0)
    return weights


def _keep_top(weights: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """Apply top-k and top-p: zero the weights of the tokens they remove."""
    vocab = weights.shape[-1]
    ranked, order = weights.sort(dim=-1, descending=True, stable=True)
    limits = [min(row.top_k or vocab, vocab) for row in params]
    limit = torch.tensor(limits, device=weights.device)[:, None]
    ranked = ranked.masked_fill(torch.arange(vocab, device=weights.device) >= limit, 0)
    mass = _wide(ranked).cumsum(dim=-1)
    share = mass.new_tensor([row.top_p for row in params])[:, None]
    # Drop a token when those before it already reach the share; the first always stays. A share
    # of 1 drops nothing: the sum before a token is then below the total unless its weight is 0.
    ranked = ranked.masked_fill(mass - ranked >= share * mass[:, -1:], 0)
    return torch.zeros_like(weights).scatter_(-1, order, ranked)


def _invert(weights: Tensor, draws: Sequence[float]) -> list[int]:
    """For each row the first token at which the running sum of weights exceeds draw × total; -1
    where that is no number."""
    running = _wide(weights).cumsum(dim=-1)
    threshold = running.new_tensor(draws)[:, None] * running[:, -1:]
    found = torch.searchsorted(running, threshold, right=True)[:, 0]
    found.clamp_(max=weights.shape[-1] - 1)
    return found.masked_fill(running[:, -1].isnan(), -1).tolist()


def token_logprobs(
    logits: Tensor, rows: Sequence[SampleRow], choices: Sequence[Choice]
) -> list[TokenLogprobs | None]:
    """Log-probabilities for the rows that asked; empty when none did.

    They describe the model's own distribution: ``log_softmax`` of the logits before bias,
    penalties, temperature and filters, so they do not change with the sampling parameters.
    """
    asking = [index for index, row in enumerate(rows) if row.params.logprobs is not None]
    if not asking:
        return []
    found = logprobs_of(
        _pick(logits, asking),
        [choices[index].token for index in asking],
        [rows[index].params.logprobs or 0 for index in asking],
    )
    results: list[TokenLogprobs | None] = [None] * len(rows)
    for index, one in zip(asking, found, strict=True):
        _, left, share = choices[index]
        results[index] = TokenLogprobs(one.logprob, one.top, left, share) if left else one
    return results


def logprobs_of(
    logits: Tensor, tokens: Sequence[int], counts: Sequence[int]
) -> list[TokenLogprobs]:
    """Of ``tokens[i]`` by row ``i`` of ``logits [S, vocab]``, with its ``counts[i]`` likeliest."""
    scores = logits.log_softmax(dim=-1)
    top = scores.topk(min(max(counts), scores.shape[-1]), dim=-1)
    picked = torch.tensor(tokens, device=scores.device)
    chosen = scores.gather(1, picked[:, None])[:, 0].tolist()
    return [
        TokenLogprobs(one, list(zip(ids[:count], values[:count], strict=True)))
        for one, ids, values, count in zip(
            chosen, top.indices.tolist(), top.values.tolist(), counts, strict=True
        )
    ]


def _wide(weights: Tensor) -> Tensor:
    """In float64, so that sums over a large vocabulary stay exact; MPS has none."""
    return weights if weights.device.type == "mps" else weights.double()


def _pick(logits: Tensor, indices: list[int]) -> Tensor:
    """Those rows; the tensor itself when that is all of them."""
    return logits if len(indices) == logits.shape[0] else logits[indices]
