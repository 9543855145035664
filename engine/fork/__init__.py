"""Fork: a recorded run, run again from any position under other settings.

No model is needed. What every request was answered is in the recording, so the engine's own
scheduler and cache decide anew who runs when and in which blocks, and a runner that repeats the
recorded tokens stands in for the model. What is known and what is estimated:

* `reading.py`: arrivals, answers and endings, as they were recorded;
* `costs.py`: what a step takes, fitted to the recorded ones;
* `start.py`: the engine at the fork, made from the picture there;
* `replay.py`: the other run.

>>> other = fork(history, Position(120, 7), Changes(num_blocks=256))
>>> other.history.state_at(other.history.end)
"""

from dataclasses import dataclass

from ..events import Position, StepRecord
from ..history import History
from ..trace import ForkedFrom
from .changes import Changes
from .reading import Recorded, ShowProgress, read
from .replay import RecordedRunner, Replay
from .start import engine_for, state_for

__all__ = ["Changes", "Fork", "Recorded", "fork", "read", "run"]


@dataclass
class Fork:
    """A run that goes on from position ``at`` of another.

    ``history`` begins with the state there. ``diverged`` is the first step whose batch differs from
    the recorded one, None if all are the same. ``notes`` say, a line each, what is estimated and
    what is not known.
    """

    history: History
    at: Position
    changes: Changes
    diverged: int | None
    notes: tuple[str, ...]

    def forked_from(self, epoch: str) -> ForkedFrom:
        """For the header of its recording; ``epoch`` is that of the run it goes on from."""
        return ForkedFrom(epoch, str(self.at), self.changes.plain())


def fork(
    history: History,
    at: Position,
    changes: Changes,
    progress: ShowProgress | None = None,
) -> Fork:
    """Run ``history`` again from ``at`` on with ``changes``, as far as its answers are known.

    ``progress`` gets a stage and a fraction, and may raise to put an end to it. Raises `UserError`
    where nothing can be run again. May be called from any thread, and on a run that goes on: then
    it takes what there is now.
    """
    progress = progress or (lambda stage, fraction: None)
    return run(read(history, at, progress), changes, progress)


def run(recorded: Recorded, changes: Changes, progress: ShowProgress) -> Fork:
    """`fork` of what was `read`."""
    config = changes.apply(recorded.state.config)
    state, notes = state_for(recorded, config)
    history = History.live(state)
    runner = RecordedRunner(recorded)
    engine = engine_for(recorded, state, runner)

    def take(record: StepRecord) -> None:
        state.apply(record)
        history.append(record, state)

    engine.log.listen(take)
    replay = Replay(recorded, engine, runner)
    replay.run(progress)
    notes += _notes(recorded, replay)
    return Fork(history, recorded.at, changes, replay.diverged, tuple(notes))


def _notes(recorded: Recorded, replay: Replay) -> list[str]:
    notes = []
    if replay.diverged is None:
        return ["every batch is the recorded one, so are the times"]
    costs = recorded.costs
    notes.append(
        f"from step {replay.diverged} on batches differ, and times are estimated: the median error "
        f"over {costs.steps} recorded steps is {costs.error:.0%}"
    )
    if recorded.open:
        notes.append(
            f"{recorded.open} requests were alive when the recording ended: in the fork they end "
            "where it knows no more of their answers"
        )
    return notes
