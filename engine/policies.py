"""Policies: small classes that answer one question each, chosen by name.

* `SchedulePolicy`: in which order do waiting requests get their chance?
* `AdmissionPolicy`: how much room is kept for what running requests have still to generate?
* `PreemptionPolicy`: who gives its blocks back when they run out?
* `EvictionPolicy`: which cached prefix goes first?

A new one is a class with the method below and, to be known by a short name, an entry in the table
at the end. Your own module's needs no entry: ``--schedule-policy my_module:MyPolicy``.
"""

import importlib
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .config import EngineConfig
from .errors import UserError
from .request import Request

if TYPE_CHECKING:
    from .radix import Match, Node

# --- the order of waiting requests ---------------------------------------------------------------


class Lookup(Protocol):
    """What a policy may ask: the current step, and the cached prefix of a request."""

    step: int

    def match(self, request: Request) -> "Match": ...


class SchedulePolicy(Protocol):
    """Orders ``waiting``, which comes in order of arrival and never empty.

    The scheduler admits in this order up to the first request that has to wait. Preempted requests
    and those that have waited for `AGEING_STEPS` are not asked about: they go first, so that no
    policy can starve anybody.
    """

    def order(self, waiting: Sequence[Request], cache: Lookup) -> Iterable[Request]: ...


AGEING_STEPS = 256


class Fcfs:
    """First come, first served."""

    def order(self, waiting: Sequence[Request], cache: Lookup) -> Iterable[Request]:
        return waiting


class Priority:
    """The lowest ``priority`` number first; among equals, first come."""

    def order(self, waiting: Sequence[Request], cache: Lookup) -> Iterable[Request]:
        return sorted(waiting, key=lambda r: r.priority)


class ShortestJob:
    """The fewest tokens to go first: what is known and not computed, and what may be generated."""

    def order(self, waiting: Sequence[Request], cache: Lookup) -> Iterable[Request]:
        return sorted(waiting, key=lambda r: r.remaining + r.to_generate)


WINDOW = 128  # of the oldest waiting requests are matched; the rest stay in order of arrival


class LongestPrefix:
    """The longest cached prefix first: use what is cached before it is evicted (SGLang's lpm)."""

    def order(self, waiting: Sequence[Request], cache: Lookup) -> Iterable[Request]:
        head = sorted(waiting[:WINDOW], key=lambda r: -len(cache.match(r).blocks))
        return [*head, *waiting[WINDOW:]]


class DfsWeight:
    """Walk the tree depth first, into the branch with most waiting requests first (SGLang's
    dfs-weight): requests that share a path run one after the other."""

    def order(self, waiting: Sequence[Request], cache: Lookup) -> Iterable[Request]:
        paths: dict[int, list[Node]] = {}
        weights: Counter[int] = Counter()
        for request in waiting[:WINDOW]:
            node: Node | None = cache.match(request).node
            path: list[Node] = []
            while node is not None:
                path.append(node)
                weights[node.id] += 1
                node = node.parent
            paths[request.id] = path[::-1]
        # A request at a node comes after those further below it, so a path ends in infinity.
        head = sorted(
            waiting[:WINDOW],
            key=lambda r: [*((-weights[n.id], n.id) for n in paths[r.id]), (float("inf"), 0)],
        )
        return [*head, *waiting[WINDOW:]]


# --- admission -----------------------------------------------------------------------------------


class AdmissionPolicy(Protocol):
    """How many tokens of room an admission has to leave, besides those of known tokens."""

    def held_for(self, running: Sequence[Request]) -> float:
        """For what ``running`` requests have still to generate."""
        ...

    def asked_by(self, request: Request) -> float:
        """For what the candidate itself will generate; 1 is its first token."""
        ...

    def after_step(self, running: Sequence[Request], preempted: bool) -> None:
        """Learn from the step that was just scheduled."""
        ...


class Optimistic:
    """Take blocks when they are needed, and preempt when there are none. Fills the pool best."""

    def held_for(self, running: Sequence[Request]) -> float:
        return 0.0

    def asked_by(self, request: Request) -> float:
        return 1.0

    def after_step(self, running: Sequence[Request], preempted: bool) -> None:
        pass


class Reserve:
    """Keep a share of what running requests may still generate; SGLang's adaptive new-token ratio.

    The share falls a little each step, and after a preemption rises to what the running requests
    have turned out to use, plus ``AHEAD`` tokens each.
    """

    START, LOWEST, DECAY_STEPS = 0.7, 0.098, 600
    LONGEST = 4096  # a larger max_tokens is taken for a limit, not for a plan
    AHEAD = 20

    def __init__(self) -> None:
        self.ratio = self.START

    def held_for(self, running: Sequence[Request]) -> float:
        return self.ratio * sum(min(r.to_generate, self.LONGEST) for r in running)

    def asked_by(self, request: Request) -> float:
        return min(request.to_generate, self.LONGEST)

    def after_step(self, running: Sequence[Request], preempted: bool) -> None:
        if preempted:
            generated = sum(len(r.tokens) - r.prompt_len for r in running)
            wanted = sum(min(r.max_len - r.prompt_len, self.LONGEST) for r in running)
            used = (generated + self.AHEAD * len(running)) / (wanted + 1)
            self.ratio = max(self.ratio, min(1.0, used))
        else:
            fall = (self.START - self.LOWEST) / self.DECAY_STEPS
            self.ratio = max(self.LOWEST, self.ratio - fall)


