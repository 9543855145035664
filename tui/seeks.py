"""What going through a recording costs: processor time until the picture of a position is there.

A long run is recorded and opened as `replay` does; then the screens' store looks at positions in
it. Drawing comes on top, at what `ticks.py` measures for it.
"""

import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..engine.bench.busy import Busy
from ..engine.bench.measures import Spread
from ..engine.events import Position
from ..engine.garbage import collect_seldom
from ..engine.trace import Model, RecordTo, new_header
from ..engine.trace_file import Trace
from .sources.recorded import ready
from .store import Store

TARGET = 100.0  # ms of processor time that any position may take
_STRETCH = 100  # steps of the run between two words on progress


@dataclass(frozen=True, slots=True)
class Seeks:
    """Milliseconds of processor time for one way of moving through a recording."""

    steps: int
    running: int
    way: str
    ms: Spread


def measure(
    running: int = 64,
    steps: int = 100_000,
    seeks: int = 200,
    progress: Callable[[str, float | None], None] = lambda stage, done: None,
) -> list[Seeks]:
    """The `Seeks` of every way, over a recording of ``steps`` steps with ``running`` requests."""
    collect_seldom()  # as `DebuggerApp.run` does
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.mtrace"
        _record(path, running, steps, progress)
        progress("opening", None)
        trace = Trace.open(path)
        try:
            opened = ready(trace)
            store = Store(opened.config, opened.info, opened.codec, opened.recording)
            found: list[Seeks] = []
            for way, positions in _ways(store).items():
                progress(way, None)
                took = [_timed(store, next(positions)) for _ in range(seeks)]
                found.append(Seeks(steps, running, way, Spread.of(took)))
            return found
        finally:
            trace.close()


def show(found: list[Seeks]) -> str:
    """A table, with the target beside the figures."""
    first = found[0]
    lines = [
        f"ms of processor time to look at a position of {first.steps:,} steps, {first.running} "
        "requests at a time",
        f"{'':14} {Spread.heads()}",
    ]
    lines += [f"{one.way:14} {one.ms.cells()}  {one.ms.verdict(TARGET)}" for one in found]
    return "\n".join(lines)


def _record(
    path: Path, running: int, steps: int, progress: Callable[[str, float | None], None]
) -> None:
    busy = Busy(running)
    header = new_header(busy.config, Model("none"), busy.clock(), None)
    with RecordTo(path).open(header, None, lambda message: None) as writer:
        busy.engine.log.listen(lambda record: writer.write(record, busy.state))
        for done in range(0, steps, _STRETCH):
            progress(f"recording {steps:,} steps", done / steps)
            busy.steps(min(_STRETCH, steps - done))


def _ways(store: Store) -> dict[str, Iterator[Position]]:
    """Positions without end for each way of moving."""
    return {
        "anywhere": _anywhere(store),
        "a step back": _back(store, store.past.step_before),
        "an event back": _back(store, store.past.before),
        "a step on": _on(store),
    }


def _anywhere(store: Store) -> Iterator[Position]:
    past, rng = store.past, random.Random(1)
    while True:
        record = rng.randrange(len(past))
        yield past.record(record).position(0)


def _back(store: Store, earlier: Callable[[Position], Position | None]) -> Iterator[Position]:
    while True:
        yield earlier(store.position) or store.past.end


def _on(store: Store) -> Iterator[Position]:
    while True:
        yield store.past.step_after(store.position) or store.past.start


def _timed(store: Store, position: Position) -> float:
    began = time.process_time()
    store.look_at(position)
    return 1e3 * (time.process_time() - began)
