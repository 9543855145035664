"""What leaves the process of all that the engine does: everything, or all but what was said."""

from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from ..engine.events import Listener
from ..engine.redact import Redactor, redacted_stop
from ..engine.state import EngineState
from ..engine.stops import Stopped
from ..engine.trace import Header, Speller
from .engine_thread import EngineThread


@dataclass(frozen=True, slots=True)
class Shown:
    """A run for viewers and recordings. ``listen`` gives its records and ``state`` the picture of
    them, both in the engine's thread; ``stop`` says of a stop what may be told."""

    header: Header
    speller: Speller | None
    state: EngineState
    listen: Callable[[Listener], object]
    stop: Callable[[Stopped], Stopped]


def shown(thread: EngineThread, header: Header, speller: Speller | None, redact: bool) -> Shown:
    """The run of ``thread``'s engine, which has not begun; with ``redact`` nothing in it is text or
    a token of a client."""
    log = thread.engine.log
    if not redact:
        return Shown(header, speller, thread.state, log.listen, lambda stop: stop)
    redactor = Redactor(thread.engine.config)
    log.listen(redactor)
    header = replace(header, redacted=True, config=redactor.config)
    return Shown(header, None, redactor.state, redactor.listen, redacted_stop)
