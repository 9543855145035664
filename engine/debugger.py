"""Stop and go: the loop that owns the engine, and the switches other threads may press.

`run` lives in the engine's thread and is the only code that touches the engine. Everything else is
called from any thread and returns at once: it leaves a command, which the loop carries out between
two steps. Local screens and, later, a server's control route press the same switches.

A step cannot be left half done: when a breakpoint fires, the step ends first, and the `Stopped`
says at which of its events that was. What is a hit, `breakpoints.py` decides.
"""

import itertools
import time
from bisect import insort
from collections.abc import Callable
from enum import StrEnum
from queue import Empty, SimpleQueue
from typing import NamedTuple, Protocol

from .breakpoints import Breakpoint, Breakpoints
from .conditions import Condition, parse
from .config import EngineConfig
from .errors import UserError
from .events import Listener, StepRecord
from .request import Request
from .sampling import SamplingParams
from .state import EngineState
from .stops import Stop, Stopped, StopReason

RETAIN_STOPS = 200  # stops kept in the history; older ones are forgotten
SLOWEST = 0.001  # steps a second

Command = Callable[[], object]


class Mode(StrEnum):
    PAUSED = "paused"
    STEPPING = "stepping"
    PLAYING = "playing"


class Arrival(NamedTuple):
    at_step: int
    prompt: list[int]
    params: SamplingParams
    priority: int = 0


class Log(Protocol):
    """Where records can be listened to; the result ends that."""

    def listen(self, listener: Listener) -> Callable[[], None]: ...


class Stepped(Protocol):
    """An engine, or what can take its place here: see `engine.py` for what each does."""

    config: EngineConfig
    requests: dict[int, Request]

    @property
    def log(self) -> Log: ...

    @property
    def step_count(self) -> int: ...

    def has_work(self) -> bool: ...

    def step(self) -> object: ...

    def submit(self, prompt: list[int], params: SamplingParams, *, priority: int = 0) -> object: ...

    def abort(self, request_id: int) -> bool: ...


