"""Fork: a recorded run, run again from any position under other settings.

No model is needed. What every request was answered is in the recording, so the engine's own
scheduler and cache decide anew who runs when and in which blocks, and a runner that repeats the
recorded tokens stands in for the model. What is known and what is estimated:

* `reading.py`: arrivals, answers and endings, as they were recorded;
* `costs.py`: what a step takes, fitted to the recorded ones;
* `start.py`: the engine at the fork, made from the picture there;
* `edits.py`: other texts in the prompts, if that is wanted;
* `replay.py`: the other run;
* `figures.py`: what each of the two came to.

>>> other = fork(history, Position(120, 7), Changes(num_blocks=256))
>>> other.history.state_at(other.history.end)
"""

from dataclasses import dataclass
from uuid import uuid4

from msgspec.structs import replace

from ..errors import UserError
from ..events import Position, StepRecord
from ..history import History
from ..trace import ForkedFrom, Header
from ..wording import agrees, plural
from .changes import Changes
from .costs import StepCosts
from .edits import Editor, Spelling
from .figures import Figures
from .reading import Recorded, ShowProgress, read
from .replay import RecordedRunner, Replay
from .start import engine_for, state_for

__all__ = ["Changes", "Figures", "Fork", "Recorded", "Spelling", "fork", "read", "run"]


@dataclass
class Fork:
    """A run that goes on from position ``at`` of another; ``place`` is how that is written.

    ``history`` begins with the state there. ``diverged`` is the first step whose batch differs from
    the recorded one, None if all are the same. ``figures`` are of the fork and ``recorded`` of the
    other run from the same position on, with pauses left out. ``costs`` are what times from
    ``diverged`` on are estimated by. ``notes`` say, a line each, what is estimated and what is not
    known.
    """

    history: History
    at: Position
    place: str
    changes: Changes
    diverged: int | None
    costs: StepCosts
    figures: Figures
    recorded: Figures
    notes: tuple[str, ...]

    def header(self, of: Header) -> Header:
        """The header of its recording; ``of`` is that of the run it goes on from."""
        forked_from = ForkedFrom(of.epoch, self.place, self.changes.plain())
        config = self.history.config
        return replace(of, epoch=str(uuid4()), config=config, forked_from=forked_from)


def fork(
    history: History,
    at: Position,
    changes: Changes,
    progress: ShowProgress | None = None,
    spelling: Spelling | None = None,
) -> Fork:
    """Run ``history`` again from ``at`` on with ``changes``, as far as its answers are known.

    ``progress`` gets a stage and a fraction, and may raise to put an end to it. Raises `UserError`
    where nothing can be run again. May be called from any thread, and on a run that goes on: then
    it takes what there is now. To replace texts in prompts takes a ``spelling`` of the tokens.
    """
    progress = progress or (lambda stage, fraction: None)
    changes.apply(history.config)  # what cannot be is refused before anything is read
    return run(read(history, at, progress), changes, progress, spelling)


def run(
    recorded: Recorded,
    changes: Changes,
    progress: ShowProgress,
    spelling: Spelling | None = None,
) -> Fork:
    """`fork` of what was `read`; that can be done again with other changes."""
    config = changes.apply(recorded.state.config)
    editor = Editor(changes.replace, spelling or Spelling({}))
    state, notes = state_for(recorded, config, editor)
    figures = Figures(state)
    history = History.live(state)
    runner = RecordedRunner(recorded, editor.edited)
    engine = engine_for(recorded, state, runner)

    def take(record: StepRecord) -> None:
        state.apply(record)
        history.append(record, state)
        figures.add(record)

    engine.log.listen(take)
    replay = Replay(recorded, engine, runner, editor)
    replay.run(progress)
    notes += _notes(recorded, replay, editor, changes)
    if history.gap:
        raise UserError(f"the fork could not be kept: {history.gap}")
    return Fork(
        history=history,
        at=recorded.at,
        place="start" if recorded.at == recorded.history.start else str(recorded.at),
        changes=changes,
        diverged=replay.diverged,
        costs=recorded.costs,
        figures=figures,
        recorded=recorded.figures,
        notes=tuple(notes),
    )


def _notes(recorded: Recorded, replay: Replay, editor: Editor, changes: Changes) -> list[str]:
    notes = []
    edited = len(editor.edited)
    if edited:
        notes.append(
            f"{plural(edited, 'prompt')} {agrees(edited, 'was', 'were')} edited, "
            f"{editor.more:+,} tokens in all; their answers are the recorded ones, for a model "
            "would have to be asked for others"
        )
    elif changes.replace:
        notes.append("no prompt was edited: none that was not yet begun there has such a text")
    if recorded.paused >= 0.05:  # else it would be told as 0.0 s
        notes.append(
            f"{recorded.paused:.1f} s in which nobody stepped the engine are left out on both sides"
        )
    if replay.diverged is None:
        return [*notes, "every batch is the recorded one, and so are the times"]
    costs = recorded.costs
    notes.append(
        f"from step {replay.diverged} on batches differ and times are estimated; the slow moments "
        f"of the recorded run come again, and {costs}"
    )
    if recorded.open:
        notes.append(
            f"{plural(recorded.open, 'request')} {agrees(recorded.open, 'was', 'were')} alive when "
            "the recording ended; in the fork they end where it knows no more of their answers"
        )
    return notes
