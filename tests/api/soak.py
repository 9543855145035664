"""Many short visits of every kind, and what a server may not keep of them."""

import asyncio
import gc
import random
from array import array
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import httpx2

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"

BAD: list[dict[str, Any]] = [
    {"temperature": 9},
    {"model": "another"},
    {"max_tokens": 1 << 20},
    {"prompt": [], "messages": []},
    {"n": 0},
]


async def soak(url: str, visits: Iterable[int], *, at_a_time: int = 16) -> Counter[str]:
    """How the visits with those numbers ended; each number is always the same visit."""
    numbers, ended = iter(visits), Counter[str]()
    async with httpx2.AsyncClient(base_url=url, timeout=120) as http:

        async def client() -> None:
            for number in numbers:
                ended[await _visit(http, random.Random(number))] += 1

        async with asyncio.TaskGroup() as tasks:
            for _ in range(at_a_time):
                tasks.create_task(client())
    return ended


async def _visit(http: httpx2.AsyncClient, rng: random.Random) -> str:
    path = rng.choice((TEXT, CHAT))
    text = "".join(rng.choices("ABC 😀日é", k=rng.randint(1, 24)))
    body: dict[str, Any] = {"max_tokens": rng.randint(1, 12), "seed": 1, "ignore_eos": True}
    body |= {"prompt": text} if path == TEXT else {"messages": [{"role": "user", "content": text}]}
    kind = rng.choices(("plain", "streamed", "leaves", "bad"), (5, 5, 2, 1))[0]
    if rng.random() < 0.3:
        body["n"] = 2
    if rng.random() < 0.3:
        body["stop"] = rng.choices("ABCDEFxyz", k=2)
    if rng.random() < 0.3:
        body |= {"frequency_penalty": 0.5, "logit_bias": {"7": 1}}
    if rng.random() < 0.02:  # by itself too much for a small pool, however few come at a time
        body |= {"n": 4, "max_tokens": 120, "stop": None}
    if kind == "bad":
        answer = await http.post(path, json=body | rng.choice(BAD))
        assert answer.status_code in (400, 404), answer.text
    elif kind == "leaves":
        body |= {"max_tokens": 80, "stream": rng.random() < 0.7}
        await _leave(http, path, body, rng)
    elif kind == "plain":
        answer = await http.post(path, json=body)
        if answer.status_code == 500:
            return "failed"
        assert len(answer.json()["choices"]) == body.get("n", 1), answer.text
    else:
        async with http.stream("POST", path, json={**body, "stream": True}) as answer:
            raw = await answer.aread()
        if answer.status_code == 500 or b'"error"' in raw:
            return "failed"
        assert raw.endswith(b"data: [DONE]\n\n"), raw
        assert raw.count(b'"finish_reason":"') == body.get("n", 1), raw
    return kind


async def _leave(
    http: httpx2.AsyncClient, path: str, body: dict[str, Any], rng: random.Random
) -> None:
    try:
        async with asyncio.timeout(rng.random() * 0.05):
            async with http.stream("POST", path, json=body) as answer:
                async for _ in answer.aiter_raw():
                    if rng.random() < 0.2:
                        break
    except TimeoutError:
        pass


# --- what is kept --------------------------------------------------------------------------------

_PLAIN = (str, bytes, bytearray, int, float, type(None), type, array)
_CONTAINERS = (dict, list, tuple, set, frozenset, deque, Mapping)


def kept(*roots: object) -> Counter[str]:
    """How much there is in every container that belongs to ``roots``, by class and attribute.

    ``{"EngineThread._routes": 3, "RequestState.tokens": 120, …}``: sums over all objects of a
    class. Only our own objects, and those of uvicorn, are entered.
    """
    gc.collect()
    found: Counter[str] = Counter()
    seen: set[int] = set()
    stack: list[tuple[str, Any]] = [(type(root).__name__, root) for root in roots]
    while stack:
        label, one = stack.pop()
        if isinstance(one, _PLAIN) or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, _CONTAINERS):
            found[label] += len(one)
            inside = [*one, *one.values()] if isinstance(one, dict | Mapping) else one
            stack += [(label, thing) for thing in inside]
        elif type(one).__module__.split(".")[0] in ("minisgl_tui", "uvicorn"):
            stack += [(f"{type(one).__name__}.{name}", value) for name, value in _fields(one)]
    return found


def _fields(one: object) -> Iterator[tuple[str, Any]]:
    names = {*getattr(one, "__dict__", ())}
    for kind in type(one).__mro__:
        slots = getattr(kind, "__slots__", ())
        names |= {slots} if isinstance(slots, str) else {*slots}
    names |= {*getattr(one, "__struct_fields__", ())}
    for name in names - {"__dict__", "__weakref__"}:
        if hasattr(one, name):
            yield name, getattr(one, name)


def grown(before: Counter[str], after: Counter[str], slack: int) -> dict[str, tuple[int, int]]:
    """Containers that have gained more than ``slack`` entries."""
    return {
        name: (before[name], count) for name, count in after.items() if count - before[name] > slack
    }
