"""Any event on one line: decisions as their sentence, changes in a few words.

Decisions are worded in `explain.py`; here are the kinds of events that carry one out.
"""

from collections.abc import Callable, Sequence
from typing import Any

from ..engine import events as ev
from ..engine.wording import agrees, plural
from .cells import FREE, GLYPHS, HELD, PRIVATE
from .explain import Note, explain
from .selection import names


def describe(event: ev.AnyEvent) -> Note:
    """The note for any event."""
    note = explain(event)
    if note is not None:
        return note
    glyph, style, words = CHANGES[type(event)]
    req, node = getattr(event, "req", -1), getattr(event, "node", -1)
    return Note(glyph, style, words(event), req, node)


def kind_of(event: ev.AnyEvent) -> str:
    """Its name on the wire: ``step_began``."""
    return event.__struct_config__.tag  # pyright: ignore[reportReturnType]


def ranges(ids: Sequence[int], limit: int = 3) -> str:
    """
    >>> ranges([7, 8, 9, 4]), ranges([1, 3, 5, 7])
    ('7–9 4', '1 3 5 …')
    """
    parts: list[str] = []
    at = 0
    while at < len(ids):
        if len(parts) == limit:
            return " ".join([*parts, "…"])
        end = at
        while end + 1 < len(ids) and ids[end + 1] == ids[end] + 1:
            end += 1
        parts.append(str(ids[at]) if end == at else f"{ids[at]}–{ids[end]}")
        at = end + 1
    return " ".join(parts)


def _blocks(ids: Sequence[int]) -> str:
    return f"{plural(len(ids), 'block')} ({ranges(ids)})" if ids else "no block"


def _began(e: ev.StepBegan) -> str:
    queues = f"running {e.running}, waiting {e.waiting}"
    return f"step {e.step}: {queues}; blocks free {e.free}, evictable {e.evictable}"


def _scheduled(e: ev.Scheduled) -> str:
    where = f"positions {e.start}–{e.start + e.count - 1}"
    return f"#{e.req} computes {plural(e.count, 'token')}, {where}, chunk {e.chunk} of {e.chunks}"


def _decoding(e: ev.Decoding) -> str:
    many = len(e.reqs)
    decode = agrees(many, "decodes a token", "decode a token each")
    return f"{plural(many, 'request')} {decode}: {names(e.reqs)}"


def _sampled(e: ev.Sampled) -> str:
    return f"{plural(len(e.reqs), 'token')} sampled, for {names(e.reqs)}"


def _allocated(e: ev.Allocated) -> str:
    return f"#{e.req} gets {_blocks(e.blocks)}, free now {e.free}"


def _released(e: ev.Released) -> str:
    stay = f"; {e.cached} {agrees(e.cached, 'stays', 'stay')} in the tree" if e.cached else ""
    return f"#{e.req} lets go of its table: {_blocks(e.freed)} freed{stay}"


def _inserted(e: ev.Inserted) -> str:
    return f"node {e.node} made of {_blocks(e.blocks)} of #{e.req}, below node {e.parent}"


def _extended(e: ev.Extended) -> str:
    return f"node {e.node} grows by {_blocks(e.blocks)} of #{e.req}"


def _split(e: ev.Split) -> str:
    first = f"{plural(e.tokens, 'token')} {agrees(e.tokens, 'is', 'are')}"
    return f"node {e.node} split: its first {first} node {e.upper} now"


CHANGES: dict[type, tuple[str, str, Callable[[Any], str]]] = {
    ev.StepBegan: ("─", "dim", _began),
    ev.Scheduled: ("◐", "prefill", _scheduled),
    ev.Decoding: ("●", "decode", _decoding),
    ev.Sampled: ("→", "good", _sampled),
    ev.Allocated: (GLYPHS[PRIVATE], "private", _allocated),
    ev.Released: (GLYPHS[FREE], "dim", _released),
    ev.Inserted: (GLYPHS[HELD], "held", _inserted),
    ev.Extended: ("◧", "held", _extended),
    ev.Split: ("Y", "held", _split),
}
