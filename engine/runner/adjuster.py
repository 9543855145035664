"""What requests change about their logits before temperature and filters: the mask of a grammar,
``logit_bias``, ``min_tokens`` and the penalties, in vLLM's order.

A step touches only the logits of tokens that a request names or has used, so its cost goes with the
distinct tokens of the requests that ask, not with the vocabulary. What a row becomes depends on its
request alone.
"""

from array import array
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from ..request import Request
from .constraints import Mask

_EXTREME = 1e30  # repetition penalties beyond it, or below its inverse, would overflow float32


class Adjuster:
    """Owns what is remembered of each request, for as long as somebody holds the request."""

    def __init__(self) -> None:
        self._histories: WeakKeyDictionary[Request, _History] = WeakKeyDictionary()

    def adjust(
        self, logits: Tensor, requests: Sequence[Request], mask: Mask | None = None
    ) -> Tensor:
        """What to choose tokens from, given ``logits [S, vocab]`` float32 of the next token of each
        request and what their grammars allow: the same tensor where nobody asks for a change, else
        a changed copy."""
        rows = [(row, request) for row, request in enumerate(requests) if request.params.adjusts]
        if not rows:
            return logits
        histories = [(row, self._history(request)) for row, request in rows]
        adjusted = logits.clone(memory_format=torch.contiguous_format)
        if mask:
            mask.apply(adjusted)
        _add_bias(adjusted, histories)
        ending = mask.ending if mask else ()
        _bar_ends(adjusted, [(row, request) for row, request in rows if row not in ending])
        _penalise(adjusted, histories)
        return adjusted

    def _history(self, request: Request) -> "_History":
        history = self._histories.get(request)
        if history is None:
            history = self._histories[request] = _History(request)
        history.read(request)
        return history


class _History:
    """A request's bias as arrays and, if it asks for penalties, its distinct tokens: ``ids [n]`` in
    the order they came, and how often each was ``generated [n]``, 0 if only the prompt has it."""

    def __init__(self, request: Request) -> None:
        bias = request.params.logit_bias
        self.params = request.params
        self.bias_ids = np.fromiter(bias, np.int64, len(bias))
        self.bias = np.fromiter(bias.values(), np.float32, len(bias))
        self.ids, self.generated = array("q"), array("q")
        self._places: dict[int, int] = {}
        self._read = 0  # tokens of the request, which never loses any

    def read(self, request: Request) -> None:
        """Take in the tokens that have come since."""
        if not self.params.penalises:
            return
        tokens = request.tokens
        for position in range(self._read, len(tokens)):
            place = self._places.setdefault(tokens[position], len(self.ids))
            if place == len(self.ids):
                self.ids.append(tokens[position])
                self.generated.append(0)
            if position >= request.prompt_len:
                self.generated[place] += 1
        self._read = len(tokens)


def _add_bias(logits: Tensor, rows: Sequence[tuple[int, _History]]) -> None:
    rows = [(row, history) for row, history in rows if len(history.bias)]
    if rows:
        index = _index(logits, [(row, history.bias_ids) for row, history in rows])
        bias = np.concatenate([history.bias for _, history in rows])
        logits.view(-1)[index] += torch.from_numpy(bias).to(logits.device)


def _bar_ends(logits: Tensor, rows: Sequence[tuple[int, Request]]) -> None:
    """Keep the requests that are shorter than their ``min_tokens`` from ending, and those that have
    a grammar and want ``ignore_eos``."""
    vocab = logits.shape[-1]
    barred = [
        (row, [token for token in request.ends if 0 <= token < vocab])
        for row, request in rows
        if len(request.tokens) - request.prompt_len < request.params.min_tokens
        or (request.params.grammar and request.params.ignore_eos)
    ]
    if barred:
        logits.view(-1)[_index(logits, barred)] = -torch.inf


def _penalise(logits: Tensor, rows: Sequence[tuple[int, _History]]) -> None:
    """Repetition as in Keskar et al., 2019 (CTRL); frequency and presence as OpenAI documents."""
    rows = [(row, history) for row, history in rows if history.params.penalises]
    if not rows:
        return
    histories = [history for _, history in rows]
    sizes = [len(history.ids) for history in histories]

    def column(values: list[float]) -> np.ndarray:
        return np.repeat(np.array(values), sizes)

    repetition = column(
        [min(max(h.params.repetition_penalty, 1 / _EXTREME), _EXTREME) for h in histories]
    )
    frequency = column([h.params.frequency_penalty for h in histories])
    presence = column([h.params.presence_penalty for h in histories])
    generated = np.concatenate([h.generated for h in histories])
    taken = frequency * generated + presence * (generated > 0)
    factors, offsets = torch.from_numpy(np.stack((repetition, taken)).astype(np.float32)).to(
        logits.device
    )
    index = _index(logits, [(row, history.ids) for row, history in rows])
    flat = logits.view(-1)
    found = flat[index]
    flat[index] = torch.where(found > 0, found / factors, found * factors) - offsets


def _index(logits: Tensor, rows: Sequence[tuple[int, Sequence[int] | np.ndarray]]) -> Tensor:
    """Where the tokens of each row are in the flattened ``logits``."""
    vocab = logits.shape[-1]
    places = [np.asarray(ids, dtype=np.int64) + row * vocab for row, ids in rows]
    return torch.from_numpy(np.concatenate(places)).to(logits.device)
