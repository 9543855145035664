"""Which rows of a step begin with the same blocks, so that their common context is read once.

A row may share a block only where all of it lies before the row's first query: then every query of
the group sees every shared key, and no mask is needed. No torch.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .base import RowSpan

LEAST_SAVING = 8  # blocks; sharing fewer costs more than it saves
MOST_BRANCHINGS = 16  # of the tree, one below the other, that are looked at


@dataclass(frozen=True, slots=True)
class Group:
    """Rows whose first ``blocks`` blocks are the same."""

    blocks: int
    rows: list[RowSpan]

    @property
    def saving(self) -> int:
        """Blocks that need not be read again."""
        return self.blocks * (len(self.rows) - 1)


def share(rows: Sequence[RowSpan], block_size: int) -> list[Group]:
    """``rows`` in groups that together save the most; those that share nothing are one group.

    Each row is in one group, so one level of the radix tree is shared: at every branching of the
    tree either all rows below share what they have in common, or each branch shares its own.
    """
    groups = _groups(rows, 0, block_size, MOST_BRANCHINGS)
    worth = [group for group in groups if group.saving >= LEAST_SAVING]
    alone = [row for group in groups if group.saving < LEAST_SAVING for row in group.rows]
    alone.sort(key=lambda row: row.first)
    return [*worth, Group(0, alone)] if alone else worth


def _groups(rows: Sequence[RowSpan], depth: int, block_size: int, branchings: int) -> list[Group]:
    """The best groups of ``rows``, which share their first ``depth`` blocks."""
    together = Group(depth, list(rows))
    if not branchings:
        return [together]
    by_next: defaultdict[int, list[RowSpan]] = defaultdict(list)
    ended: list[RowSpan] = []  # rows with no block left that could be shared
    for row in rows:
        if row.start // block_size > depth:
            by_next[int(row.blocks[depth])].append(row)
        else:
            ended.append(row)
    apart = [Group(depth, ended)] if ended else []
    for branch in by_next.values():
        if len(branch) == 1:
            apart.append(Group(depth, branch))
        else:
            common = _common(branch, depth, block_size)
            apart.extend(_groups(branch, common, block_size, branchings - 1))
    return apart if sum(group.saving for group in apart) > together.saving else [together]


def _common(rows: Sequence[RowSpan], depth: int, block_size: int) -> int:
    """How many leading blocks all ``rows`` have in common; more than ``depth``."""
    limit = min(row.start // block_size for row in rows)
    tables = np.stack([row.blocks[depth:limit] for row in rows])
    differs = (tables != tables[0]).any(axis=0)
    return depth + (int(differs.argmax()) if differs.any() else limit - depth)
