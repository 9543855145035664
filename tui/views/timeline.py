"""The requests timeline: a line a request, a column a step or more, from arrival to end.

All that is known is drawn, whichever step is looked at; what comes after that step is faint.
"""

from bisect import bisect_left
from itertools import groupby

from ...engine.wording import plural
from ..figures import duration
from ..palette import STATUS_GLYPHS
from ..selection import Target
from ..spans import DECODE, IDLE, PREEMPTED, PREFILL, QUEUED, Life
from ..store import Store
from ..text import Line, cell_len, clip, plain, visible
from .base import View

HIT, ENDED = 6, 7  # marks, drawn over the spans
# code: glyph, style, word; the later in this list, the sooner it shows where steps share a column
LEGEND = (
    (QUEUED, "░", "dim", "queued"),
    (IDLE, "·", "warn", "no turn"),
    (DECODE, "█", "decode", "decode"),
    (PREFILL, "▓", "prefill", "prefill"),
    (HIT, "»", "held", "let in, prefix cached"),
    (ENDED, "✓", "good", "finished"),
    (PREEMPTED, "×", "bad", "preempted"),
)
_RANK = {code: rank for rank, (code, *_) in enumerate(LEGEND, 1)}
_LOOKS = [(" ", "text"), *((glyph, style) for _, glyph, style, _ in LEGEND)]
LABEL = len(" #1234 12345 ")
MOST_LEVELS = 12  # levels of zoom
_SHIFT = 8  # columns
_NOBODY = "no request in these steps: press i to send a prompt"


