"""Which panes show at which size: plain data, decided in one place.

Panes take turns in slots: of those that share a slot, the one shows that was looked at last.
"""

from collections.abc import Mapping
from enum import StrEnum

BATCH, BLOCKS, TREE, REQUESTS, WHY, EVENTS, TIMELINE, STATISTICS, LINTS = range(1, 10)
PANES = (BATCH, BLOCKS, TREE, REQUESTS, WHY, EVENTS, TIMELINE, STATISTICS, LINTS)
RIGHT = frozenset((BLOCKS, TREE))  # the column they are in; all others are in the left one

SMALLEST = (60, 16)
_MEDIUM = (100, 30)
_WIDE = (160, 40)

_STEPS_FROM = 20  # rows from which on there is room for the step strip and the decisions below


class Layout(StrEnum):
    TINY = "tiny"
    NARROW = "narrow"
    MEDIUM = "medium"
    WIDE = "wide"


# The slots, each with the panes that take turns in it, the first of them to begin with.
_SLOTS: dict[Layout, tuple[tuple[int, ...], ...]] = {
    Layout.TINY: (),
    Layout.NARROW: (PANES,),
    Layout.MEDIUM: (
        (BATCH, REQUESTS, TIMELINE, STATISTICS),
        (WHY, EVENTS, LINTS),
        (BLOCKS,),
        (TREE,),
    ),
    Layout.WIDE: (
        (BATCH, REQUESTS, STATISTICS),
        (TIMELINE,),
        (WHY, EVENTS, LINTS),
        (BLOCKS,),
        (TREE,),
    ),
}


def layout_for(width: int, height: int) -> Layout:
    """
    >>> layout_for(80, 24), layout_for(200, 50)
    (<Layout.NARROW: 'narrow'>, <Layout.WIDE: 'wide'>)
    """
    for layout, (columns, rows) in (
        (Layout.WIDE, _WIDE),
        (Layout.MEDIUM, _MEDIUM),
        (Layout.NARROW, SMALLEST),
    ):
        if width >= columns and height >= rows:
            return layout
    return Layout.TINY


def panes_shown(
    layout: Layout, active: int, looked_at: Mapping[int, int], zoomed: bool
) -> frozenset[int]:
    """The panes to show; the greater ``looked_at[pane]``, the later was it the active one."""
    if layout is Layout.TINY:
        return frozenset()
    if zoomed or layout is Layout.NARROW:
        return frozenset((active,))
    return frozenset(
        active if active in slot else max(slot, key=lambda pane: (looked_at.get(pane, 0), -pane))
        for slot in _SLOTS[layout]
    )


def strip_height(layout: Layout, height: int) -> int:
    """Lines for the step strip."""
    if layout is Layout.TINY or height < _STEPS_FROM:
        return 0
    return 1 if layout is Layout.NARROW else 3


def decisions_height(layout: Layout, height: int) -> int:
    """Lines, a rule among them, for the decisions below the one pane of a narrow terminal."""
    if layout is not Layout.NARROW:
        return 0
    return 6 if height >= _STEPS_FROM else 3
