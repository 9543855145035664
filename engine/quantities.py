"""The words of conditions, quantities of the state and fields of events, and how values compare.

Each name has its one meaning here, read from `EngineState` or an event; `conditions.py` puts the
words into sentences. A new field of an event is known as soon as `events.py` has it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from . import events
from .state import EngineState


class _Missing:
    """The value of what is not there: false, and alike to nothing."""

    def __bool__(self) -> bool:
        return False


MISSING = _Missing()


class Quantity(NamedTuple):
    meaning: str
    read: Callable[[EngineState], Any]


QUANTITIES = {
    "step": Quantity("number of the step", lambda s: s.step),
    "free": Quantity("blocks on the free list", lambda s: s.free),
    "cached": Quantity("blocks in the tree, held or not", lambda s: s.cached),
    "evictable": Quantity("cached blocks that could be evicted now", lambda s: s.evictable),
    "used": Quantity("blocks neither free nor evictable", lambda s: _used(s)),
    "kv": Quantity("used fraction of all blocks, 0 to 1", lambda s: _used(s) / s.config.num_blocks),
    "nodes": Quantity("nodes of the radix tree", lambda s: len(s.nodes) - 1),
    "waiting": Quantity("requests waiting", lambda s: len(s.waiting)),
    "running": Quantity("requests running", lambda s: len(s.running)),
    "finished": Quantity("requests ended so far", lambda s: s.stats.ended),
    "batch": Quantity("requests in the batch of this step, so far", lambda s: len(s.rows)),
    "scheduled": Quantity("tokens scheduled so far", lambda s: s.stats.scheduled_tokens),
    "sampled": Quantity("tokens sampled so far", lambda s: s.stats.sampled_tokens),
    "preemptions": Quantity("preemptions so far", lambda s: s.stats.preemptions),
    "evicted": Quantity("blocks evicted so far", lambda s: s.stats.evicted_blocks),
    "hit_rate": Quantity("cached fraction of all prompt tokens so far", lambda s: _hit_rate(s)),
    "seconds": Quantity("duration of the latest whole step", lambda s: s.step_seconds),
}


def _used(state: EngineState) -> int:
    return state.config.num_blocks - state.free - state.evictable


def _hit_rate(state: EngineState) -> Any:
    return state.stats.hit_rate if state.stats.prompt_tokens else MISSING


_KINDS: dict[type, str] = {c: c.__struct_config__.tag for c in get_args(events.AnyEvent)}
EVENT_KINDS = tuple(sorted(_KINDS.values()))
_STRUCTURED = {"params", "logprobs"}  # nothing to compare them with
EVENT_FIELDS = tuple(
    sorted({f for c in _KINDS for f in c.__struct_fields__} - _STRUCTURED - QUANTITIES.keys())
)

NUMBER, TEXT, LIST = "a number", "a text", "a list"


def _kind_of_type(hint: Any) -> str:
    if hint in (int, float, bool):
        return NUMBER
    if hint is str:
        return TEXT
    if get_origin(hint) is list:
        return LIST
    found = {_kind_of_type(part) for part in get_args(hint) if part is not type(None)}
    return found.pop() if len(found) == 1 else ""


def _kinds() -> dict[str, str]:
    found: dict[str, set[str]] = {name: {NUMBER} for name in QUANTITIES}
    for event in _KINDS:
        for name, hint in get_type_hints(event).items():
            if name in EVENT_FIELDS:
                found.setdefault(name, set()).add(_kind_of_type(hint))
    kinds = {name: of.pop() for name, of in found.items() if len(of) == 1}
    return {**kinds, "ev": TEXT, "blocks": LIST}


KINDS = _kinds()  # of each name what it is, unless it is different things of different events


def kind_of(event: events.Event | None) -> Any:
    """``preempted`` for `Preempted`: what ``ev`` is compared with."""
    return _KINDS.get(type(event), MISSING)


def blocks_of(event: events.Event | None) -> Any:
    """The blocks that ``event`` names, as ``blocks`` or as ``freed``."""
    return getattr(event, "freed" if isinstance(event, events.Released) else "blocks", MISSING)


# --- values --------------------------------------------------------------------------------------

_NUMBER = (int, float)


def alike(a: object, b: object) -> bool:
    """Two numbers, two texts or two lists: these compare, and nothing else does."""
    if isinstance(a, _NUMBER):
        return isinstance(b, _NUMBER)
    return type(a) is type(b) and isinstance(a, str | list)


def can_search(a: object, b: object) -> bool:
    """A number or a text can be sought in a list, a text in a text."""
    return isinstance(a, (str, *_NUMBER) if isinstance(b, list) else str) and isinstance(
        b, list | str
    )


def calculate(compute: Callable[[Any, Any], Any], a: object, b: object) -> Any:
    """Arithmetic on two numbers; anything else, or no result, is `MISSING`."""
    if not (isinstance(a, _NUMBER) and isinstance(b, _NUMBER)):
        return MISSING
    try:
        return compute(a, b)
    except ArithmeticError:  # a division by zero, or a number too large for a float
        return MISSING
