"""What the screens cost: processor time for one record, from the message to the terminal.

The whole application runs, on a driver that takes what would go to the terminal and drops it. The
records are those of a loaded engine that decodes, lets a request in and ends one in every step.
"""

import asyncio
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from textual.drivers.headless_driver import HeadlessDriver
from textual.pilot import Pilot

from ..engine.bench.core import ENDLESS, loaded_engine
from ..engine.bench.measures import Spread
from ..engine.config import EngineConfig
from ..engine.debugger import Mode
from ..engine.engine import Engine
from ..engine.events import StepRecord
from ..engine.fork import Spelling
from ..engine.garbage import collect_seldom
from .app import DebuggerApp
from .sources.base import Codec, ModeChanged, ModelInfo, Ready, Sink
from .store import Store

SIZES = {(80, 24): 10.0, (200, 50): 25.0}  # terminal: ms of processor time a tick may take
_PROMPT = 64  # tokens of a request that comes
_PAINT = 0.04  # seconds that the application gets to draw


class _Drain(HeadlessDriver):
    """A terminal that is written to in full, and shows nothing."""

    written = 0

    @property
    def is_headless(self) -> bool:
        return False

    def write(self, data: str) -> None:
        _Drain.written += len(data)


class _Numbers:
    """A codec for token ids that mean nothing."""

    def decode(self, ids: Any) -> str:
        return " ".join(map(str, ids))

    def token(self, token_id: int) -> str:
        return str(token_id)

    def chat_frame(self) -> tuple[str, str]:
        return "", ""

    def spelling(self) -> Spelling:
        return Spelling({})

    def detokenizer(self, prompt: Any) -> "_Numbers":
        return self

    def feed(self, *tokens: int) -> str:
        return "".join(f" {token}" for token in tokens)


class _Silent:
    """A source that says it is there, and no more; the records come from elsewhere."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config

    def start(self, sink: Sink) -> None:
        codec: Codec = _Numbers()
        sink.put(Ready(self._config, ModelInfo("bench"), codec))
        sink.put(ModeChanged(Mode.PLAYING, None, False))

    def close(self) -> None: ...

    def wait(self, seconds: float | None) -> bool:
        return True

    def why_not(self, verb: str) -> str:
        return "this is a benchmark"


class _Measured(DebuggerApp):
    """Leaves signals to the benchmark, which would wait for an app that has left."""

    def _heed_signals(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Ticks:
    """Milliseconds of processor time with one pane active: the medians of the three parts, how all
    of them together lie, and the mean of what other threads did meanwhile (the history writes its
    snapshots in one)."""

    size: str
    pane: str
    apply: float
    sync: float
    paint: float
    total: Spread
    beside: float
    target: float


class Load:
    """A loaded engine, and its records as they come."""

    def __init__(self, running: int, nodes: int, blocks: int) -> None:
        self.records: list[StepRecord] = []
        self.engine: Engine = loaded_engine(running, nodes, blocks, self.records.append)
        self._rng = random.Random(7)
        self._heads = [[i, *self._ids(31)] for i in range(8)]
        self._oldest = 0

    def step(self) -> list[StepRecord]:
        """One request comes, one goes, all others decode a token."""
        engine, before = self.engine, len(self.records)
        live = sorted(engine.requests)
        engine.abort(live[len(live) // 2])
        engine.submit([*self._rng.choice(self._heads), *self._ids(_PROMPT)], ENDLESS)
        engine.step()
        return self.records[before:]

    def _ids(self, count: int) -> list[int]:
        return [self._rng.randrange(1 << 16) for _ in range(count)]


def measure(
    running: int = 1000,
    nodes: int = 10_000,
    blocks: int = 100_000,
    ticks: int = 100,
    progress: Callable[[str], None] = lambda stage: None,
) -> list[Ticks]:
    """The `Ticks` of every pane at every size."""
    progress(f"{running} requests, {nodes} nodes, {blocks} blocks")
    os.environ["COLORTERM"] = "truecolor"  # as most terminals say: colours are written in full
    collect_seldom()  # as `DebuggerApp.run` does
    load = Load(running, nodes, blocks)
    found: list[Ticks] = []
    for size in SIZES:
        found += asyncio.run(_at_size(load, size, ticks, progress))
    return found


def show(found: list[Ticks]) -> str:
    """A table, with the targets beside the figures."""
    lines = [
        "ms of processor time a tick of one step: medians of taking records in, working out what",
        f"shows, and painting; all of it in {found[0].total.count} ticks; beside: other threads",
        f"{'':21} {'apply':>6} {'sync':>6} {'paint':>6} {Spread.heads()} {'beside':>7}",
    ]
    for t in found:
        parts = " ".join(f"{part:6.2f}" for part in (t.apply, t.sync, t.paint))
        figures = f"{parts} {t.total.cells()} {t.beside:7.2f}"
        lines.append(f"{t.size:8} {t.pane:12} {figures}  {t.total.verdict(t.target)}")
    return "\n".join(lines)


async def _at_size(
    load: Load, size: tuple[int, int], ticks: int, progress: Callable[[str], None]
) -> list[Ticks]:
    app = _Measured(_Silent(load.engine.config))  # pyright: ignore[reportArgumentType]
    app.driver_class = _Drain
    found: list[Ticks] = []
    async with app.run_test(headless=False, size=size) as pilot:
        while app.main is None or app.store is None or not app.main.is_current:
            await pilot.pause(0.05)
        for record in load.records:
            app.store.apply(record)
        for number, pane in app.main.panes.items():
            progress(f"{size[0]}×{size[1]}, {pane.view.name}")
            app.main.action_pane(number)
            await pilot.pause(0.2)
            parts = [await _tick(app, pilot, app.store, load) for _ in range(ticks + 2)][2:]
            apply, sync, paint, beside = zip(*parts, strict=True)
            found.append(
                Ticks(
                    size=f"{size[0]}×{size[1]}",
                    pane=pane.view.name,
                    apply=median(apply),
                    sync=median(sync),
                    paint=median(paint),
                    total=Spread.of([sum(part[:3]) for part in parts]),
                    beside=mean(beside),
                    target=SIZES[size],
                )
            )
        app.exit()
    return found


async def _tick(
    app: DebuggerApp, pilot: Pilot[None], store: Store, load: Load
) -> tuple[float, float, float, float]:
    """Milliseconds to take one step's records in, to work out what shows, and to paint it; and
    those of other threads."""
    records = load.step()
    await asyncio.sleep(0)
    all_began, began = time.process_time(), time.thread_time()
    for record in records:
        store.apply(record)
    applied = time.thread_time()
    assert app.main is not None
    store.settle()
    app.main.sync()
    synced = time.thread_time()
    written = _Drain.written
    await asyncio.sleep(_PAINT)
    while _Drain.written == written:
        await asyncio.sleep(_PAINT)
    painted = time.thread_time()
    beside = time.process_time() - all_began - (painted - began)
    parts = applied - began, synced - applied, painted - synced, max(0.0, beside)
    return tuple(1e3 * seconds for seconds in parts)  # pyright: ignore[reportReturnType]
