"""When Python looks for cycles of garbage: seldom, and never in the middle of something.

Everything here is freed by its reference counts; records and states make no cycles. But each look
walks whatever was made since the last, and a full one the whole picture of a large run: a quarter
of a second, by default every few seconds.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# Objects made before a first look, first looks before a second, second looks before a full one. A
# second look walks 10,000 objects at the most, in 2 ms.
_SELDOM = (2_000, 5, 2_500)


def collect_seldom() -> None:
    """For a program that has to answer at once, as long as it runs."""
    gc.set_threshold(*_SELDOM)


@contextmanager
def no_collection() -> Iterator[None]:
    """For whoever makes many objects that stay, none of them garbage: neither now nor afterwards
    are they walked, but count as old at once."""
    was_on = gc.isenabled()
    if was_on:
        gc.collect(1)  # what is garbage so far must not grow old too
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.freeze()
            gc.unfreeze()
            gc.enable()
