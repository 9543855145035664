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
from statistics import median
from typing import Any

from textual.drivers.headless_driver import HeadlessDriver
from textual.pilot import Pilot

from ..engine.bench.core import ENDLESS, loaded_engine
from ..engine.config import EngineConfig
from ..engine.debugger import Mode
from ..engine.engine import Engine
from ..engine.events import StepRecord
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


@dataclass(frozen=True, slots=True)
class Ticks:
    """Milliseconds of processor time with one pane active; medians of the three parts, and of all
    together also the 95th percentile."""

    size: str
    pane: str
    apply: float
    sync: float
    paint: float
    total: float
    p95: float
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
    ticks: int = 20,
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
        "ms of processor time a tick of one step: records taken in, what shows worked out, painted",
        f"{'size':8} {'pane':12} {'apply':>7} {'sync':>7} {'paint':>7} {'total':>7} {'p95':>7}",
    ]
    for t in found:
        verdict = f"  over {t.target:g}" if t.total > t.target else f"  (< {t.target:g})"
        parts = (t.apply, t.sync, t.paint, t.total, t.p95)
        figures = " ".join(f"{part:7.2f}" for part in parts)
        lines.append(f"{t.size:8} {t.pane:12} {figures}{verdict}")
    return "\n".join(lines)


async def _at_size(
    load: Load, size: tuple[int, int], ticks: int, progress: Callable[[str], None]
) -> list[Ticks]:
    app = DebuggerApp(_Silent(load.engine.config))  # pyright: ignore[reportArgumentType]
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
            apply, sync, paint = (1e3 * median(part) for part in zip(*parts, strict=True))
            totals = sorted(1e3 * sum(part) for part in parts)
            total, p95 = median(totals), totals[int(0.95 * len(totals))]
            name, target = f"{size[0]}×{size[1]}", SIZES[size]
            found.append(Ticks(name, pane.view.name, apply, sync, paint, total, p95, target))
        app.exit()
    return found


async def _tick(
    app: DebuggerApp, pilot: Pilot[None], store: Store, load: Load
) -> tuple[float, float, float]:
    """Seconds to take one step's records in, to work out what shows, and to paint it."""
    records = load.step()
    await asyncio.sleep(0)
    began = time.process_time()
    for record in records:
        store.apply(record)
    applied = time.process_time()
    assert app.main is not None
    store.settle()
    app.main.sync()
    synced = time.process_time()
    written = _Drain.written
    await asyncio.sleep(_PAINT)
    while _Drain.written == written:
        await asyncio.sleep(_PAINT)
    return applied - began, synced - applied, time.process_time() - synced
