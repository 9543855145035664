"""A fork and the recorded run beside each other: as lines of text, and as plain data."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from ..engine.fork import Figures, Fork
from ..engine.fork.figures import ANSWERED, FAILED, Figure, RequestFigures
from ..engine.wording import plural
from .text import pad
from .views.statistics import duration

MOST = 5  # requests that are told
UNFELT = 1e-3  # seconds; shorter times are not compared
_NAME, _CELL = 32, 12
_SWEPT = {  # figures in the table of several forks, and what stands above them
    "steps": "steps",
    "time": "time",
    "prefill tokens computed": "prefill",
    "prompt tokens cached": "cached",
    "preemptions": "preempted",
    "blocks evicted": "evicted",
    "queue p99": "queue p99",
    "TTFT p50": "TTFT p50",
    "TTFT p99": "TTFT p99",
    "ITL p99": "ITL p99",
}


class Changed(NamedTuple):
    """A request in both runs, whose time differs by so much in the fork."""

    before: RequestFigures
    after: RequestFigures
    seconds: float


def most_changed(before: Figures, after: Figures) -> list[Changed]:
    """Requests whose times differ, the most changed first."""
    pairs = [_changed(a, after.requests[id]) for id, a in before.requests.items()]
    return sorted((p for p in pairs if p.seconds), key=lambda p: (-abs(p.seconds), p.before.id))


def _changed(before: RequestFigures, after: RequestFigures) -> Changed:
    """By the time to its end, or else to what both runs have come to."""
    for a, b in (
        (before.e2e, after.e2e),
        (before.ttft, after.ttft),
        (before.queue, after.queue),
    ):
        if a is not None and b is not None:
            return Changed(before, after, b - a)
    return Changed(before, after, 0.0)


# --- lines ---------------------------------------------------------------------------------------


def comparison(name: str, fork: Fork) -> list[str]:
    """Both runs, a line a figure; then the requests that change most, and the notes."""
    lines = [
        f"{name} from {_place(fork)} on, and a fork with {fork.changes}",
        "",
        f"{'':{_NAME}}{'recorded':>{_CELL}}{'fork':>{_CELL}}",
    ]
    for a, b, verdict in judged(fork):
        line = f"{a.name:{_NAME}}{shown(a):>{_CELL}}{estimated(b, fork):>{_CELL}}"
        lines.append(f"{line}  {verdict}".rstrip())
    changed = most_changed(fork.recorded, fork.figures)
    if changed:
        lines += ["", f"changed most, of {plural(len(changed), 'request')}"]
        lines += [line for pair in changed[:MOST] for line in request_lines(pair, fork)]
    return [*lines, "", *notes(fork)]


def request_lines(pair: Changed, fork: Fork) -> list[str]:
    a, b, _ = pair
    cells = [
        (Figure("TTFT", a.ttft, "s"), Figure("TTFT", b.ttft, "s")),
        (Figure("to its end", a.e2e, "s"), Figure("to its end", b.e2e, "s")),
        (Figure("prompt tokens cached", a.cached), Figure("", b.cached)),
        (Figure("preemptions", a.preemptions), Figure("", b.preemptions)),
    ]
    heads = [f"req {a.id}"] + [""] * len(cells)
    lines = []
    for old, new in cells:
        if old.value != new.value:
            label = f"{heads[len(lines)]:10}{old.name}"
            numbers = f"{shown(old):>{_CELL}}{estimated(new, fork):>{_CELL}}"
            lines.append(f"{label:{_NAME}}{numbers}")
    return lines


def sweep(name: str, forks: Sequence[Fork]) -> list[str]:
    """A row for the recording and one for each fork; then the notes that all of them have."""
    first = forks[0]
    lines = [f"{name} from {_place(first)} on, and {plural(len(forks), 'fork')}", ""]
    rows = [("recorded", [shown(f) for f in first.recorded.all() if f.name in _SWEPT])]
    for fork in forks:
        figures = [f for f in fork.figures.all() if f.name in _SWEPT]
        rows.append((str(fork.changes), [estimated(f, fork) for f in figures]))
    label = max(len(head) for head, _ in rows) + 1
    lines.append(pad("", label) + "".join(f"{head:>10}" for head in _SWEPT.values()))
    for head, cells in rows:
        lines.append(pad(head, label) + "".join(f"{cell:>10}" for cell in cells))
    shared = [note for note in first.notes if all(note in fork.notes for fork in forks)]
    told = []
    estimates = any(fork.diverged is not None for fork in forks)
    if estimates and not any(str(first.costs) in note for note in shared):
        told = [f"~ is estimated: {first.costs}"]
    return [*lines, "", *told, *shared]


def _place(fork: Fork) -> str:
    return "the start" if fork.place == "start" else fork.place


def shown(figure: Figure) -> str:
    """
    >>> shown(Figure("steps", 1234)), shown(Figure("ITL p50", 0.0315, "s"))
    ('1,234', '31.5 ms')
    """
    if figure.value is None:
        return "–"
    if figure.unit == "s":
        return duration(figure.value)
    return f"{figure.value:.1%}" if figure.unit == "%" else f"{figure.value:,.0f}"


def estimated(figure: Figure, fork: Fork) -> str:
    """With a mark if it is not known exactly."""
    guessed = figure.unit == "s" and figure.value is not None and fork.diverged is not None
    return ("~" if guessed else "") + shown(figure)


def judged(fork: Fork) -> Iterator[tuple[Figure, Figure, str]]:
    """Each figure of both runs, by how much it differs and, where that can be said, whether for the
    better: what fewer answers cost says nothing."""
    fewer = _answers_fewer(fork)
    for a, b in zip(fork.recorded.all(), fork.figures.all(), strict=True):
        yield a, b, _verdict(a, b, not fewer or a.name in (ANSWERED, FAILED))


def notes(fork: Fork) -> tuple[str, ...]:
    """What has to be said of the figures."""
    if not _answers_fewer(fork):
        return fork.notes
    return ("The fork answers fewer requests: what it costs less is no gain.", *fork.notes)


def _answers_fewer(fork: Fork) -> bool:
    before, after = ({f.name: f.value or 0 for f in r.all()} for r in (fork.recorded, fork.figures))
    return after[ANSWERED] < before[ANSWERED]


def _verdict(before: Figure, after: Figure, judge: bool) -> str:
    a, b = before.value, after.value
    if a is None or b is None or a == b or (before.unit == "s" and max(a, b) < UNFELT):
        return ""
    if before.unit == "%":
        by = f"{100 * (b - a):+.1f} points"
    elif not a:
        by = f"{b - a:+,.0f}" if before.unit != "s" else ""
    elif abs(b / a - 1) < 0.005:
        return "about the same"
    else:
        by = f"{b / a - 1:+.0%}"
    if not (before.better and judge):
        return by
    return f"{by:14}{'better' if (b - a) * before.better > 0 else 'worse'}"


# --- data ----------------------------------------------------------------------------------------


def as_plain(fork: Fork) -> dict[str, Any]:
    """For programs. Times are seconds, shares 0 to 1; null where there are no samples."""
    pairs = zip(fork.recorded.all(), fork.figures.all(), strict=True)
    return {
        "at": fork.place,
        "changes": fork.changes.plain(),
        "diverged_at_step": fork.diverged,
        "figures": {
            a.name.replace(" ", "_").lower(): {"recorded": a.value, "fork": b.value}
            for a, b in pairs
        },
        "requests": [
            {
                "id": a.id,
                "recorded": msgspec.to_builtins(a),
                "fork": msgspec.to_builtins(fork.figures.requests[a.id]),
            }
            for a in fork.recorded.requests.values()
        ],
        "notes": list(fork.notes),
    }
