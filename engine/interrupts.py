"""Ctrl-C between two changes, never in the middle of one; and a SIGTERM that is one.

Python raises KeyboardInterrupt at any instruction of the main thread. In the middle of moving a
block from one owner to another that would lose the block, so the engine puts it off to the end of
its bookkeeping. In other threads there is nothing to put off.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """``with deferred():`` keeps SIGINT waiting until the end; ``with allowed():`` inside of it
    lets it through at once, for the long part that can be interrupted."""

    def __init__(self) -> None:
        self._waiting = False
        self._open = False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)
        if not callable(before):  # ignored, or the default that ends the process: leave it so
            yield
            return
        signal.signal(signal.SIGINT, self._note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
            if self._waiting:
                self._waiting = False
                signal.raise_signal(signal.SIGINT)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        try:
            self._open = True
            if self._waiting:
                self._let_through()
            yield
        finally:
            self._open = False

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self._open:
            self._let_through()
        self._waiting = True

    def _let_through(self) -> None:
        self._open = self._waiting = False  # what follows is bookkeeping again
        raise KeyboardInterrupt


@contextmanager
def ends_in_order() -> Iterator[None]:
    """A SIGTERM meanwhile unwinds as ctrl-c does, so that files come to their end, with the exit
    code that shells give for it. In other threads there is nothing to unwind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def unwind(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
