"""Which tokens the grammars of a step's requests allow, as one mask over their logits.

Owns where each request is in its grammar, which follows from the request's tokens alone: so it
lasts through preemption, and goes when nobody holds the request any longer. Grammars are compiled
in `grammars.py`, before a request is taken in.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
import torch
from llguidance import LLExecutor
from torch import Tensor
from torch.nn.functional import embedding

from ..request import Request
from .grammars import Grammars, reason

_FEW = 8  # masks that are found in turn; more are shared out to threads

# What a byte of a mask lets the logits of its eight tokens be at the most. Looking that up and
# taking the smaller is ten times as fast as filling where a mask says so.
_LIMITS = torch.tensor(
    [[torch.inf if byte >> bit & 1 else -torch.inf for bit in range(8)] for byte in range(256)]
)


@dataclass(slots=True)
class Mask:
    """For each of ``rows`` of the logits one bit a token, ``bits [n, bytes]``, the lowest first.

    In the rows ``ending`` only tokens that end the request are left. ``failed`` says, by request,
    why its grammar could not be followed any further; its row is as good as any.
    """

    rows: list[int]
    bits: np.ndarray
    ending: set[int] = field(default_factory=set)
    failed: dict[int, str] = field(default_factory=dict)

    def apply(self, logits: Tensor) -> None:
        """Set what is not allowed to -inf, in place; other rows are not touched."""
        device = logits.device
        packed = torch.from_numpy(self.bits).to(device)
        limits = embedding(packed.int(), _LIMITS.to(device)).flatten(1)[:, : logits.shape[-1]]
        part, rest = logits[:, : limits.shape[1]], logits[:, limits.shape[1] :]
        index = torch.tensor(self.rows, device=device)
        if len(self.rows) == len(logits):
            torch.minimum(part, limits, out=part)
        else:
            part[index] = torch.minimum(part[index], limits)
        rest[index] = -torch.inf


class Constraints:
    """Follows the requests that have a grammar. They were checked by the same ``grammars``."""

    def __init__(self, grammars: Grammars) -> None:
        self._grammars = grammars
        self._places: WeakKeyDictionary[Request, _Place] = WeakKeyDictionary()
        self._executor: LLExecutor | None = None

    def mask(self, requests: Sequence[Request]) -> Mask | None:
        """What the next token of each may be; None where none has a grammar."""
        rows = [row for row, request in enumerate(requests) if request.params.grammar]
        if not rows:
            return None
        places = [self._place(requests[row]) for row in rows]
        words = -(-self._grammars.vocab_size // 32)
        bits = np.zeros((len(rows), words), dtype=np.int32)
        self._fill(bits, places)
        mask = Mask(rows, bits.view(np.uint8))
        for row, one, place in zip(rows, mask.bits, places, strict=True):
            if place.finish(one):
                mask.ending.add(row)
            if place.matcher.is_error() or not one.any():
                mask.failed[requests[row].id] = f"the grammar: {reason(place.matcher)}"
                one[:] = 255
        return mask

    def _place(self, request: Request) -> "_Place":
        place = self._places.get(request)
        if place is None:
            place = self._places[request] = _Place(request, self._grammars)
        place.read(request)
        return place

    def _fill(self, bits: np.ndarray, places: Sequence["_Place"]) -> None:
        """The tokens that go on with each grammar, or end it."""
        size, address = bits.shape[1] * 4, bits.ctypes.data
        wanted = [(p.matcher, i) for i, p in enumerate(places) if not p.matcher.is_stopped()]
        if len(wanted) <= _FEW:
            for matcher, index in wanted:
                matcher.unsafe_compute_mask_ptr(address + index * size, size)
            return
        if self._executor is None:
            self._executor = LLExecutor(os.cpu_count())
        self._executor.unsafe_compute_mask_ptr(wanted, address, size, len(places))


class _Place:
    """Where a request is in its grammar."""

    def __init__(self, request: Request, grammars: Grammars) -> None:
        assert request.params.grammar
        self.matcher = grammars.start(request.params.grammar)
        self._read = request.prompt_len  # tokens of the request, which never loses any
        # As bits: those that may end it anywhere, and those that may where the grammar is complete.
        self._ends = _bits([end for end in request.ends if end < grammars.vocab_size])
        self._silent = _bits(grammars.silent(request.ends))

    def read(self, request: Request) -> None:
        """Take in the tokens that have come since."""
        if self._read < len(request.tokens):
            self.matcher.consume_tokens(request.tokens[self._read :])
            self._read = len(request.tokens)

    def finish(self, bits: np.ndarray) -> bool:
        """Allow the request's ends where the grammar is complete; whether they are all there is."""
        if self.matcher.is_accepting():
            np.bitwise_or.at(bits, *self._silent)
        others = bits.copy()
        np.bitwise_and.at(others, self._ends[0], ~self._ends[1])
        return not others.any()


def _bits(tokens: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The byte and the bit in it of each of ``tokens``."""
    ids = np.array(tokens, dtype=np.int64)
    return ids >> 3, (1 << (ids & 7)).astype(np.uint8)
