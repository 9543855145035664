"""What differs between two states of one run, in lines."""

from collections import Counter

from ..engine.blocks import BlockState
from ..engine.snapshot import RequestState
from ..engine.state import EngineState
from ..engine.wording import plural
from .text import Line

SHOWN = 12  # requests or nodes that are listed one by one

_FIELDS = (
    ("status", lambda r: r.finish_reason or r.status.value),
    ("output", lambda r: len(r.tokens) - r.prompt_len),
    ("computed", lambda r: r.computed),
    ("blocks", lambda r: len(r.block_table)),
    ("preemptions", lambda r: r.preemptions),
)


def differences(then: EngineState, now: EngineState) -> list[Line]:
    """Numbers, blocks by what became of them, requests and tree nodes; nothing where all is as it
    was."""
    return [*_numbers(then, now), *_blocks(then, now), *_requests(then, now), *_nodes(then, now)]


def _numbers(then: EngineState, now: EngineState) -> list[Line]:
    pairs = (
        ("step", then.step, now.step),
        ("running", len(then.running), len(now.running)),
        ("waiting", len(then.waiting), len(now.waiting)),
        ("finished", sum(then.stats.finished.values()), sum(now.stats.finished.values())),
        ("free blocks", then.free, now.free),
        ("evictable blocks", then.evictable, now.evictable),
        ("preemptions", then.stats.preemptions, now.stats.preemptions),
        ("evicted blocks", then.stats.evicted_blocks, now.stats.evicted_blocks),
        ("prompt tokens", then.stats.prompt_tokens, now.stats.prompt_tokens),
        ("cached tokens", then.stats.cached_tokens, now.stats.cached_tokens),
    )
    return _section("numbers", [_change(name, a, b) for name, a, b in pairs if a != b])


def _blocks(then: EngineState, now: EngineState) -> list[Line]:
    """How many blocks went from which state to which, and how many only changed owners."""
    moves: Counter[tuple[str, str]] = Counter()
    for block in range(then.config.num_blocks):
        a, b = _kind(then, block), _kind(now, block)
        same_owner = then.block_owner[block] == now.block_owner[block]
        if a != b:
            moves[a, b] += 1
        elif a == "private" and not same_owner:
            moves[a, "private to another"] += 1
    lines: list[Line] = []
    for (a, b), count in moves.most_common():
        lines.append([(f"  {plural(count, 'block')}: {a} → {b}", "text")])
    return _section("blocks", lines)


def _kind(state: EngineState, block: int) -> str:
    kind = state.block_state[block]
    if kind == BlockState.FREE:
        return "free"
    if kind == BlockState.PRIVATE:
        return "private"
    return "held in the tree" if state.refs(block) else "in the tree, held by nobody"


def _requests(then: EngineState, now: EngineState) -> list[Line]:
    lines: list[Line] = []
    for id in sorted(then.requests.keys() | now.requests.keys()):
        a, b = then.requests.get(id), now.requests.get(id)
        if a is None or b is None:
            words = "is new" if a is None else "is no longer kept" if now.step > then.step else ""
            lines.append([(f"  #{id} ", "strong"), (words or "is not there yet", "text")])
        elif changes := _changes(a, b):
            lines.append([(f"  #{id} ", "strong"), (", ".join(changes), "text")])
    return _section("requests", _shortened(lines, "request"))


def _changes(a: RequestState, b: RequestState) -> list[str]:
    values = ((name, read(a), read(b)) for name, read in _FIELDS)
    return [f"{name} {x} → {y}" for name, x, y in values if x != y]


def _nodes(then: EngineState, now: EngineState) -> list[Line]:
    gone, new = then.nodes.keys() - now.nodes.keys(), now.nodes.keys() - then.nodes.keys()
    lines: list[Line] = []
    for id in sorted(new):
        lines.append([(f"  + node {id}, {plural(len(now.nodes[id].tokens), 'token')}", "good")])
    for id in sorted(gone):
        lines.append([(f"  − node {id}, {plural(len(then.nodes[id].tokens), 'token')}", "bad")])
    for id in sorted(then.nodes.keys() & now.nodes.keys()):
        a, b = len(then.nodes[id].tokens), len(now.nodes[id].tokens)
        if a != b:
            lines.append([(f"  node {id}, tokens {a:,} → {b:,}", "text")])
    return _section("tree", _shortened(lines, "node"))


def _change(name: str, a: int, b: int) -> Line:
    sign = "+" if b > a else "−"
    return [(f"  {name} {a:,} → {b:,} ", "text"), (f"({sign}{abs(b - a):,})", "dim")]


def _shortened(lines: list[Line], what: str) -> list[Line]:
    rest = len(lines) - SHOWN
    if rest > 0:
        lines = [*lines[:SHOWN], [(f"  … and {plural(rest, f'more {what}')}", "dim")]]
    return lines


def _section(title: str, lines: list[Line]) -> list[Line]:
    return [[(title, "heading")], *lines, []] if lines else []
