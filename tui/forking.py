"""A fork asked for on the screens: what is typed, and the two runs to set beside each other.

The run itself is `engine.fork`.
"""

import shlex
from typing import NamedTuple

from ..engine.config import EngineConfig
from ..engine.errors import UserError
from ..engine.events import Position
from ..engine.fork import Changes, Fork, Recorded, read, run
from ..engine.fork.reading import ShowProgress
from .sources.base import Recording
from .spans import Spans
from .store import Store

SUBSTITUTE = "s/PATTERN/TEXT/"


class Side(NamedTuple):
    """One of the two runs, from the fork to the step ``last``."""

    name: str
    spans: Spans
    last: int


class Forked(NamedTuple):
    """A ``fork``, all there is to show of it, and what became of the requests in both runs."""

    fork: Fork
    store: Store
    sides: tuple[Side, Side]


def read_changes(text: str, config: EngineConfig) -> Changes:
    """``num_blocks=60`` and the like, and texts to replace in prompts, as ``s/12:0./noon/``.

    Raises `UserError` for what is none of it, or cannot be.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UserError(f"{text!r} cannot be read: {error}") from error
    replace = tuple(_substitution(word) for word in words if word.startswith("s/"))
    changes = Changes.parse(word for word in words if not word.startswith("s/"))
    changes = changes.and_also(Changes(replace=replace))
    changes.apply(config)
    return changes


def _substitution(word: str) -> tuple[str, str]:
    match word.split("/"):
        case [_, pattern, text, ""] if pattern:
            return pattern, text
    raise UserError(f"{word!r} replaces nothing; write {SUBSTITUTE}, in quotes if it has blanks")


def fork(of: Store, at: Position, changes: Changes, progress: ShowProgress) -> Forked:
    """`engine.fork` of the run in ``of``. For any thread. Raises `UserError`."""
    codec = of.texts.codec
    spelling = codec.spelling() if changes.replace else None
    recorded = read(of.past, at, progress)
    made = run(recorded, changes, progress, spelling)
    recording = Recording(f"fork from {made.place}", made.history)
    store = Store(made.history.config, of.info, codec, recording)
    store.over, store.guesses_from = f"a fork with {changes}", made.diverged
    for record in made.history.records():
        store.apply(record)
        progress("looking it over", store.steps.last / max(1, made.history.end.step))
    sides = (_recorded(recorded), Side("fork", store.spans, made.history.end.step))
    return Forked(made, store, sides)


def _recorded(run: Recorded) -> Side:
    spans = Spans(run.state)
    for record in run.history.records(run.records, run.end):
        spans.apply(record, run.state)
    return Side("run", spans, run.history.position_after(run.end).step)
