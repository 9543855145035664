"""Who may stop the server, and for how long: one viewer at a time, as long as he gives a sign.

A pause is a lease. When its holder is silent for too long, or gives it back, the server plays on
and his breakpoints go, so that a viewer who vanishes never leaves a server frozen.
"""

import asyncio
import logging
from collections.abc import Callable

from ..engine.debugger import Debugger
from ..engine.errors import UserError
from ..engine.feed import Control, Controlled, Lease
from .errors import ApiError

log = logging.getLogger("minisgl_tui.api")

SHORTEST, LONGEST = 1.0, 600.0  # seconds of a lease
LONGEST_NAME = 80


class Controls:
    """The switches of ``debugger`` for viewers. ``changed`` is called when the holder changes."""

    def __init__(self, debugger: Debugger, changed: Callable[[], None]) -> None:
        self._debugger = debugger
        self._changed = changed
        self._holder = ""
        self._lapse: asyncio.TimerHandle | None = None

    def lease(self) -> Lease | None:
        """Who holds the server, and for how long yet."""
        if self._lapse is None:
            return None
        left = self._lapse.when() - asyncio.get_running_loop().time()
        return Lease(self._holder, max(0.0, round(left, 3)))

    def do(self, asked: Control) -> Controlled:
        """Raises ApiError 409 if another viewer holds the server, UserError for what makes no
        sense."""
        lease = self.lease()
        if not 0 < len(asked.holder) <= LONGEST_NAME:
            raise UserError(f"holder has {len(asked.holder)} characters; give 1 to {LONGEST_NAME}")
        if not SHORTEST <= asked.lease_seconds <= LONGEST:
            raise UserError(
                f"lease_seconds is {asked.lease_seconds:g}; give {SHORTEST:g} to {LONGEST:g}"
            )
        if lease and lease.holder != asked.holder:
            raise ApiError(
                409,
                f"held by {lease.holder} for another {lease.seconds:.0f} s",
                code="held_by_another",
            )
        if asked.op == "release":
            if lease:
                self._end("was given back")
            return Controlled()
        if asked.op == "renew" and lease is None:
            raise ApiError(409, "the lease has lapsed: the server plays on", code="lease_lapsed")
        id = self._press(asked)
        self._renew(asked)
        return Controlled(self.lease(), id)

    def _press(self, asked: Control) -> int:
        debugger = self._debugger
        if asked.op == "pause":
            debugger.pause()
        elif asked.op == "resume":
            debugger.play(asked.rate)
        elif asked.op == "step":
            debugger.step(asked.count)
        elif asked.op == "until":
            debugger.until(asked.condition, asked.rate)
        elif asked.op == "break":
            return debugger.add_breakpoint(
                asked.condition, ignore=asked.ignore, log_only=asked.log_only
            )
        elif asked.op == "unbreak":
            debugger.remove(asked.id)
        elif asked.op == "enable":
            debugger.enable(asked.id)
        elif asked.op == "disable":
            debugger.disable(asked.id)
        return 0

    def _renew(self, asked: Control) -> None:
        if self._lapse:
            self._lapse.cancel()
        loop = asyncio.get_running_loop()
        self._lapse = loop.call_later(asked.lease_seconds, self._end, "has lapsed")
        if self._holder != asked.holder:
            self._holder = asked.holder
            log.info("%s controls the server", asked.holder[:LONGEST_NAME])
        self._changed()

    def _end(self, how: str) -> None:
        """Nobody holds the server any more: it plays, and stops nowhere."""
        if self._lapse:
            self._lapse.cancel()
        log.info("the lease of %s %s; the server plays on", self._holder, how)
        self._lapse, self._holder = None, ""
        for breakpoint in self._debugger.breakpoints:
            self._debugger.remove(breakpoint.id)
        self._debugger.play()
        self._changed()
