"""Which panes show at which size: plain data, decided in one place."""

from enum import StrEnum

BATCH, BLOCKS, TREE, REQUESTS, WHY = 1, 2, 3, 4, 5
PANES = (BATCH, BLOCKS, TREE, REQUESTS, WHY)

SMALLEST = (60, 16)
_MEDIUM = (100, 30)
_WIDE = (160, 40)


class Layout(StrEnum):
    TINY = "tiny"
    NARROW = "narrow"
    MEDIUM = "medium"
    WIDE = "wide"


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


def panes_shown(layout: Layout, active: int, left: int, zoomed: bool) -> frozenset[int]:
    """The panes to show; ``left`` is the one of Batch and Requests that was looked at last."""
    if layout is Layout.TINY:
        return frozenset()
    if zoomed or layout is Layout.NARROW:
        return frozenset((active,))
    if layout is Layout.MEDIUM:
        return frozenset((left, WHY, BLOCKS, TREE))
    return frozenset(PANES)
