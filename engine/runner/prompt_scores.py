"""Log-probabilities of prompt tokens, each given those before it, for the requests that ask.

Owns what is wanted of one step and what has been found. The logits come from the model in slices,
as those of a whole chunk would be large: 512 tokens of a vocabulary of 50,000 take 100 MB.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..models.base import Scoring
from ..plan import Row
from ..sampling import TokenLogprobs
from .sampler import logprobs_of


class PromptScores:
    """Of the positions that ``rows`` are to score; falsy where there are none."""

    def __init__(self, rows: Sequence[Row]) -> None:
        asking = [row for row in rows if row.request.prompt_logprobs]
        self._wanted = [(row, position) for row in asking for position in row.scored]
        self._found: list[TokenLogprobs] = []

    def __bool__(self) -> bool:
        return bool(self._wanted)

    def scoring(self, firsts: Mapping[int, int], device: torch.device) -> Scoring | None:
        """What to ask of the model; ``firsts`` has the place of each row's first token in the
        packed step, by the row's ``id()``."""
        if not self._wanted:
            return None
        places = [firsts[id(row)] + position - row.start for row, position in self._wanted]
        return Scoring(torch.tensor(places, dtype=torch.int64, device=device), self._take)

    def _take(self, logits: Tensor) -> None:
        first = len(self._found)
        part = self._wanted[first : first + len(logits)]
        tokens = [row.request.tokens[position + 1] for row, position in part]
        self._found += logprobs_of(
            logits, tokens, [row.request.params.prompt_logprobs or 0 for row, _ in part]
        )

    def by_request(self) -> dict[int, list[TokenLogprobs]]:
        """What was found, by request id and in the order of the prompt."""
        found: dict[int, list[TokenLogprobs]] = {}
        for (row, _), score in zip(self._wanted, self._found, strict=True):
            found.setdefault(row.request.id, []).append(score)
        return found
