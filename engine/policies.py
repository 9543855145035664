"""Policies: small classes that answer one question each, chosen by name.

A new one is a class with one method and an entry in its table; ``--help`` lists the names.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from .errors import UserError
from .request import Request

if TYPE_CHECKING:
    from .radix import Node


class SchedulePolicy(Protocol):
    """In which order do waiting requests get their chance?"""

    def order(self, waiting: Sequence[Request]) -> Iterable[Request]: ...


class Fcfs:
    """First come, first served; a preempted request went back to the head."""

    def order(self, waiting: Sequence[Request]) -> Iterable[Request]:
        return waiting


class EvictionPolicy(Protocol):
    """Which leaf goes first? The lowest key. It may change only while the node is held."""

    def key(self, node: "Node") -> tuple[int, ...]: ...


class Lru:
    """Least recently used: longest since a request matched it or let it go."""

    def key(self, node: "Node") -> tuple[int, ...]:
        return (node.last_used,)


SCHEDULE_POLICIES: dict[str, type[SchedulePolicy]] = {"fcfs": Fcfs}
EVICTION_POLICIES: dict[str, type[EvictionPolicy]] = {"lru": Lru}

T = TypeVar("T")


def choose(table: dict[str, type[T]], name: str, flag: str) -> T:
    """The policy called ``name``, made; the error lists what there is."""
    if name not in table:
        raise UserError(f"{flag} {name!r} is not known; choose one of: {', '.join(table)}")
    return table[name]()
