"""Many clients at once: nothing is mixed up, lost or left behind, and streams say the same."""

import asyncio
import json
import random
from pathlib import Path
from threading import Event
from typing import Any

import httpx2
import pytest

from .conftest import Live, break_down, live, tiny_llm
from .waiting import until

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"

SEEDS = [
    "Write 😀😃😄 and 🏳️‍🌈 again:",
    "日本語で答えてください。",
    "Скажи это по-русски:",
    "한국어로 대답하세요.",
    "é à ñ — “quotes” … №",
    "नमस्ते, कैसे हैं आप?",
    "👩‍👩‍👧‍👦👍🏽 means",
    "plain ASCII text",
]


def body(index: int, **changes: Any) -> dict[str, Any]:
    rng = random.Random(index)
    prompt = [rng.randrange(6, 260) for _ in range(rng.randint(1, 60))]
    settings = {"prompt": prompt, "max_tokens": rng.randint(1, 40), "ignore_eos": True}
    return {**settings, "temperature": 0, **changes}


async def streamed(
    http: httpx2.AsyncClient, path: str, body: dict[str, Any], heard: Event | None = None
) -> list[Any]:
    """The objects of a stream, whose form is checked on the way. ``heard`` is set by the first."""
    raw = ""
    async with http.stream("POST", path, json={**body, "stream": True}) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "content-length" not in answer.headers
        async for text in answer.aiter_text():
            raw += text
            if heard:
                heard.set()
    *events, done, rest = raw.split("\n\n")
    assert done == "data: [DONE]" and rest == ""
    assert all(event.startswith("data: {") and "\n" not in event for event in events)
    return [json.loads(event.removeprefix("data: ")) for event in events]


def texts_of(chunks: list[Any]) -> dict[int, tuple[str, str | None]]:
    """Each choice's text and finish reason; nothing comes after the reason."""
    found: dict[int, tuple[str, str | None]] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            text, reason = found.get(choice["index"], ("", None))
            assert reason is None
            more = choice["text"] if "text" in choice else choice["delta"].get("content", "")
            found[choice["index"]] = (text + more, choice["finish_reason"])
    return found


async def plain(http: httpx2.AsyncClient, path: str, body: dict[str, Any]) -> dict[int, Any]:
    answer = await http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return {
        choice["index"]: (
            choice["text"] if "text" in choice else choice["message"]["content"],
            choice["finish_reason"],
        )
        for choice in answer.json()["choices"]
    }


async def test_64_streams_at_once_say_what_each_says_alone(http: httpx2.AsyncClient):
    bodies = [body(index) for index in range(64)]
    together = await asyncio.gather(*(streamed(http, TEXT, one) for one in bodies))
    for one, chunks in zip(bodies, together, strict=True):
        assert texts_of(chunks) == await plain(http, TEXT, one)


async def test_seeded_answers_do_not_depend_on_company(http: httpx2.AsyncClient):
    bodies = [body(index, temperature=1.0, seed=index) for index in range(24)]
    together = await asyncio.gather(*(plain(http, TEXT, one) for one in bodies))
    assert together == [await plain(http, TEXT, one) for one in bodies]


async def test_a_short_request_overtakes_a_long_one(http: httpx2.AsyncClient):
    long = asyncio.create_task(plain(http, TEXT, body(1, max_tokens=400)))
    await asyncio.sleep(0.05)
    await plain(http, TEXT, body(2, max_tokens=2))
    assert not long.done()
    await long


@pytest.mark.parametrize("settings", [{}, {"n": 3, "temperature": 1.0, "seed": 3}])
async def test_streams_equal_plain_answers_over_random_bytes(
    http: httpx2.AsyncClient, settings: dict[str, Any]
):
    """200 answers that are mostly broken UTF-8, cut anywhere."""

    async def one(index: int) -> None:
        asked = body(index, **settings)
        assert texts_of(await streamed(http, TEXT, asked)) == await plain(http, TEXT, asked)

    for first in range(0, 100, 20):
        await asyncio.gather(*(one(index) for index in range(first, first + 20)))