# --- preemption ----------------------------------------------------------------------------------


class PreemptionPolicy(Protocol):
    """Chooses the victim among ``candidates`` (never empty): running, not in this step yet."""

    def victim(self, candidates: Sequence[Request]) -> Request: ...


class Newest:
    """The latest arrival: the oldest is never disturbed for a younger one."""

    def victim(self, candidates: Sequence[Request]) -> Request:
        return max(candidates, key=lambda r: r.id)


class LeastOutput:
    """The fewest generated tokens, then the longest prompt: the least work of a client is lost
    (SGLang's retraction)."""

    def victim(self, candidates: Sequence[Request]) -> Request:
        return min(candidates, key=lambda r: (len(r.tokens) - r.prompt_len, -r.prompt_len, -r.id))


class LowestPriority:
    """The highest ``priority`` number, then the latest arrival."""

    def victim(self, candidates: Sequence[Request]) -> Request:
        return max(candidates, key=lambda r: (r.priority, r.id))


# --- eviction ------------------------------------------------------------------------------------


class EvictionPolicy(Protocol):
    """The leaf with the lowest key goes first. A key that changes is noticed when it comes up."""

    def key(self, node: "Node") -> tuple[int, ...]: ...


class Lru:
    """Least recently used: longest since a request matched it or let it go."""

    def key(self, node: "Node") -> tuple[int, ...]:
        return (node.last_used,)


class Mru:
    """Most recently used: for loads that go round a set larger than the pool."""

    def key(self, node: "Node") -> tuple[int, ...]:
        return (-node.last_used,)


class Lfu:
    """Fewest hits, then least recently used."""

    def key(self, node: "Node") -> tuple[int, ...]:
        return (node.hits, node.last_used)


class Fifo:
    """The oldest first, however often it is used."""

    def key(self, node: "Node") -> tuple[int, ...]:
        return (node.created,)


class LeastUrgent:
    """What only requests of a high ``priority`` number used, then least recently used."""

    def key(self, node: "Node") -> tuple[int, ...]:
        return (-node.priority, node.last_used)


# --- by name -------------------------------------------------------------------------------------

SCHEDULE_POLICIES: dict[str, type[SchedulePolicy]] = {
    "fcfs": Fcfs,
    "lpm": LongestPrefix,
    "dfs-weight": DfsWeight,
    "priority": Priority,
    "sjf": ShortestJob,
}
ADMISSION_POLICIES: dict[str, type[AdmissionPolicy]] = {
    "optimistic": Optimistic,
    "reserve": Reserve,
}
PREEMPTION_POLICIES: dict[str, type[PreemptionPolicy]] = {
    "newest": Newest,
    "least-output": LeastOutput,
    "lowest-priority": LowestPriority,
}
EVICTION_POLICIES: dict[str, type[EvictionPolicy]] = {
    "lru": Lru,
    "lfu": Lfu,
    "fifo": Fifo,
    "mru": Mru,
    "priority": LeastUrgent,
}
# What each setting of `EngineConfig` chooses from, in the order of `Policies`.
BY_SETTING: dict[str, dict[str, type[Any]]] = {
    "schedule_policy": SCHEDULE_POLICIES,
    "admission_policy": ADMISSION_POLICIES,
    "preemption_policy": PREEMPTION_POLICIES,
    "eviction_policy": EVICTION_POLICIES,
}


class Policies(NamedTuple):
    """The four of one engine."""

    schedule: SchedulePolicy
    admission: AdmissionPolicy
    preemption: PreemptionPolicy
    eviction: EvictionPolicy


def make_policies(config: EngineConfig) -> Policies:
    """The policies that ``config`` names. Raises `UserError` for a name that cannot serve."""
    return Policies(
        *(
            choose(table, getattr(config, name), f"--{name.replace('_', '-')}")
            for name, table in BY_SETTING.items()
        )
    )


def choose(table: dict[str, type[Any]], name: str, flag: str) -> Any:
    """The policy called ``name``, made: one of ``table``, or ``module:Class`` of the user's own.

    The module is imported as ``python`` would: from the current directory or what is installed.
    """
    if name in table:
        return table[name]()
    if ":" not in name:
        known = ", ".join(table)
        raise UserError(
            f"{flag} {name!r} is not known; choose one of: {known}; "
            "or give your own as module:Class"
        )
    module, _, class_name = name.partition(":")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        made = getattr(importlib.import_module(module), class_name)()
    except Exception as error:  # whatever somebody's module may raise on import
        raise UserError(
            f"{flag} {name!r} cannot be loaded ({type(error).__name__}: {error})"
        ) from error
    methods = [m for m in vars(next(iter(table.values()))) if not m.startswith("_") and m.islower()]
    missing = [m for m in methods if not callable(getattr(made, m, None))]
    if missing:
        raise UserError(f"{flag} {name!r} has no method {missing[0]}; see engine/policies.py")
    return made
