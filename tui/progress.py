"""How far a long command is, on stderr: it keeps out of the way of what is printed."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ShowProgress = Callable[[str, float | None], None]


def print_progress() -> ShowProgress:
    """One line on stderr: rewritten on a terminal, one a stage elsewhere. The stage ``""`` is the
    end, and leaves nothing on a terminal."""
    last = ""

    def show(stage: str, fraction: float | None) -> None:
        nonlocal last
        if sys.stderr.isatty():
            percent = "" if fraction is None else f" {fraction:4.0%}"
            print(f"\r\x1b[K{stage}{percent}", end="", file=sys.stderr, flush=True)
        elif stage and stage != last:
            print(stage, file=sys.stderr, flush=True)
        last = stage

    return show


@contextmanager
def progress_bar() -> Iterator[ShowProgress]:
    """A bar with the stage and the time on a terminal, gone at the end; one line a stage elsewhere.

    Drawn twice a second, so that it does not take time from what is being measured.
    """
    if not sys.stderr.isatty():
        yield print_progress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, refresh_per_second=2) as bar:
        task = bar.add_task("", total=None)

        def show(stage: str, fraction: float | None) -> None:
            total = None if fraction is None else 1.0
            bar.update(task, description=stage, total=total, completed=fraction or 0.0)

        yield show
