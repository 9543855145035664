"""Lints: what a run does badly, found by looking at the events, in sentences with numbers.

`Lints` owns which of them are on and hands each the events it hears. What a lint is says `base.py`;
the lints are in `batch.py` (scheduling), `cache.py` (KV blocks) and `prompts.py`. A new one is a
class there and an entry in `LINTS`.
"""

from collections.abc import Callable, Iterable
from typing import Any

from ..errors import UserError
from ..events import StepRecord
from ..state import EngineState
from .base import MAX_FINDINGS, Finding, Lint
from .batch import BudgetUnused, PreemptionThrash, PrefillStallsDecode
from .cache import EvictedThenRecomputed, NeverReused, TailWaste
from .prompts import NearMiss

__all__ = ["LINTS", "MAX_FINDINGS", "Finding", "Lint", "Lints"]

LINTS: dict[str, type[Lint]] = {
    lint.name: lint
    for lint in (
        PreemptionThrash,
        EvictedThenRecomputed,
        PrefillStallsDecode,
        BudgetUnused,
        TailWaste,
        NeverReused,
        NearMiss,
    )
}


class Lints:
    """The lints that are ``enabled`` by name, all of them if not said.

    >>> lints = Lints(["near-miss"])
    >>> lints.apply(record, state)                     # after state.apply(record)
    >>> for finding in lints.findings():
    ...     print(finding.lint, finding.sentence)

    Raises `UserError` on a name that is not known.
    """

    def __init__(self, enabled: Iterable[str] | None = None) -> None:
        names = list(LINTS if enabled is None else enabled)
        for name in names:
            if name not in LINTS:
                known = ", ".join(LINTS)
                raise UserError(f"lint {name!r} is not known; choose from: {known}")
        self.lints = [lint() for name, lint in LINTS.items() if name in names]
        self._hears: dict[type, list[tuple[Lint, Callable[[Any, Any, EngineState], None]]]] = {}
        for lint in self.lints:
            for kind, method in lint.hears.items():
                self._hears.setdefault(kind, []).append((lint, method))
        self._closes = [lint for lint in self.lints if type(lint).close is not Lint.close]

    def apply(self, record: StepRecord, state: EngineState) -> None:
        """Look at one record, which ``state`` has taken in already."""
        hears = self._hears
        for event in record.events:
            for lint, method in hears.get(type(event), ()):
                method(lint, event, state)
        for lint in self._closes:
            lint.close(record, state)

    def findings(self) -> list[Finding]:
        """What was found, lint by lint, the latest last; at most `MAX_FINDINGS` of each lint."""
        return [finding for lint in self.lints for finding in lint.found.values()]

    def summaries(self) -> dict[str, str]:
        """One line for each lint that found something, by its name."""
        return {lint.name: lint.summary(lint.entities) for lint in self.lints if lint.found}
