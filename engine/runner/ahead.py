"""Logits of rows that have been run before their step was planned.

Owns which rows of a plan these are of. What is run ahead, and when, is ``model_runner``'s business.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..plan import Foreseen, Row


class Ahead:
    """``logits [len(decodes), vocab]`` float32 of the tokens that follow ``decodes``."""

    def __init__(self, decodes: Sequence[Foreseen], logits: Tensor) -> None:
        self.logits = logits
        self._places = {one.request.id: (place, one) for place, one in enumerate(decodes)}

    def split(self, rows: Sequence[Row]) -> tuple[list[int], list[Row]]:
        """The place in ``logits`` of each of ``rows`` that has been run, -1 for the others that
        sample; and all those others."""
        places: list[int] = []
        others: list[Row] = []
        for row in rows:
            place, foreseen = self._places.get(row.request.id, (-1, None))
            if foreseen is not None and foreseen.comes_true_in(row):
                places.append(place)
                continue
            others.append(row)
            if row.samples:
                places.append(-1)
        return places, others

    def merge(self, places: Sequence[int], others: Tensor | None) -> Tensor:
        """The logits of a plan's rows that sample, in their order: by ``places`` of `split`, with
        those of ``others [n, vocab]`` in between."""
        if others is None:
            return self.logits[torch.tensor(places, device=self.logits.device)]
        following = iter(range(len(self.logits), len(self.logits) + len(others)))
        index = [next(following) if place < 0 else place for place in places]
        return torch.cat((self.logits, others))[torch.tensor(index, device=self.logits.device)]
