"""What the debugger says about a stop: where, why and by which breakpoints.

Plain values, made in the engine's thread and free to be read in any other. Who decides to stop is
`breakpoints.py` and `debugger.py`.
"""

from dataclasses import dataclass
from enum import StrEnum

from .events import AnyEvent
from .quantities import kind_of


@dataclass(frozen=True, slots=True)
class Stop:
    """That ``breakpoint`` (an id) fired at ``step:index``, for the ``hit``-th time."""

    breakpoint: int
    condition: str
    hit: int
    step: int
    index: int
    event: AnyEvent

    @property
    def position(self) -> str:
        return f"{self.step}:{self.index}"

    @property
    def what(self) -> str:
        """``120:7 preempted #7``"""
        request = getattr(self.event, "req", None)
        whom = "" if request is None else f" #{request}"
        return f"{self.position} {kind_of(self.event)}{whom}"

    @property
    def text(self) -> str:
        """One line: ``120:7 preempted #7 · breakpoint 2: free<10``."""
        return f"{self.what} · breakpoint {self.breakpoint}: {self.condition}"


class StopReason(StrEnum):
    STEP = "step"  # all steps asked for were taken
    BREAKPOINT = "breakpoint"
    UNTIL = "until"
    IDLE = "idle"  # out of work
    PAUSE = "pause"


@dataclass(frozen=True, slots=True)
class Stopped:
    """Why the engine stopped after ``step``; ``hits`` are the breakpoints that fired there.

    ``until`` is the condition that was being run to, whether or not it was reached.
    """

    reason: StopReason
    step: int
    hits: tuple[Stop, ...] = ()
    until: str = ""

    @property
    def text(self) -> str:
        """One line for the screen."""
        first = self.hits[0] if self.hits else None
        if self.reason is StopReason.UNTIL:
            return f"{first.what}: {self.until}" if first else f"already so: {self.until}"
        if first:
            return first.text + (f" (+{len(self.hits) - 1})" if len(self.hits) > 1 else "")
        missed = f"; not reached: {self.until}" if self.until else ""
        return f"{_REASONS[self.reason]} after step {self.step}{missed}"


_REASONS = {
    StopReason.STEP: "stepped",
    StopReason.IDLE: "out of work",
    StopReason.PAUSE: "paused",
}
