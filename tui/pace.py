"""How often the screen is drawn while records come in: ten times a second, or five while a drawing
takes longer than half of that allows.

Keys and stops are drawn at once, whatever the pace.
"""

import time
from collections.abc import Callable

TICK, SLOW_TICK = 0.1, 0.2  # seconds between two drawings
LONG, SHORT = 0.05, 0.025  # seconds of processor time: above, and below, the pace changes
_WEIGHT = 0.25  # of the latest drawing in the mean


class Pace:
    """``slow`` says that the screen is drawn less often, because drawing takes long."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.slow = False
        self._clock = clock
        self._cost = 0.0
        self._began = float("-inf")

    def due(self) -> bool:
        """Whether it is time to draw."""
        tick = SLOW_TICK if self.slow else TICK
        return self._clock() - self._began >= 0.9 * tick  # timers are not exact

    def begin(self) -> None:
        """A drawing begins."""
        self._began = self._clock()

    def end(self, seconds: float) -> None:
        """It has taken ``seconds`` of processor time."""
        self._cost += _WEIGHT * (seconds - self._cost)
        self.slow = self._cost > (SHORT if self.slow else LONG)
