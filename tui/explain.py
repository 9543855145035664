"""Events in words: one function a kind, a full sentence with the numbers that were compared.

Nothing is inferred: a sentence says what its event carries. What is worth a line, and in which
colour, is in `NOTES` at the end.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from ..engine import events as ev
from ..engine.wording import agrees, plural


class Note(NamedTuple):
    """An event ready to be shown. ``req`` and ``node`` are what it is about (-1: none)."""

    glyph: str
    style: str
    sentence: str
    req: int = -1
    node: int = -1


def explain(event: ev.AnyEvent) -> Note | None:
    """The note for ``event``, or None for events that are changes rather than decisions."""
    found = NOTES.get(type(event))
    if found is None:
        return None
    glyph, style, sentence = found
    if isinstance(event, ev.Finished) and event.reason == "error":
        glyph, style = "✗", "bad"
    req = event.for_req if isinstance(event, ev.Evicted) else getattr(event, "req", -1)
    return Note(glyph, style, sentence(event), req, getattr(event, "node", -1))


def supply(free: int, evictable: int, promised: int) -> str:
    """
    >>> supply(3, 0, 2)
    'free 3 + evictable 0 − promised 2'
    """
    return f"free {free} + evictable {evictable} − promised {promised}"


def why_deferred(e: ev.Deferred) -> str:
    """The reason alone, short enough for a table."""
    if e.why == "no_blocks":
        return f"needs {plural(e.need, 'block')}, {supply(e.free, e.evictable, e.promised)}"
    return {
        "no_budget": "the step's token budget is spent",
        "max_running": "as many requests run as may",
        "preempting": "blocks were just taken back from a running request",
    }.get(e.why, e.why)


def submitted(e: ev.Submitted) -> str:
    asked = plural(e.params.max_tokens, "token")
    prompt = plural(len(e.prompt), "token")
    return f"#{e.req} arrived with a prompt of {prompt} and asks for up to {asked}."


def refused(e: ev.Refused) -> str:
    limit = "the KV pool holds" if e.why == "prompt_exceeds_pool" else "the context takes"
    return f"#{e.req} refused: its prompt has {plural(e.need, 'token')}, {limit} {e.limit:,}."


def deferred(e: ev.Deferred) -> str:
    behind = f"; {e.behind} more behind it" if e.behind else ""
    if e.why == "no_blocks":
        can_have = max(0, e.free + e.evictable - e.promised)
        numbers = supply(e.free, e.evictable, e.promised)
        are = agrees(e.cached_tokens, "is", "are")
        cached = f" beside the {plural(e.cached_tokens, 'token')} of it that {are} cached"
        beside = cached if e.cached_tokens else ""
        return (
            f"#{e.req} has to wait: it needs {plural(e.need, 'block')}{beside} and can have "
            f"{can_have} ({numbers}){behind}."
        )
    return f"#{e.req} has to wait: {why_deferred(e)}{behind}."


def admitted(e: ev.Admitted) -> str:
    hit = "nothing of it is cached"
    if e.cached_tokens:
        again = "found again" if e.recompute else "cached"
        hit = f"{plural(e.cached_tokens, 'token')} {again} (down to node {e.node})"
    verb = "readmitted" if e.recompute else "admitted"
    numbers = f"free {e.free}"
    numbers += f" + evictable {e.evictable}" if e.evictable else ""
    numbers += f" − promised {e.promised}" if e.promised else ""
    share = "the rest" if e.cached_tokens else "all"
    what = f"{share} of its prompt and the start of its answer"
    if e.recompute:
        what = f"{share} of its tokens so far and the next"
    return f"#{e.req} {verb}: {hit}; needs {plural(e.need, 'block')} for {what} ({numbers})."


def starved(e: ev.Starved) -> str:
    return (
        f"#{e.req} got nothing this step: the token budget went to those before it "
        f"({plural(e.need, 'token')} to compute)."
    )


def preempted(e: ev.Preempted) -> str:
    numbers = f"{plural(e.need, 'block')} short with free {e.free} and evictable {e.evictable}"
    lost = f"lets go of the KV of {plural(e.lost_tokens, 'token')}, back to the head of the queue"
    if e.for_req == e.req:
        return f"#{e.req} preempted: it was {numbers}, and nobody later had any to give; it {lost}."
    return f"#{e.req} preempted for #{e.for_req}, which was {numbers}; #{e.req} {lost}."


def finished(e: ev.Finished) -> str:
    return {
        "stop": f"#{e.req} finished: it gave a stop token.",
        "length": f"#{e.req} finished: it reached its length limit.",
        "abort": f"#{e.req} was aborted.",
    }.get(e.reason, f"#{e.req} ended with an error: {e.message.rstrip('.')}.")


def evicted(e: ev.Evicted) -> str:
    what = f"{plural(len(e.blocks), 'block')} of node {e.node}"
    if e.why == "withdrawn":
        return f"{what} taken back: the step that was to fill them failed."
    if e.why == "reset":
        return f"{what} evicted: the prefix cache was reset."
    used = f"last used in step {e.last_used}"
    return f"{what} evicted ({used}, held by nobody) to make room for #{e.for_req}."


def step_failed(e: ev.StepFailed) -> str:
    return f"The step failed: {e.error.rstrip('.')}. Its requests end with an error, others go on."


NOTES: dict[type, tuple[str, str, Callable[[Any], str]]] = {
    ev.Submitted: ("+", "dim", submitted),
    ev.Refused: ("✗", "bad", refused),
    ev.Deferred: ("○", "warn", deferred),
    ev.Admitted: ("▸", "decode", admitted),
    ev.Starved: ("○", "warn", starved),
    ev.Preempted: ("↩", "bad", preempted),
    ev.Finished: ("✓", "good", finished),
    ev.Evicted: ("×", "evictable", evicted),
    ev.StepFailed: ("✗", "bad", step_failed),
}
