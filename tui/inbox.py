"""Where a source's messages wait for the screen, which takes them many at a time.

While the engine plays, the screen comes by on its tick; otherwise it is woken at once, and only
once however much is waiting. A source that runs far ahead of the screen is made to wait.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from ..engine.debugger import Mode
from ..engine.events import StepRecord
from .sources.base import Message, ModeChanged

_AHEAD = 400  # records a source may be ahead of the screen


class Inbox:
    """A `Sink` for one screen. ``wake`` is called in the source's thread."""

    def __init__(self, wake: Callable[[], object]) -> None:
        self._wake = wake
        self._waiting: deque[Message] = deque()
        self._playing = False
        self._woken = False
        self._room = threading.Event()
        self._closed = False

    def put(self, message: Message) -> None:
        if isinstance(message, ModeChanged):
            self._playing = message.mode is Mode.PLAYING
        self._waiting.append(message)
        if not self._woken and not (self._playing and isinstance(message, StepRecord)):
            self._woken = True
            self._wake()
        while len(self._waiting) > _AHEAD and not self._closed:
            self._room.clear()
            self._room.wait(0.5)

    @property
    def waits(self) -> bool:
        """Whether there is anything to take."""
        return bool(self._waiting)

    def take(self, seconds: float) -> Iterator[Message]:
        """What is waiting, in order, for as long as ``seconds`` allow; the rest stays."""
        self._woken = False
        until = time.perf_counter() + seconds
        while self._waiting:
            yield self._waiting.popleft()
            if time.perf_counter() > until:
                break
        self._room.set()

    def close(self) -> None:
        """Nobody will read any more: never make the source wait again."""
        self._closed = True
        self._room.set()