class Debugger:
    """Pauses, steps and plays one engine. It starts paused, before the first step.

    ``on_change`` is called, in the engine's thread, whenever mode, rate or idleness may have
    changed; ``on_error`` gets the one line that a refused command ended with. Out of work it stops,
    unless ``stops_when_idle`` is false: a server plays on, asleep until the next request.

    ``state`` follows the engine's events, for conditions to ask, and is to be read in the engine's
    thread only. A debugger that joins an engine under way needs the state so far, and applies the
    records to it from then on; without it, it can do everything but breakpoints and `until`.
    """

    def __init__(
        self,
        engine: Stepped,
        on_change: Callable[[], None] | None = None,
        on_error: Callable[[str], None] | None = None,
        state: EngineState | None = None,
        *,
        stops_when_idle: bool = True,
    ) -> None:
        self.engine = engine
        self.stops_when_idle = stops_when_idle
        self.mode = Mode.PAUSED
        self.rate: float | None = None
        self.on_change = on_change or (lambda: None)
        self.on_error = on_error or (lambda message: None)
        self._commands: SimpleQueue[Command] = SimpleQueue()
        self._arrivals: list[Arrival] = []
        self._steps_left = 0
        self._closed = False
        self._next_at = 0.0
        if state is None and not engine.step_count and not engine.requests:
            state = EngineState(engine.config)
        self.state = state
        self.stops: tuple[Stopped, ...] = ()  # oldest first; replaced, never changed
        self._breakpoints = Breakpoints()
        self._ids = itertools.count(1)
        self._hits: list[Stop] = []  # since the last stop
        self._until: Breakpoint | None = None
        self._unlisten = engine.log.listen(self._follow) if state else lambda: None

    @property
    def idle(self) -> bool:
        """No request is alive or to come, so there is nothing to step."""
        return not (self.engine.has_work() or self._arrivals)

    @property
    def last_stop(self) -> Stopped | None:
        return self.stops[-1] if self.stops else None

    @property
    def breakpoints(self) -> tuple[Breakpoint, ...]:
        """All that are set, that of `until` among them."""
        return self._breakpoints.all

    @property
    def logged(self) -> tuple[Stop, ...]:
        """What log-only breakpoints noted, oldest first."""
        return self._breakpoints.logged

    @property
    def asked(self) -> bool:
        """A switch was pressed that has done nothing yet."""
        return not self._commands.empty()

    def rejoin(self, state: EngineState) -> None:
        """The engine has gone on unheard, and is as in ``state`` now. In the engine's thread only;
        nothing that happened meanwhile was a hit."""
        self.state = state
        self._breakpoints.disarm()

    # --- switches, for any thread ----------------------------------------------------------------

    def step(self, count: int = 1) -> None:
        """Take ``count`` steps, then pause; while stepping, the counts add up."""
        if type(count) is not int or count < 1:
            raise UserError(f"{count!r} steps cannot be taken; give a whole number from 1 on")

        def carry_out() -> None:
            self._steps_left = count + (self._steps_left if self.mode is Mode.STEPPING else 0)
            self.mode = Mode.STEPPING

        self._commands.put(carry_out)

    def play(self, rate: float | None = None) -> None:
        """Run at ``rate`` steps a second, or as fast as it goes, until paused or out of work."""
        if rate is not None and not rate >= SLOWEST:
            raise UserError(f"{rate!r} steps a second cannot be played; give at least {SLOWEST}")
        self._commands.put(lambda: self._play(rate))

    def pause(self) -> None:
        """Stop after the step in progress."""

        def carry_out() -> None:
            if self.mode is not Mode.PAUSED:
                self._stop(StopReason.PAUSE)

        self._commands.put(carry_out)

    def until(self, condition: str | Condition, rate: float | None = None) -> None:
        """Play to the step in which ``condition`` comes true, and stop.

        Any other stop on the way ends this, and so does another `until`. A condition on the state
        alone that is true already stops at once. Raises `UserError` if it cannot be read.
        """
        target = Breakpoint(next(self._ids), self._read(condition), temporary=True)

        def carry_out() -> None:
            assert self.state
            self._forget_until()
            self._until = target
            if not target.condition.needs_event and target.condition.holds(self.state):
                self._stop(StopReason.UNTIL)
            else:
                self._breakpoints.add(target)
                self._play(rate)

        self._commands.put(carry_out)

    def submit(
        self, prompt: list[int], params: SamplingParams, at_step: int = 0, priority: int = 0
    ) -> None:
        """Queue a prompt, once ``at_step`` steps were taken (or nothing else is left to do).

        A refusal is in the events, a malformed prompt goes to ``on_error``.
        """

        def carry_out() -> None:
            insort(
                self._arrivals, Arrival(at_step, prompt, params, priority), key=lambda a: a.at_step
            )
            self._let_arrive(self.engine.step_count)

        self._commands.put(carry_out)

    def abort(self, request_id: int) -> None:
        """End a request between steps."""
        self.call(lambda: self.engine.abort(request_id))

    def call(self, action: Command) -> None:
        """Carry out ``action`` in the engine's thread between two steps, paused or not.

        What it raises goes to ``on_error``.
        """
        self._commands.put(lambda: self._try(action))

    def close(self) -> None:
        """Let `run` return, after the step in progress."""

        def carry_out() -> None:
            self._closed = True

        self._commands.put(carry_out)

    # --- breakpoints, for any thread -------------------------------------------------------------

    def add_breakpoint(
        self,
        condition: str | Condition,
        *,
        ignore: int = 0,
        log_only: bool = False,
        temporary: bool = False,
    ) -> int:
        """Stop when ``condition`` says so; the result is the id. See `Breakpoint` for the options.

        The condition is text, or one of those made by `breakpoints.on_event`, `on_request`,
        `on_node` and `on_block`. Raises `UserError`, with the column, if the text is none.
        """
        condition = self._read(condition)
        added = Breakpoint(next(self._ids), condition, ignore, log_only, temporary)
        self._commands.put(lambda: self._breakpoints.add(added))
        return added.id

    def remove(self, id: int) -> None:
        """An id that is not there goes to ``on_error``, here and below."""
        self.call(lambda: self._breakpoints.remove(id))

    def enable(self, id: int) -> None:
        self.call(lambda: self._breakpoints.enable(id))

    def disable(self, id: int) -> None:
        self.call(lambda: self._breakpoints.disable(id))

    def clear_breakpoints(self) -> None:
        self._commands.put(self._breakpoints.clear)

    def _read(self, condition: str | Condition) -> Condition:
        if self.state is None:
            raise UserError(
                "conditions need the engine's state, and this debugger joined under way without "
                "it; give it one: Debugger(engine, state=…)"
            )
        return parse(condition) if isinstance(condition, str) else condition

    # --- the engine's thread ---------------------------------------------------------------------

    def run(self) -> None:
        """Carry out commands and take steps until closed. Blocks, without polling, while paused."""
        try:
            while not self._closed:
                if self._carry_out_commands():
                    self.on_change()
                elif self.mode is not Mode.PAUSED:
                    self._take_step()
        finally:
            self._unlisten()

    def _carry_out_commands(self) -> bool:
        """Do what was asked, waiting for it as long as no step is due; true if anything was."""
        wait = self._seconds_to_next_step()
        try:
            self._commands.get(block=wait != 0, timeout=wait or None)()
        except Empty:
            return False
        if self._hits:  # a submission or an abort can be one
            self._stop(self._why_hit())
        return True

    def _seconds_to_next_step(self) -> float | None:
        """0: a step is due; None: none is, until a command says so."""
        if self.mode is Mode.PAUSED or self._sleeps:
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
        if not self._hits:  # unless an arrival was one
            self.engine.step()
            self._let_arrive(self.engine.step_count)
            if self.mode is Mode.STEPPING:
                self._steps_left -= 1
        if reason := self._reason_to_stop():
            self._stop(reason)
            self.on_change()

    def _reason_to_stop(self) -> StopReason | None:
        if self._hits:
            return self._why_hit()
        if self.idle and not self._sleeps:
            return StopReason.IDLE
        if self.mode is Mode.STEPPING and not self._steps_left:
            return StopReason.STEP
        return None

    @property
    def _sleeps(self) -> bool:
        """Out of work, and yet not to stop: the next request goes on at once."""
        return self.idle and self.mode is Mode.PLAYING and not self.stops_when_idle

    def _why_hit(self) -> StopReason:
        by_until = self._until is not None and self._hits[0].breakpoint == self._until.id
        return StopReason.UNTIL if by_until else StopReason.BREAKPOINT

    def _follow(self, record: StepRecord) -> None:
        """Keep ``state`` up to date and note what fires; this is called inside of the step."""
        assert self.state
        self._hits += self._breakpoints.check(record, self.state)

    def _let_arrive(self, step: int) -> None:
        """Submit the arrivals due by ``step``."""
        while self._arrivals and self._arrivals[0].at_step <= step:
            arrival = self._arrivals.pop(0)
            self._try(lambda a=arrival: self.engine.submit(a.prompt, a.params, priority=a.priority))

    def _play(self, rate: float | None) -> None:
        self.mode, self.rate = Mode.PLAYING, rate
        self._next_at = time.monotonic()

    def _stop(self, reason: StopReason) -> None:
        until = self._until.condition.text if self._until else ""
        stopped = Stopped(reason, self.engine.step_count, tuple(self._hits), until)
        self.stops = (*self.stops[1 - RETAIN_STOPS :], stopped)
        self._forget_until()
        self._hits = []
        self._steps_left = 0
        self.mode = Mode.PAUSED

    def _forget_until(self) -> None:
        if self._until in self._breakpoints.all:
            self._breakpoints.remove(self._until.id)
        self._until = None

    def _try(self, action: Command) -> None:
        try:
            action()
        except UserError as error:
            self.on_error(str(error))
        except Exception as error:  # one bad command must not end the loop
            self.on_error(f"{type(error).__name__}: {error}")