class TimelineView(View):
    name = "Timeline"
    is_of_requests = True
    about = "every request from its arrival to its end: when it waited, was computed, gave way"
    sideways_does = "moves the timeline"
    scale_does = "fewer or more steps in a column"

    def __init__(self) -> None:
        super().__init__()
        self.level = 0  # 2^level steps share a column
        self._back = 0  # columns the window is shifted to the left
        self._lives: list[Life] = []

    def update(self, store: Store, width: int, height: int) -> None:
        self._room = max(8, width - LABEL)
        self._now, self._last = store.state.step, store.steps.last
        self._lay_out(store)
        first = self._left << self.level
        self._lives = store.spans.between(first, ((self._left + self._room) << self.level) - 1)
        each = 1 << self.level
        shown = plural(len(self._lives), "request")
        self.subtitle = f"{shown} · {plural(each, 'step')} a column"
        self.header = self._ruler() if self._lives else [[(_NOBODY, "dim")]]
        self.footer = [[], *legend(width)] if self._lives and height >= 9 else []
        if line := _of_selected(store, width):
            self.footer = [line, *self.footer[1:]]

    def _lay_out(self, store: Store) -> None:
        """The first column: so that the newest step shows, or the one looked at if it is older."""
        newest = (store.steps.last + 1) >> self.level  # the ends of requests are marked there
        oldest = store.steps.first >> self.level
        here = self._now >> self.level
        left = max(oldest, newest - self._room + 1)
        if here < left:
            left = max(oldest, here - self._room // 2)
        if life := _selected(store):  # where it is out of sight, from its arrival on
            ended = self._last if life.ended is None else life.ended
            if not life.arrived >> self.level < left + self._room or ended >> self.level < left:
                left = max(oldest, (life.arrived >> self.level) - 2)
        self._back = max(left - newest, min(self._back, left - oldest))
        self._left = left - self._back

    def _ruler(self, heads: tuple[str, str] = ("req", "hit")) -> list[Line]:
        """The numbers of steps above the columns, and where the step looked at is."""
        numbers, ticks = [" "] * self._room, [" "] * self._room
        for i in range(self._room):
            column = self._left + i
            if column % 10 == 0:
                text = str(column << self.level)
                if i + len(text) <= self._room:  # else it would be cut, and another number
                    numbers[i : i + len(text)] = text
                ticks[i] = "┴"
        here = (self._now >> self.level) - self._left
        label = f"{heads[0]:>6} {heads[1]:>5} "
        above: Line = [(label, "heading"), ("".join(numbers), "dim")]
        below: Line = [(" " * LABEL + "".join(ticks), "faint")]
        if 0 <= here < self._room:
            lead = " " * LABEL + "".join(ticks[:here])
            below = [(lead, "faint"), ("▼", "accent"), ("".join(ticks[here + 1 :]), "faint")]
        return [above, below]

    # --- rows ------------------------------------------------------------------------------------

    @property
    def items(self) -> int:
        return len(self._lives)

    def target(self, item: int) -> Target | None:
        return Target("request", self._lives[item].id) if 0 <= item < self.items else None

    def find(self, anchor: object) -> int | None:
        if not isinstance(anchor, Target):
            return None
        at = bisect_left(self._lives, anchor.id, key=lambda life: life.id)
        return at if at < self.items and self._lives[at].id == anchor.id else None

    def line(self, i: int) -> Line:
        life = self._lives[i]
        cached = str(life.cached) if life.cached else ""
        lead: Line = [(f"{f'#{life.id}':>6} ", "strong"), (f"{cached:>5} ", "held")]
        cut = max(0, (self._now >> self.level) - self._left + 1)
        codes = self._codes(life, self._last)
        later = [(text, "faint") for text, _ in painted(life, codes[cut:])]
        return [*lead, *painted(life, codes[:cut]), *later]

    def _codes(self, life: Life, known: int) -> bytearray:
        """What each column shows, as ranks: 0 where the request is not there, or after the step
        ``known``, the last of its run."""
        level, left, room = self.level, self._left, self._room
        codes = bytearray(room)
        for span in life.spans(left << level, min(((left + room) << level) - 1, known)):
            rank = _RANK[span.kind]
            first, last = (span.start >> level) - left, (span.end >> level) - left
            codes[first + 1 : last] = bytes((rank,)) * (last - first - 1)
            for i in (first, last):
                codes[i] = max(codes[i], rank)
        for step in life.hits:
            self._put(codes, step, _RANK[HIT])
        if life.ended is not None:
            self._put(codes, life.ended + 1, _RANK[ENDED])
        return codes

    def _put(self, codes: bytearray, step: int, rank: int) -> None:
        i = (step >> self.level) - self._left
        if 0 <= i < len(codes):
            codes[i] = max(codes[i], rank)

    # --- moving ----------------------------------------------------------------------------------

    def sideways(self, item: int, by: int) -> int:
        self._back -= by * _SHIFT
        return item

    def scale(self, item: int, by: int) -> int:
        self.level = max(0, min(MOST_LEVELS, self.level - by))
        self._back = 0
        return item


def painted(life: Life, codes: bytearray) -> Line:
    """The columns of a request as glyphs."""
    line: Line = []
    for code, run in groupby(codes):
        glyph, style = _LOOKS[code]
        if code == _RANK[ENDED]:
            glyph, style = STATUS_GLYPHS.get(life.reason, (glyph, style))
        line.append((glyph * sum(1 for _ in run), style))
    return line


def _selected(store: Store) -> Life | None:
    selected = store.selected
    return store.spans.of(selected.id) if selected and selected.kind == "request" else None


def _of_selected(store: Store, width: int) -> Line:
    """The times of the request that is selected, as they are where one looks."""
    selected = store.selected
    if selected is None or selected.kind != "request":
        return []
    slow = store.windows.times_of(selected.id, store.state.stats)
    if slow is None:
        return []
    words = [
        f"{word} {store.guessed}{duration(seconds)}"
        for word, seconds in (
            ("queue", slow.queue),
            ("TTFT", slow.ttft),
            ("max ITL", slow.gap),
            ("so far" if slow.live else "total", slow.total),
        )
        if seconds >= 0
    ]
    request = store.state.requests.get(selected.id)
    if request is not None:
        words.append(plural(len(request.tokens) - request.prompt_len, "token") + " out")
        if request.preemptions:
            words.append(f"preempted {plural(request.preemptions, 'time')}")
        words += [visible(request.name)] if request.name else []
    return [(clip(f"◆ #{selected.id}: {' · '.join(words)}", width), "accent")]


def legend(width: int) -> list[Line]:
    """What the glyphs mean, on as many lines as that takes."""
    lines: list[Line] = [[]]
    for _, glyph, style, word in LEGEND:
        piece: Line = [(glyph, style), (f" {word}   ", "dim")]
        if lines[-1] and cell_len(plain(lines[-1])) + cell_len(plain(piece)) - 3 > width:
            lines.append([])
        lines[-1] += piece
    return lines
