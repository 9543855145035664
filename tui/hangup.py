"""The terminal may die before the program does: its window is closed, its connection is cut.

What is then still written goes nowhere, so that neither the engine nor a recording is torn down in
the middle of what it does.
"""

import os
from contextlib import suppress
from typing import IO, Any

from textual.driver import Driver


class _Forgiving:
    """A terminal's file whose writes are lost, instead of failing, once the terminal is gone."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        try:
            return self._file.write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def forgiving(driver: type[Driver]) -> type[Driver]:
    """``driver``, but its terminal may go away: else the thread that writes to it dies, and what
    waits for that thread waits for ever."""

    class Forgiving(driver):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            file = getattr(self, "_file", None)
            if file is not None:
                self._file = _Forgiving(file)

    return Forgiving


def leave_terminal() -> None:
    """Have standard input and output lead nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.close(nowhere)
