"""The statistics pane: a window of time that ends where one looks, as figures and as sparklines.

What counts and what is measured is `engine/stats.py`'s, what of it lies in the window
`engine/windows.py`'s. The slowest requests of the window can be selected.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import nan

from ...engine.slowest import ORDERS, Slow
from ...engine.windows import Window
from ...engine.wording import plural
from ..actions import key
from ..figures import duration, span, sparkline
from ..selection import Target
from ..store import Store
from ..text import Line, clip, pad, pad_left, visible
from .base import View, glyph_of, heading
from .status import PARTS

WINDOWS: tuple[tuple[str, float | None], ...] = (
    ("10 s", 10),
    ("1 min", 60),
    ("5 min", 300),
    ("all", None),
)
_HEADS = dict(zip(ORDERS, ("TTFT", "max ITL", "queue", "total"), strict=True))
_LABEL, _COLUMN = 18, 9  # cells; where there are fewer, columns give way first
_TIGHT = 8
_LEAST = 8  # cells of a sparkline; narrower ones are left out
_PERCENTILES = ("p50", "p95", "p99", "most")
_MOST_SLOW = 10

_Series = Callable[[], Sequence[float]] | None  # how it went, asked for where there is room


class StatisticsView(View):
    name = "Stats"
    about = "a window of time: traffic, latencies, the slowest requests, cache and step time"
    newest_first = True  # a slower request comes in at the top
    sideways_does = "finds the slowest by another of their times"
    scale_does = "a shorter or a longer window"

    def __init__(self) -> None:
        super().__init__()
        self.order = 0  # of `ORDERS`
        self.chosen = 1  # of `WINDOWS`

    def update(self, store: Store, width: int, height: int) -> None:
        self._store, self._state, self._width = store, store.state, width
        self._column = _COLUMN if width >= _LABEL + 4 * _COLUMN else _TIGHT
        self._values = 4 * self._column
        self._label = min(_LABEL, width - self._values)
        state, label = store.state, WINDOWS[self.chosen][0]
        self.keys = []
        self._lines: list[Callable[[], Line]] = []  # each made when it is drawn
        self.subtitle = f"{f'the last {label}' if self._seconds else label} up to step {state.step}"
        if not state.stats.steps:
            self.header = [
                [(f"nothing is counted yet: press {key('step')} to take the first step", "dim")]
            ]
            return
        window = store.windows.window(state.stats, self._seconds)
        self.header = [self._choice(window)]
        if store.guessed:
            words = f"~ from step {store.guesses_from} on times are estimated, and with them rates"
            self.header.append([(clip(words, width), "warn")])
        if window is None:
            self.header.append([(clip(_unknown(store), width), "warn")])
            return
        room = width - self._label - self._values - 2
        self._window = window
        self._course = store.windows.course(window, state, room) if room >= _LEAST else None
        self._traffic()
        self._latencies()
        self._slowest(max(2, min(_MOST_SLOW, height - 9)))
        self._counts()
        self._cache()
        self._step_time()
        self.keys = [*self.keys, *[None] * (len(self._lines) - len(self.keys))]

    def line(self, i: int) -> Line:
        return self._lines[i]()

    # --- choosing --------------------------------------------------------------------------------

    @property
    def _seconds(self) -> float | None:
        return WINDOWS[self.chosen][1]

    def scale(self, item: int, by: int) -> int:
        self.chosen = max(0, min(len(WINDOWS) - 1, self.chosen - by))
        return item

    def sideways(self, item: int, by: int) -> int:
        self.order = (self.order + by) % len(ORDERS)
        return item

    def _choice(self, window: Window | None) -> Line:
        """The windows there are; and where the one in use is shorter, how much of it there is."""
        line: Line = []
        for number, (label, _) in enumerate(WINDOWS):
            mine = number == self.chosen
            line.append((f"[{label}]" if mine else f" {label} ", "accent" if mine else "dim"))
        closer, farther = key("scale-1"), key("scale--1")
        words = f"  {closer} {farther} choose"
        if window and self._seconds and window.seconds < self._seconds:
            words = f"  {span(window.seconds)} so far{words}"
        elif window and self._seconds is None:
            estimated = self._store.windows.estimates(window, self._state.stats)
            how = ", percentiles estimated" if estimated else ""
            words = f"  {span(window.seconds)}{how}{words}"
        used = sum(len(text) for text, _ in line)
        return [*line, (clip(words, self._width - used), "dim")]

    # --- parts -----------------------------------------------------------------------------------

    def _traffic(self) -> None:
        """What matters most, on two lines."""
        requests = [f"in {self._rate('submitted')}", f"done {self._rate('ended')}"]
        for name in ("failed", "preempted"):
            if count := self._count(name):
                requests.append(f"{count:,} {name}")
        self._row("requests", " · ".join(requests), self._counted("ended"))
        tokens = [f"in {self._rate('prompt')}", f"out {self._rate('sampled')}"]
        if prompt := self._count("prompt"):
            tokens.append(f"{self._count('hit') / prompt:.0%} cached")
        self._row("tokens", " · ".join(tokens), self._counted("sampled"))

    def _latencies(self) -> None:
        self._title("times", _PERCENTILES)
        self._times("TTFT", "ttft")
        self._times("ITL", "itl")
        self._times("queue", "queue")
        self._times("total", "e2e")

    def _slowest(self, most: int) -> None:
        by = ORDERS[self.order]
        slowest = self._store.windows.slowest(self._window, self._state.stats, by, most)
        self._title("slowest", tuple(_HEADS.values()), self.order)
        above = [None] * len(self._lines)
        self.keys = [*above, *(Target("request", slow.req) for slow in slowest)]
        self._lines += [partial(self._slow, slow, by) for slow in slowest]
        if not slowest:
            nothing: Line = [(" nothing of this kind was measured in the window", "dim")]
            self._lines.append(lambda: nothing)

    def _slow(self, slow: Slow, by: str) -> Line:
        request = self._state.requests.get(slow.req)
        glyph, style, how, name = "·", "dim", "ended", ""
        if request is not None:
            glyph, style = glyph_of(request)
            how, name = request.finish_reason or request.status.value, visible(request.name)
        number = f" #{slow.req} "
        line: Line = [(number, "strong"), (pad(f"{glyph} {how}", self._label - len(number)), style)]
        for order in ORDERS:
            seconds = getattr(slow, order)
            text = duration(seconds) if seconds >= 0 else "–"
            line.append((pad_left(text, self._column), "text" if order == by else "dim"))
        return [*line, ("  " + clip(name, self._width - self._label - self._values - 2), "dim")]

    def _counts(self) -> None:
        count, state = self._count, self._state
        words = f"in these {span(self._window.seconds)}"
        self._lines.append(partial(heading, words, self._width))
        for label, name in (
            ("requests in", "submitted"),
            ("requests done", "ended"),
            ("tokens in", "prompt"),
            ("tokens out", "sampled"),
        ):
            self._row(label, f"{self._rate(name)}, {count(name):,}", self._counted(name))
        for name in ("failed", "aborted"):
            if count(name):
                self._row(name, plural(count(name), "request"), self._counted(name))
        lost = f", {count('lost'):,} tokens let go" if count("preempted") else ""
        self._row("preemptions", f"{count('preempted'):,}{lost}", self._counted("preempted"))
        for why, times in sorted(state.stats.deferred.items()):
            self._row("deferred", f"{plural(times, 'time')} in all: {why.replace('_', ' ')}")
        if failed := count("failed_steps"):
            self._row("failed steps", f"{failed:,}", self._counted("failed_steps"))
        self._row("running", f"{len(state.running):,} now", self._gauge("running"))
        self._row("waiting", f"{len(state.waiting):,} now", self._gauge("waiting"))

    def _cache(self) -> None:
        state, stats = self._state, self._state.stats
        self._lines.append(partial(heading, "prefix cache and KV blocks", self._width))
        prompt, hit = self._count("prompt"), self._count("hit")
        hits = f"{hit / prompt:.0%}, {hit:,} of {prompt:,} tokens" if prompt else "no prompt"
        self._row("prompts cached", hits, self._counted("hit"))
        total = state.config.num_blocks
        held = total - state.free - state.evictable
        for label, blocks, gauge in (
            ("used", held, "held"),
            ("evictable", state.evictable, "cached"),
            ("free", state.free, ""),
        ):
            series = self._gauge(gauge) if gauge else None
            self._row(label, f"{blocks:,} of {total:,} blocks, {blocks / total:.0%}", series, total)
        evicted = plural(self._count("evicted"), "block")
        self._row("evicted", evicted, self._counted("evicted"))
        waste = f"{stats.fragmentation:.0%} of what is held, {plural(stats.tail_slots, 'slot')}"
        self._row("empty block ends", waste)

    def _step_time(self) -> None:
        state = self._state
        self._title("step time", _PERCENTILES)
        self._times("whole step", "step_time")
        for part in PARTS:
            if part in state.timings and state.step_seconds:
                seconds = state.timings[part]
                share = f"{seconds / state.step_seconds:.0%} of the last step"
                self._row(f"  {part}", f"{pad_left(duration(seconds), self._column - 1)}  {share}")

    # --- figures ---------------------------------------------------------------------------------

    def _count(self, name: str) -> int:
        return self._store.windows.counted(self._window, self._state.stats, name)

    def _rate(self, name: str) -> str:
        seconds = self._window.seconds
        rate = self._count(name) / seconds if seconds > 0 else 0.0
        if 0 < rate < 1:
            return f"{60 * rate:.1f}/min"
        return f"{rate:,.1f}/s" if rate < 100 else f"{rate:,.0f}/s"

    def _counted(self, name: str) -> _Series:
        return partial(self._course.counted, name) if self._course else None

    def _gauge(self, name: str) -> _Series:
        return partial(self._course.gauge, name) if self._course else None

    # --- lines -----------------------------------------------------------------------------------

    def _title(self, text: str, columns: Sequence[str], chosen: int = -1) -> None:
        self._lines.append(partial(self._title_line, text, columns, chosen))

    def _times(self, label: str, name: str) -> None:
        self._lines.append(partial(self._times_line, label, name))

    def _row(self, label: str, value: str, series: _Series = None, most: float = 0) -> None:
        self._lines.append(partial(self._row_line, label, value, series, most))

    def _title_line(self, text: str, columns: Sequence[str], chosen: int) -> Line:
        title = f"── {text} {self._store.guessed}".rstrip()
        line: Line = [(pad(f"{title} ", self._label), "dim")]
        for number, column in enumerate(columns):
            style = "accent" if number == chosen else "heading"
            line.append((pad_left(column, self._column), style))
        rest = self._width - self._label - self._values - 1
        return [*line, (" " + "─" * rest, "faint")]

    def _times_line(self, label: str, name: str) -> Line:
        times = self._store.windows.times(self._window, self._state.stats, name)
        values = "  no longer kept"
        if times is not None:
            found = (times.p50, times.p95, times.p99, times.most) if times.samples else (nan,)
            values = "".join(pad_left(duration(seconds), self._column) for seconds in found)
        line: Line = [(pad(f" {label}", self._label), "dim"), (pad(values, self._values), "text")]
        if self._course:
            line.append(("  " + sparkline(self._course.mean(name)), "decode"))
        return line

    def _row_line(self, label: str, value: str, series: _Series, most: float) -> Line:
        line: Line = [(pad(f" {label}", self._label), "dim")]
        if series:
            line += [
                (pad(f" {value}", self._values), "text"),
                ("  " + sparkline(series(), most), "decode"),
            ]
        else:
            line.append((clip(f" {value}", self._width - self._label), "text"))
        return line


def _unknown(store: Store) -> str:
    if store.position > store.newest:
        return f"the recording is being read, as far as {store.newest} by now"
    return "the times of so long ago are no longer kept: only those of all the run are known here"
