"""What sources have in common that run a `Debugger` in a thread of their own."""

import threading
from abc import ABC, abstractmethod

from ...engine.debugger import Debugger
from ...engine.errors import UserError
from ...engine.events import Position
from ..crash import write_log
from .base import Failed, Sink


class Debugged(ABC):
    """Hands the switches on to the debugger, once there is one, until closed.

    ``thread_name`` is what the thread is called. A ``daemon`` may be cut off in whatever it does.
    """

    thread_name: str
    daemon = False

    def __init__(self) -> None:
        self._debugger: Debugger | None = None
        self._sink: Sink | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    @abstractmethod
    def _run(self, sink: Sink) -> None:
        """Open what is watched, set ``_debugger`` and run it. Called in the thread."""

    def start(self, sink: Sink) -> None:
        self._sink = sink
        self._thread = threading.Thread(
            target=self._work, name=self.thread_name, daemon=self.daemon
        )
        self._thread.start()

    # --- switches --------------------------------------------------------------------------------

    def step(self, count: int = 1) -> None:
        if self._debugger:
            self._debugger.step(count)

    def play(self, rate: float | None = None) -> None:
        if self._debugger:
            self._debugger.play(rate)

    def pause(self) -> None:
        if self._debugger:
            self._debugger.pause()

    def until(self, condition: str, rate: float | None = None) -> None:
        if self._debugger:
            self._debugger.until(condition, rate)

    def read_to(self, position: Position) -> None:
        raise UserError("this is no recording: everything that has happened is known")

    def add_breakpoint(self, condition: str, ignore: int = 0, log_only: bool = False) -> int:
        if not self._debugger:
            raise UserError("this is still being loaded; set the breakpoint when it is there")
        return self._debugger.add_breakpoint(condition, ignore=ignore, log_only=log_only)

    def remove_breakpoint(self, id: int) -> None:
        if self._debugger:
            self._debugger.remove(id)

    def enable_breakpoint(self, id: int, on: bool) -> None:
        if self._debugger:
            (self._debugger.enable if on else self._debugger.disable)(id)

    def close(self) -> None:
        self._closed = True
        if self._debugger:
            self._debugger.close()

    def wait(self, seconds: float | None) -> bool:
        if self._thread:
            self._thread.join(seconds)
            return not self._thread.is_alive()
        return True

    # --- the thread ------------------------------------------------------------------------------

    def _work(self) -> None:
        sink = self._sink
        assert sink is not None
        try:
            self._run(sink)
        except UserError as error:
            sink.put(Failed(str(error)))
        except Exception as error:
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            sink.put(Failed(text, write_log(error)))