async def test_stop_strings_cut_streams_and_plain_answers_alike(http: httpx2.AsyncClient):
    for index in range(30):
        asked = body(index, max_tokens=40)
        ((whole, _),) = (await plain(http, TEXT, asked)).values()
        rng = random.Random(index)
        at = rng.randrange(len(whole))
        stop = whole[at : at + rng.randint(1, 3)]
        asked["stop"] = [stop, "never to be found"]
        expected = whole[: whole.index(stop)]
        for found in (texts_of(await streamed(http, TEXT, asked)), await plain(http, TEXT, asked)):
            assert found == {0: (expected, "stop")}
        included = await plain(http, TEXT, {**asked, "include_stop_str_in_output": True})
        assert included == {0: (expected + stop, "stop")}


async def test_no_stream_of_the_default_model_breaks_a_character(smollm: Live):
    """Emoji, CJK and combining marks; a replacement character can only be the last."""
    async with httpx2.AsyncClient(base_url=smollm.url, timeout=120) as http:

        async def one(index: int) -> None:
            messages = [{"role": "user", "content": f"{SEEDS[index % len(SEEDS)]} {index // 8}"}]
            asked = {"messages": messages, "temperature": 0, "max_tokens": 10 + index % 5}
            chunks = await streamed(http, CHAT, asked)
            assert texts_of(chunks) == await plain(http, CHAT, asked)
            for chunk in chunks:
                delta = chunk["choices"][0]["delta"].get("content", "")
                assert "\ufffd" not in delta[:-1]
                assert not delta.endswith("\ufffd") or chunk["choices"][0]["finish_reason"]

        await asyncio.gather(*(one(index) for index in range(32)))


async def test_usage_is_the_same_streamed_and_not(http: httpx2.AsyncClient):
    asked = body(7, n=2)
    chunks = await streamed(http, TEXT, {**asked, "stream_options": {"include_usage": True}})
    whole = (await http.post(TEXT, json=asked)).json()["usage"]
    *others, last = chunks
    assert last["choices"] == [] and all(chunk["usage"] is None for chunk in others)
    assert {**last["usage"], "prompt_tokens_details": whole["prompt_tokens_details"]} == whole
    assert whole["completion_tokens"] == 2 * asked["max_tokens"]
    assert all("usage" not in chunk for chunk in await streamed(http, TEXT, asked))
    always = {"stream_options": {"continuous_usage_stats": True}}
    counts = [c["usage"]["completion_tokens"] for c in await streamed(http, TEXT, asked | always)]
    assert counts == sorted(counts) and counts[-1] == whole["completion_tokens"]


async def test_clients_that_leave_at_random_leave_nothing_behind(tiny: Live):
    """200 of them: before the first token, in mid-stream, waiting for a plain answer."""
    rng = random.Random(11)
    async with httpx2.AsyncClient(base_url=tiny.url, timeout=60) as http:

        async def leave(index: int) -> None:
            asked = body(index, max_tokens=300, n=rng.choice([1, 1, 3]), stream=index % 2 == 0)
            try:
                async with asyncio.timeout(rng.random() * 0.4):
                    async with http.stream("POST", TEXT, json=asked) as answer:
                        async for _ in answer.aiter_raw():
                            if rng.random() < 0.02:
                                break
            except TimeoutError:
                pass

        for first in range(0, 200, 40):
            await asyncio.gather(*(leave(index) for index in range(first, first + 40)))
            answer = await plain(http, TEXT, body(first, max_tokens=3))
            assert answer == await plain(http, TEXT, body(first, max_tokens=3))
    await until(lambda: not tiny.serving.thread.live)
    tiny.assert_nothing_left()


async def test_a_failure_after_the_first_token_ends_the_stream_with_an_error(tiny_model: Path):
    llm = tiny_llm(tiny_model)
    with live(llm) as server, pytest.MonkeyPatch.context() as patch:
        heard = break_down(llm, patch)
        async with httpx2.AsyncClient(base_url=server.url) as http:
            chunks = await streamed(http, TEXT, body(1, max_tokens=20), heard)
            assert chunks[-1]["error"]["message"].startswith("the engine failed while it ran")
            assert len(chunks) > 1
            answer = await http.post(TEXT, json=body(2))
            assert answer.status_code == 500
            assert answer.json()["error"]["type"] == "server_error"
        server.assert_nothing_left()
