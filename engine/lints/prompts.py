"""A lint on prompts that could share a prefix but for a few tokens near its start.

A date in the system prompt is the classic: everything after it is the same in every request, and
the cache cannot use any of it, because a prefix ends at the first token that differs.

How equal stretches are found, for prompts of any length in a few hundred look-ups: the aligned
pieces of `PIECE` tokens of recent prompts are in one table by hash. A new prompt is probed at
`PIECE` consecutive offsets from each of a few spots, so that whatever the shift, one of them meets
an aligned piece of a prompt that has the same text there::

    recent   D1 D2 | S S S S S S S S S S S S …        pieces aligned to its own start
    new      D1 D2 D3 | S S S S S S S S S S S …       probed at spot, spot + 1, … spot + PIECE - 1

Spots grow by `SPOT_GROWTH`: a stretch is found if it is about half as long as what precedes it.
"""

from collections.abc import Iterator
from typing import ClassVar

import msgspec

from .. import events as ev
from ..state import EngineState
from ..wording import plural
from .base import MAX_FINDINGS, Hears, Lint

PIECE = 16  # tokens
SPOT_GROWTH = 1.5  # from one spot to the next
NEAR_GAP = 64  # tokens that may differ on either side before the texts are equal again
NEAR_TOKENS = 64  # equal tokens that had to be computed again, at least
RECENT_PROMPTS = 64
RECENT_TOKENS = 262_144  # of all remembered prompts; the oldest is forgotten first


class _Prompt(msgspec.Struct):
    """``family`` is the request that the first of these near misses was with."""

    req: int
    family: int
    salt: str
    tokens: list[int]


class _Stretch(msgspec.Struct):
    """Two prompts agree up to ``fork``, and again from ``start`` to ``end`` of the later one."""

    earlier: _Prompt
    fork: int
    start: int
    end: int
    there: int  # the token ids at the fork
    here: int


