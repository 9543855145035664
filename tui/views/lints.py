"""The lints pane: what the run does badly, the worst first, in sentences that say what to try.

The sentences are the lints' own (`engine/lints`), as is their order. They are about all that has
been seen, whichever step is looked at, and say which step they are of.
"""

from functools import lru_cache

from ...engine.lints import Finding
from ..selection import Target
from ..store import Store
from ..text import Line, clip, plural, wrap
from .base import View, heading


class LintsView(View):
    name = "Lints"
    about = "what goes badly and what to try, the worst first"

    def update(self, store: Store, width: int, height: int) -> None:
        lints = store.lints
        self._lines: list[Line] = []
        keys: list[Target | None] = []
        for lint in lints.lints:
            if not lint.found:
                continue
            self._lines.append(heading(lint.name.replace("-", " "), width))
            self._lines.append(
                [("⚠ ", "warn"), (clip(lint.summary(lint.entities), width - 2), "strong")]
            )
            keys += [None, None]
            for finding in reversed(lint.found.values()):
                lines = _sentence(finding.sentence, _lead(finding), width)
                self._lines += lines
                keys += [target_of(finding)] * len(lines)
        self.keys = keys
        count = len(lints.findings())
        self.subtitle = plural(count, "finding") if count else "nothing found"
        self.header = [] if keys else _nothing(store, width)

    def line(self, i: int) -> Line:
        return self._lines[i]

    def rests(self, item: int) -> bool:
        return 0 <= item < len(self.keys) and self._lines[item][0][1] != "faint"


def target_of(finding: Finding) -> Target | None:
    """The request that it is about; lints on the whole engine are about none."""
    kind, _, number = finding.entity.partition(" ")
    return Target("request", int(number)) if kind == "request" and number.isdigit() else None


def _lead(finding: Finding) -> str:
    times = f", {finding.count} times" if finding.count > 1 else ""
    return f"step {finding.step}{times}: "


@lru_cache(maxsize=1024)
def _sentence(sentence: str, lead: str, width: int) -> list[Line]:
    first, *rest = wrap(lead + sentence, width - 2)
    lines: list[Line] = [[("  ", "text"), (lead, "dim"), (first[len(lead) :], "text")]]
    return [*lines, *([("  ", "text"), (part, "text")] for part in rest)]


def _nothing(store: Store, width: int) -> list[Line]:
    names = ", ".join(lint.name.replace("-", " ") for lint in store.lints.lints)
    look = f"{len(store.lints.lints)} lints look at every step for: {names}."
    lines: list[Line] = [[("nothing bad was found so far", "good")], []]
    return [*lines, *([(part, "dim")] for part in wrap(look, width))]
