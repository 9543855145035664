"""The lints pane: what the run does badly, the worst first, in sentences that say what to try.

The sentences are the lints' own (`engine/lints`), as is their order. They are about all that has
been seen, and say which step they are of; one of a step later than what is looked at is marked ↑.
"""

from functools import lru_cache

from ...engine.events import Position
from ...engine.lints import Finding
from ...engine.wording import plural
from ..selection import Target
from ..store import Store
from ..text import Line, clip, wrap
from .base import View, heading


class LintsView(View):
    name = "Lints"
    about = "what goes badly and what to try, the worst first; enter goes to where it was found"

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[Line] = []
        self._places: list[Position | None] = []

    def update(self, store: Store, width: int, height: int) -> None:
        lints, here = store.lints, store.state.step
        self._lines = []
        keys: list[Target | None] = []
        places: list[Position | None] = []
        for lint in lints.lints:
            if not lint.found:
                continue
            self._lines.append(heading(lint.name.replace("-", " "), width))
            self._lines.append(
                [("⚠ ", "warn"), (clip(lint.summary(lint.entities), width - 2), "strong")]
            )
            findings = list(reversed(lint.found.values()))
            keys += [None, _target(findings[0])]
            places += [None, store.past.end_of_step(findings[0].step)]
            for finding in findings:
                lines = _sentence(finding.sentence, _lead(finding), width, finding.step > here)
                self._lines += lines
                keys += [_target(finding)] * len(lines)
                places += [store.past.end_of_step(finding.step)] * len(lines)
        self.keys, self._places = keys, places
        found = lints.findings()
        self.subtitle = plural(len(found), "finding") if found else "nothing found"
        if any(finding.step > here for finding in found):
            self.subtitle += " · ↑ later than here"
        if store.newest < store.past.end:
            self.subtitle += f" up to step {store.newest.step} of {store.last_step}"
        self.header = [] if keys else _nothing(store, width)

    def line(self, i: int) -> Line:
        return self._lines[i]

    def place(self, item: int) -> Position | None:
        """The end of the step in which it was found the latest time."""
        return self._places[item] if 0 <= item < len(self._places) else None

    def rests(self, item: int) -> bool:
        return 0 <= item < len(self.keys) and self._lines[item][0][1] != "faint"


def _target(finding: Finding) -> Target | None:
    return Target("request", finding.req) if finding.req >= 0 else None


def _lead(finding: Finding) -> str:
    times = f", {finding.count} times" if finding.count > 1 else ""
    return f"step {finding.step}{times}: "


@lru_cache(maxsize=1024)
def _sentence(sentence: str, lead: str, width: int, later: bool) -> list[Line]:
    first, *rest = wrap(lead + sentence, width - 2)
    mark = "↑ " if later else "  "
    lines: list[Line] = [[(mark, "dim"), (lead, "dim"), (first[len(lead) :], "text")]]
    return [*lines, *([("  ", "text"), (part, "text")] for part in rest)]


def _nothing(store: Store, width: int) -> list[Line]:
    names = ", ".join(lint.name.replace("-", " ") for lint in store.lints.lints)
    look = f"{len(store.lints.lints)} lints look at every step for: {names}."
    lines: list[Line] = [[("nothing bad was found so far", "good")], []]
    return [*lines, *([(part, "dim")] for part in wrap(look, width))]
