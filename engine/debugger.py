"""Stop and go: the loop that owns the engine, and the switches other threads may press.

`run` lives in the engine's thread and is the only code that touches the engine. Everything else is
called from any thread and returns at once: it leaves a command, which the loop carries out between
two steps. Local screens and, later, a server's control route press the same switches.
"""

import time
from bisect import insort
from collections.abc import Callable
from enum import StrEnum
from queue import Empty, SimpleQueue
from typing import NamedTuple

from .engine import Engine
from .errors import UserError
from .sampling import SamplingParams

Command = Callable[[], object]


class Mode(StrEnum):
    PAUSED = "paused"
    STEPPING = "stepping"
    PLAYING = "playing"


class Arrival(NamedTuple):
    at_step: int
    prompt: list[int]
    params: SamplingParams


class Debugger:
    """Pauses, steps and plays one engine. It starts paused, before the first step.

    ``on_change`` is called, in the engine's thread, whenever mode, rate or idleness may have
    changed; ``on_error`` gets the one line that a refused command ended with.
    """

    def __init__(
        self,
        engine: Engine,
        on_change: Callable[[], None] | None = None,
        on_error: Callable[[str], None] | None = None,
    ) -> None:
        self.engine = engine
        self.mode = Mode.PAUSED
        self.rate: float | None = None
        self.on_change = on_change or (lambda: None)
        self.on_error = on_error or (lambda message: None)
        self._commands: SimpleQueue[Command] = SimpleQueue()
        self._arrivals: list[Arrival] = []
        self._steps_left = 0
        self._closed = False
        self._next_at = 0.0

    @property
    def idle(self) -> bool:
        """No request is alive or to come, so there is nothing to step."""
        return not (self.engine.has_work() or self._arrivals)

    # --- switches, for any thread ----------------------------------------------------------------

    def step(self, count: int = 1) -> None:
        """Take ``count`` steps, then pause; while stepping, the counts add up."""

        def carry_out() -> None:
            self._steps_left = count + (self._steps_left if self.mode is Mode.STEPPING else 0)
            self.mode = Mode.STEPPING

        self._commands.put(carry_out)

    def play(self, rate: float | None = None) -> None:
        """Run at ``rate`` steps a second, or as fast as it goes, until paused or out of work."""

        def carry_out() -> None:
            self.mode, self.rate = Mode.PLAYING, rate
            self._next_at = time.monotonic()

        self._commands.put(carry_out)

    def pause(self) -> None:
        """Stop after the step in progress."""
        self._commands.put(self._pause)

    def submit(self, prompt: list[int], params: SamplingParams, at_step: int = 0) -> None:
        """Queue a prompt, once ``at_step`` steps were taken (or nothing else is left to do).

        A refusal is in the events, a malformed prompt goes to ``on_error``.
        """

        def carry_out() -> None:
            insort(self._arrivals, Arrival(at_step, prompt, params), key=lambda a: a.at_step)
            self._let_arrive(self.engine.step_count)

        self._commands.put(carry_out)

    def abort(self, request_id: int) -> None:
        self._commands.put(lambda: self._try(lambda: self.engine.abort(request_id)))

    def close(self) -> None:
        """Let `run` return, after the step in progress."""

        def carry_out() -> None:
            self._closed = True

        self._commands.put(carry_out)

    # --- the engine's thread ---------------------------------------------------------------------

    def run(self) -> None:
        """Carry out commands and take steps until closed. Blocks, without polling, while paused."""
        while not self._closed:
            if self._carry_out_commands():
                self.on_change()
            elif self.mode is not Mode.PAUSED:
                self._take_step()

    def _carry_out_commands(self) -> bool:
        """Do what was asked, waiting for it as long as no step is due; true if anything was."""
        wait = self._seconds_to_next_step()
        try:
            self._commands.get(block=wait != 0, timeout=wait or None)()
        except Empty:
            return False
        return True

    def _seconds_to_next_step(self) -> float | None:
        """0: a step is due; None: none is, until a command says so."""
        if self.mode is Mode.PAUSED:
            return None
        if self.mode is Mode.PLAYING and self.rate:
            return max(0.0, self._next_at - time.monotonic())
        return 0.0

    def _take_step(self) -> None:
        if self.mode is Mode.PLAYING and self.rate:
            # The beat follows the clock, but a slow step does not make later ones hurry.
            self._next_at = max(self._next_at + 1 / self.rate, time.monotonic())
        if not self.engine.has_work() and self._arrivals:
            self._let_arrive(self._arrivals[0].at_step)  # nothing goes on until then
        self.engine.step()
        self._let_arrive(self.engine.step_count)
        if self.mode is Mode.STEPPING:
            self._steps_left -= 1
        if self.idle or (self.mode is Mode.STEPPING and not self._steps_left):
            self._pause()
            self.on_change()

    def _let_arrive(self, step: int) -> None:
        """Submit the arrivals due by ``step``."""
        while self._arrivals and self._arrivals[0].at_step <= step:
            arrival = self._arrivals.pop(0)
            self._try(lambda a=arrival: self.engine.submit(a.prompt, a.params))

    def _pause(self) -> None:
        self.mode = Mode.PAUSED
        self._steps_left = 0

    def _try(self, action: Command) -> None:
        try:
            action()
        except UserError as error:
            self.on_error(str(error))
