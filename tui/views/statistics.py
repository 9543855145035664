"""The statistics pane: what was counted up to the step looked at, and the last steps as sparklines.

Totals, rates and percentiles come from `EngineState.stats`, what each step did from `StepSeries`.
"""

from math import isnan

from ...engine.state import EngineState
from ...engine.stats import Histogram
from ..actions import key
from ..steps import NO_TIME, PARTS
from ..store import Store
from ..text import Line, clip, pad, pad_left, plural
from .base import View, heading

BARS = " ▁▂▃▄▅▆▇█"
_LABEL = 18
_VALUES = 34
_LEAST = 8  # cells of a sparkline; narrower ones are left out


class StatisticsView(View):
    name = "Stats"
    about = "throughput, latencies, cache and step time so far"

    def update(self, store: Store, width: int, height: int) -> None:
        self._store, self._width = store, width
        self._room = width - _LABEL - _VALUES - 2
        if self._room < _LEAST:
            self._room = 0
        state = store.state
        self.keys = []
        self._lines: list[Line] = []
        self.subtitle = f"up to step {state.step}"
        if not state.stats.steps:
            self.header = [
                [(f"nothing is counted yet: press {key('step')} to take the first step", "dim")]
            ]
            return
        self.header = []
        self._throughput(state)
        self._latencies(state)
        self._cache(state)
        self._scheduling(state)
        self._step_time(state)
        self.keys = [None] * len(self._lines)

    def line(self, i: int) -> Line:
        return self._lines[i]

    # --- parts -----------------------------------------------------------------------------------

    def _throughput(self, state: EngineState) -> None:
        stats = state.stats
        since = stats.now if stats.started_at is None else stats.started_at
        self._title("throughput, rates over the last 10 s")
        for label, rate, total, series in (
            ("tokens out", stats.sampled_rate, stats.sampled_tokens, "sampled"),
            ("prompt tokens in", stats.prefill_rate, stats.prefill_tokens, "prefill"),
            ("requests done", stats.finished_rate, sum(stats.finished.values()), "finished"),
        ):
            per_second = rate.per_second(stats.now, since)
            self._row(label, f"{per_second:,.1f} a second, {total:,} in all", series)
        self._row("running", f"{len(state.running):,}", "running")
        self._row("waiting", f"{len(state.waiting):,}", "waiting")

    def _latencies(self, state: EngineState) -> None:
        stats = state.stats
        columns = "".join(f"{name:>8}" for name in ("p50", "p95", "p99", "most"))
        self._title("times", columns)
        for label, histogram, series in (
            ("in the queue", stats.queue, "queue"),
            ("to first token", stats.ttft, "ttft"),
            ("between tokens", stats.itl, "itl"),
            ("whole request", stats.e2e, ""),
        ):
            self._row(label, _percentiles(histogram), series)

    def _cache(self, state: EngineState) -> None:
        stats = state.stats
        self._title("prefix cache and KV blocks")
        hits = f"{stats.hit_rate:.0%}, {stats.cached_tokens:,} of {stats.prompt_tokens:,} tokens"
        self._row("prompts cached", hits if stats.prompt_tokens else "no prompt yet", "hit")
        total = state.config.num_blocks
        held = total - state.free - state.evictable
        for label, count, series in (
            ("held", held, "held"),
            ("cached", state.evictable, "cached"),
            ("free", state.free, ""),
        ):
            self._row(label, f"{count:,} of {total:,} blocks, {count / total:.0%}", series, total)
        self._row("evicted", plural(stats.evicted_blocks, "block"), "evicted")
        waste = f"{stats.fragmentation:.0%} of what is held, {plural(stats.tail_slots, 'slot')}"
        self._row("empty block ends", waste, "")

    def _scheduling(self, state: EngineState) -> None:
        stats = state.stats
        self._title("scheduling")
        lost = f", {stats.lost_tokens:,} tokens let go" if stats.preemptions else ""
        self._row("preemptions", f"{stats.preemptions:,}{lost}", "preempted")
        for why, times in sorted(stats.deferred.items()):
            words = why.replace("_", " ")
            self._row("deferred", f"{plural(times, 'time')}: {words}", "")
        if stats.failed_steps:
            self._row("failed steps", f"{stats.failed_steps:,}", "failed")

    def _step_time(self, state: EngineState) -> None:
        columns = "".join(f"{name:>8}" for name in ("p50", "p95", "p99", "most"))
        self._title("step time", columns)
        self._row("whole step", _percentiles(state.stats.step_time), "seconds")
        for part in PARTS:
            if part in state.timings and state.step_seconds:
                seconds = state.timings[part]
                share = f"{seconds / state.step_seconds:.0%} of the last step"
                self._row(f"  {part}", f"{duration(seconds):>8}  {share}", part)

    # --- lines -----------------------------------------------------------------------------------

    def _title(self, text: str, values: str = "") -> None:
        if values:
            lead = pad(f"── {text} ", _LABEL)
            rest = "─" * (self._width - _LABEL - len(values) - 2)
            values = clip(f" {values}", self._width - _LABEL)
            self._lines.append([(lead, "dim"), (values, "heading"), (rest and f" {rest}", "faint")])
        else:
            self._lines.append(heading(text, self._width))

    def _row(self, label: str, value: str, series: str, most: float = 0) -> None:
        value = f" {value}"
        value = pad(value, _VALUES) if self._room else clip(value, self._width - _LABEL)
        line: Line = [(pad(f" {label}", _LABEL), "dim"), (value, "text")]
        if series and self._room:
            last = self._store.state.step
            values = self._store.steps.values(series, last - self._room + 1, last)
            line.append(("  " + sparkline(values, most), "decode"))
        self._lines.append(line)


def duration(seconds: float) -> str:
    """
    >>> duration(0.00042), duration(0.0315), duration(12.3456)
    ('0.42 ms', '31.5 ms', '12.3 s')
    """
    if isnan(seconds):
        return "–"
    if seconds < 1:
        ms = seconds * 1e3
        return f"{ms:.2f} ms" if ms < 10 else f"{ms:.1f} ms" if ms < 100 else f"{ms:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 1000 else f"{seconds:.0f} s"


def _percentiles(histogram: Histogram) -> str:
    if not histogram.count:
        return pad_left("none yet", 8)
    values = (*(histogram.quantile(q) for q in (0.5, 0.95, 0.99)), histogram.max)
    return "".join(f"{duration(value):>8}" for value in values)


def sparkline(values: list[float], most: float = 0) -> str:
    """One cell a value, as high as it is beside the largest, or beside ``most``.

    Nothing and no time are blanks; what is not zero is never drawn as if it were.

    >>> sparkline([0, 1, 2, 4, 8])
    ' ▁▂▄█'
    """
    top = max(most, max(values, default=0))
    if top <= 0:
        return " " * len(values)
    return "".join(
        " " if value in (0, NO_TIME) else BARS[max(1, min(8, round(8 * value / top)))]
        for value in values
    )
