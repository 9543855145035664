"""Making a directory all at once: nobody ever sees it half made.

Work happens in a hidden ``.partial-*`` directory beside the target, which is renamed when done. A
lock per target, which the system drops when its holder dies in whatever way, makes a second process
wait and then find the work done, and tells that any partial directory still lying there is stale.
"""

import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

PARTIAL = ".partial-"
Progress = Callable[[str, float | None], None]
"""``progress(stage, fraction)``: what is being done, and 0 to 1 or None where nobody can know."""


def build_directory(
    target: Path,
    make: Callable[[Path], None],
    progress: Progress,
    is_whole: Callable[[Path], bool] = Path.is_dir,
) -> Path:
    """``target``, made by ``make(partial_directory)`` unless it is there and ``is_whole``.

    A damaged target is replaced once the new one is finished. Whatever ``make`` raises passes
    through, and leaves everything as it was.
    """
    if is_whole(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target, progress):
        if is_whole(target):  # made by the process we waited for
            return target
        prefix = f"{PARTIAL}{target.name}-"
        for stale in target.parent.glob(f"{glob.escape(prefix)}*"):
            shutil.rmtree(stale, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
        aside = partial.with_name(f"{partial.name}x")
        try:
            make(partial)
            partial.chmod(0o755)  # mkdtemp makes it private
            if os.path.lexists(target):
                progress(f"replacing {target.name}, which was damaged", None)
                target.rename(aside)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            if aside.is_symlink():
                aside.unlink()  # never what it points to
            shutil.rmtree(aside, ignore_errors=True)
    return target


def remove_stale(parent: Path) -> None:
    """Remove the partial directories in ``parent`` whose makers are dead."""
    for partial in parent.glob(f"{PARTIAL}*"):
        name = partial.name.removeprefix(PARTIAL).rpartition("-")[0]
        lock = _lock_of(parent / name)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue  # its maker is alive and at work
        try:
            shutil.rmtree(partial, ignore_errors=True)
        finally:
            lock.release()


@contextmanager
def _locked(target: Path, progress: Progress) -> Iterator[None]:
    """Hold the lock of ``target``; says so when it has to wait."""
    lock = _lock_of(target)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress(f"waiting for another process that prepares {target.name}", None)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _lock_of(target: Path) -> FileLock:
    return FileLock(target.parent / f".lock-{target.name}")