class NearMiss(Lint):
    """Two prompts that diverge in a few tokens and then are equal for long.

    Seen on `Submitted`; what it cost is known on `Admitted`, from what the cache held after all.
    """

    name = "near-miss"

    def __init__(self) -> None:
        super().__init__()
        self._recent: dict[int, _Prompt] = {}  # by request, the oldest first
        self._remembered = 0  # tokens
        self._pieces: dict[int, tuple[int, int]] = {}  # hash → request and position
        self._pending: dict[int, _Stretch] = {}
        self._cost: dict[int, int] = {}  # tokens computed again, by family

    def summary(self, count: int) -> str:
        verb = "misses" if count == 1 else "miss"
        return f"{plural(count, 'shared text')} {verb} the cache for a few tokens that differ"

    def _submitted(self, e: ev.Submitted, state: EngineState) -> None:
        prompt = _Prompt(e.req, e.req, e.salt, e.prompt)
        stretch = self._nearest(prompt)
        if stretch is not None:
            prompt.family = stretch.earlier.family
            self._pending[e.req] = stretch
        self._remember(prompt)

    def _admitted(self, e: ev.Admitted, state: EngineState) -> None:
        stretch = self._pending.pop(e.req, None)
        if stretch is None or e.recompute:
            return
        lost = stretch.end - max(stretch.start, e.cached_tokens)
        if lost < max(NEAR_TOKENS, state.config.block_size):
            return
        family = stretch.earlier.family
        self._cost[family] = self._cost.pop(family, 0) + lost
        if len(self._cost) > MAX_FINDINGS:
            del self._cost[next(iter(self._cost))]
        sentence = self._sentence(e.req, stretch, lost)
        self.warn(f"request {family}", sentence, state.step, e.req)

    def _finished(self, e: ev.Finished, state: EngineState) -> None:
        self._pending.pop(e.req, None)

    def _sentence(self, req: int, stretch: _Stretch, lost: int) -> str:
        family = stretch.earlier.family
        return (
            f"requests {stretch.earlier.req} and {req} differ at position {stretch.fork} (token "
            f"{stretch.there}, then {stretch.here}) and are equal again for "
            f"{stretch.end - stretch.start} tokens from position {stretch.start}: {lost} of them "
            f"were computed again, {self._cost[family]} in all for prompts like that of request "
            f"{family}; move what varies, such as a date, behind what does not"
        )

    # --- finding ---------------------------------------------------------------------------------

    def _nearest(self, prompt: _Prompt) -> _Stretch | None:
        """The first near miss of ``prompt`` with a remembered one."""
        forks: dict[int, int] = {}
        seen: set[tuple[int, int]] = set()  # request and shift
        for here, (req, there) in self._meetings(prompt):
            earlier, shift = self._recent[req], here - there
            if earlier.salt != prompt.salt or (req, shift) in seen:
                continue
            if req not in forks:
                forks[req] = _equal_from(earlier.tokens, 0, prompt.tokens, 0)
            if min(here, there) < forks[req]:
                continue  # still in the prefix that they share
            seen.add((req, shift))
            stretch = _compare(earlier, prompt, there, here, forks[req])
            if stretch is not None:
                return stretch
        return None

    def _meetings(self, prompt: _Prompt) -> Iterator[tuple[int, tuple[int, int]]]:
        """Positions of ``prompt`` where a remembered one has the same piece, and where that is."""
        spot = 0
        while spot + PIECE <= len(prompt.tokens):
            for at in range(spot, spot + PIECE):
                known = self._pieces.get(_piece(prompt.tokens, at))
                if known is not None:
                    yield at, known
            spot = max(spot + PIECE, int(spot * SPOT_GROWTH))

    def _remember(self, prompt: _Prompt) -> None:
        if prompt.req in self._recent:  # a server that started anew counts from 0 again
            self._forget(prompt.req)
        self._recent[prompt.req] = prompt
        self._remembered += len(prompt.tokens)
        for at in range(0, len(prompt.tokens) - PIECE + 1, PIECE):
            self._pieces[_piece(prompt.tokens, at)] = (prompt.req, at)
        while len(self._recent) > 1 and (
            len(self._recent) > RECENT_PROMPTS or self._remembered > RECENT_TOKENS
        ):
            self._forget(next(iter(self._recent)))

    def _forget(self, req: int) -> None:
        prompt = self._recent.pop(req)
        self._remembered -= len(prompt.tokens)
        for at in range(0, len(prompt.tokens) - PIECE + 1, PIECE):
            piece = _piece(prompt.tokens, at)
            if self._pieces.get(piece, (None,))[0] == req:
                del self._pieces[piece]

    hears: ClassVar[Hears] = {
        ev.Submitted: _submitted,
        ev.Admitted: _admitted,
        ev.Finished: _finished,
    }


def _piece(tokens: list[int], at: int) -> int:
    return hash(tuple(tokens[at : at + PIECE]))


def _compare(earlier: _Prompt, later: _Prompt, there: int, here: int, fork: int) -> _Stretch | None:
    """The stretch around ``earlier[there]`` = ``later[here]``, both past the ``fork``, if that is a
    near miss."""
    a, b, shift = earlier.tokens, later.tokens, here - there
    if fork in (len(a), len(b)) or a[there : there + PIECE] != b[here : here + PIECE]:
        return None
    start = _equal_since(a, b, shift, max(fork, fork + shift), here)
    if max(start, start - shift) - fork > NEAR_GAP:
        return None
    end = here + _equal_from(a, there, b, here)
    return _Stretch(earlier, fork, start, end, there=a[fork], here=b[fork])


def _equal_from(a: list[int], i: int, b: list[int], j: int) -> int:
    """How many tokens from ``a[i]`` and ``b[j]`` on are equal, by bisection over slices."""
    low, high = 0, min(len(a) - i, len(b) - j)
    while low < high:
        middle = (low + high + 1) // 2
        if a[i + low : i + middle] == b[j + low : j + middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _equal_since(a: list[int], b: list[int], shift: int, first: int, here: int) -> int:
    """The least position of ``b`` from ``first`` on whence all up to ``here`` is equal in ``a``."""
    low, high = first, here
    while low < high:
        middle = (low + high) // 2
        if b[middle:high] == a[middle - shift : high - shift]:
            high = middle
        else:
            low = middle + 1
    return high
