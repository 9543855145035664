"""Positions as people write them: ``120:7``, ``120``, ``50%``, ``req 7 first-token``, ``end``.

`parse` finds in a `History` what was meant, or says in one line why it is not there.
"""

import re
from collections.abc import Iterator

from .errors import UserError
from .events import AnyEvent, Finished, Position, Sampled, Submitted
from .history import History

FORMS = "120:7, 120, 50%, start, end, `req 7 submitted`, `req 7 first-token` or `req 7 finished`"

_STEP = re.compile(r"(\d+)(?::(\d+))?")
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_REQUEST = re.compile(r"req(?:uest)?\s*#?(\d+)\s+([a-z-]+)")


def parse(text: str, history: History) -> Position:
    """The position that ``text`` names in ``history``.

    ``120`` is the end of step 120, what came between it and the next one included; ``50%`` is
    halfway through the records. Raises `UserError` for what cannot be read or is not there.
    """
    words = " ".join(text.lower().split())
    if words in ("start", "end"):
        return history.start if words == "start" else history.end
    if found := _STEP.fullmatch(words):
        return _step(history, int(found[1]), found[2])
    if found := _SHARE.fullmatch(words):
        return _share(history, float(found[1]), text)
    if found := _REQUEST.fullmatch(words):
        return _milestone(history, int(found[1]), found[2])
    raise UserError(f"{text!r} is no position; give {FORMS}")


def _step(history: History, step: int, event: str | None) -> Position:
    position = Position(step, int(event)) if event else history.end_of_step(step)
    if position.step != step:  # there is no such step: let the history say what there is
        position = Position(step, 0)
    history.records_until(position)
    return position


def _share(history: History, percent: float, text: str) -> Position:
    if percent > 100:
        raise UserError(f"{text!r} is more than the whole; give 0% to 100%")
    return history.position_after(round(len(history) * percent / 100))


def _milestone(history: History, request: int, name: str) -> Position:
    if name not in _MILESTONES:
        names = ", ".join(_MILESTONES)
        raise UserError(f"{name!r} is nothing that happens to a request; give one of {names}")
    submitted = False
    for position, event in _events(history):
        submitted = submitted or (isinstance(event, Submitted) and event.req == request)
        if _MILESTONES[name](event, request):
            return position
    if not submitted:
        raise UserError(f"there is no request {request} in the recording")
    raise UserError(f"request {request} has come to no {name} by {history.end}")


def _events(history: History) -> Iterator[tuple[Position, AnyEvent]]:
    for record in history.records():
        for index, event in enumerate(record.events):
            yield record.position(index), event


_MILESTONES = {
    "submitted": lambda e, req: isinstance(e, Submitted) and e.req == req,
    "first-token": lambda e, req: isinstance(e, Sampled) and req in e.reqs,
    "finished": lambda e, req: isinstance(e, Finished) and e.req == req,
}
