"""The files of sessions that nobody has asked to be recorded, for when one ends without a farewell.

Each is locked by the program that writes it and removed when its user leaves. One that is there and
not locked is what a dead terminal, a crash or a kill has left: a recording, up to that moment. The
next session tells of it, once, and `replay --last` opens it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import platformdirs

from ..engine.errors import UserError
from ..engine.kept import KeptHistory
from .sources.base import Ready

try:
    import fcntl
except ImportError:  # without locks nobody could tell which sessions go on: none is kept
    fcntl = None

KEEP = 5  # sessions that ended so; older ones are removed …
KEEP_BYTES = 2 << 30  # … and more of them if they are longer, but never the last
_NEW, _TOLD = "session-", "kept-"  # what names begin with; a time and a process id follow


class SessionFile:
    """The file of this session: none until `history`, and none if it cannot be made.

    ``found`` says what an earlier session has left, if that was not told before.
    """

    def __init__(self) -> None:
        self.found = ""
        self.problem = ""
        self._path: Path | None = None
        self._history: KeptHistory | None = None
        with suppress(OSError), _alone():
            self.found = _tell(_left())
            _forget(_left())

    def history(self, ready: Ready) -> KeptHistory | None:
        """The record of the session that begins with ``ready``; None if it cannot be kept."""
        if ready.header is None or fcntl is None:
            return None
        try:
            with _alone():
                self._path, file = _create()
            self._history = KeptHistory(ready.header, file, ready.speller)
        except OSError as error:
            self.problem = f"this session is kept nowhere, should it be cut off: {error}"
        return self._history

    def leave(self) -> None:
        """Its user has left: nothing is kept."""
        if self._path:
            self._path.unlink(missing_ok=True)

    def keep(self) -> str:
        """It ends otherwise. Gives the line that says how to open it; empty if there is nothing."""
        if self._path is None or self._history is None:
            return ""
        self._history.finish()
        return f"the session is kept: minisgl-tui replay --last ({self._path})"


def last() -> Path:
    """The last session that ended without a farewell. Raises `UserError` if none is kept."""
    try:
        with _alone():
            left = _left()
    except OSError:
        left = []
    if not left:
        raise UserError(
            f"--last: no session is kept in {_folder()}; give the FILE of a recording instead"
        )
    return left[-1]


def _folder() -> Path:
    return Path(platformdirs.user_state_dir("minisgl-tui")) / "sessions"


@contextmanager
def _alone() -> Iterator[None]:
    """No other program makes, locks or removes sessions meanwhile."""
    folder = _folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if fcntl:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _create() -> tuple[Path, BinaryIO]:
    """A new file, locked as long as it is open."""
    assert fcntl
    path = _folder() / f"{_NEW}{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.mtrace"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return path, os.fdopen(descriptor, "w+b")


def _left() -> list[Path]:
    """What ended sessions have left, the oldest first."""
    paths = [p for p in _folder().glob("*.mtrace") if p.name.startswith((_NEW, _TOLD))]
    return sorted(filter(_is_free, paths), key=lambda path: path.name.partition("-")[2])


def _is_free(path: Path) -> bool:
    """Whether nobody writes it any more."""
    if fcntl is None:
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def _tell(left: list[Path]) -> str:
    """A line about the last of those not told of yet."""
    new = [path for path in left if path.name.startswith(_NEW)]
    if not new:
        return ""
    at = datetime.fromtimestamp(new[-1].stat().st_mtime)
    for path in new:
        path.rename(path.with_name(_TOLD + path.name.removeprefix(_NEW)))
    return f"a session was cut off at {at:%H:%M on %d %B}: minisgl-tui replay --last opens it"


def _forget(left: list[Path]) -> None:
    """Remove what is too old, or too much."""
    size = 0
    for age, path in enumerate(reversed(left)):
        size += path.stat().st_size
        if age and (age >= KEEP or size > KEEP_BYTES):
            path.unlink()
