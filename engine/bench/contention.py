"""Whether other programs wanted the processors while something was measured.

Threads that share a forward pass wait for each other many times in it, so one other busy program
can slow it down tenfold; figures from such a run say nothing. Known on Linux only. No torch.
"""

import os
from pathlib import Path
from time import perf_counter, process_time

_STAT = Path("/proc/stat")
_SHORTEST = 0.5  # seconds; the kernel counts in hundredths
_IDLE, _WAITING, _LAST = 3, 4, 8  # columns of /proc/stat; behind the last one come repetitions


class Others:
    """What everybody else uses from now on."""

    def __init__(self) -> None:
        self._since = perf_counter()
        self._busy, self._own = _busy_seconds(), process_time()

    def cores(self) -> float | None:
        """Cores that other programs, or the host of this machine, kept busy on average; None where
        that is not known or the time was too short to say."""
        busy, seconds = _busy_seconds(), perf_counter() - self._since
        if busy is None or self._busy is None or seconds < _SHORTEST:
            return None
        return max(0.0, (busy - self._busy - (process_time() - self._own)) / seconds)


def _busy_seconds() -> float | None:
    """Seconds that the processors of the machine were not idle, all together, since it started."""
    try:
        counts = [int(word) for word in _STAT.read_text().split("\n", 1)[0].split()[1 : _LAST + 1]]
    except (OSError, ValueError):
        return None
    idle = counts[_IDLE] + counts[_WAITING]
    return (sum(counts) - idle) / os.sysconf("SC_CLK_TCK")
