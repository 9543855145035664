"""Characters of several tokens, cut anywhere: streams and plain answers say what the bytes say.

Most of it runs on a runner that goes on with a script of its own for each prompt, a byte a token,
so that what must come out is known without asking the server.
"""

import asyncio
import codecs
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from minisgl_tui.api.simulated import byte_tokenizer
from minisgl_tui.engine.config import EngineConfig
from minisgl_tui.engine.engine import Engine
from minisgl_tui.engine.plan import Row
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.simulate import SimulatedRunner

from .conftest import Live, live
from .test_streams import CHAT, SEEDS, TEXT, plain, streamed, texts_of

PIECES = (
    *("😀", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "1️⃣", "🇯🇵"),  # of several code points, up to 25 bytes
    *("日本語", "한국어", "中", "한"),
    *("e\u0301", "n\u0303\u0323", "नमस्ते", "ก็"),  # combining marks
    *("שלום", "مرحبا", "\u200f", "\u202e"),  # right to left
    *("é", "ß", "€", "\u2028", "\U0010ffff"),
    "\ufffd.",  # a character like others; but windows cannot tell several in a row from halves
    *("a", "ab", " ", "\n", '"', "\\", "\x00", "data: [DONE]\n\n"),
)


@cache
def script(prompt: bytes) -> str:
    """What the runner answers to ``prompt``."""
    return "".join(random.Random(prompt).choices(PIECES, k=60))


def next_token(row: Row) -> int:
    request = row.request
    prompt = bytes(request.tokens[: request.prompt_len])
    return script(prompt).encode()[row.end - request.prompt_len]


@pytest.fixture(scope="module", params=["bytes", "windows"])
def scripted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    """A server of scripts; its texts are made from bytes or from windows of tokens."""
    tokenizer = byte_tokenizer(tmp_path_factory.mktemp("bytes"))
    if request.param == "windows":
        tokenizer._scheme = "other"
    config = EngineConfig(num_blocks=1024, vocab_size=256)
    runner = SimulatedRunner(config.num_blocks, config.block_size, next_token)
    model = SimpleNamespace(
        engine=Engine(config, runner, runner.clock),
        tokenizer=tokenizer,
        default_params=SamplingParams(),
    )
    with live(model) as server:
        yield server
        server.assert_nothing_left()


@dataclass
class Case:
    path: str
    body: dict[str, Any]
    expected: dict[int, tuple[str, str]]


def case(server: Live, number: int) -> Case:
    """One request, whose answer is cut in mid-character as often as not, and its answer."""
    rng = random.Random(number)
    text = "".join(rng.choices((*PIECES, "\ufffd"), k=rng.randint(1, 6)))
    if rng.random() < 0.5:
        path, asked = TEXT, {"prompt": text}
        prompt = server.serving.tokenizer.encode(text)
    else:
        messages = [{"role": "user", "content": text}]
        path, asked = CHAT, {"messages": messages}
        prompt = server.serving.tokenizer.apply_chat(messages)
    length = rng.randint(1, 60)
    whole = script(bytes(prompt)).encode()[:length].decode(errors="replace")
    settings: dict[str, Any] = {"max_tokens": length}
    reason = "length"
    if rng.random() < 0.6:
        at = rng.randrange(len(whole))
        stops = [whole[at : at + rng.randint(1, 4)], rng.choice(PIECES), "😀a never"]
        settings["stop"] = stops[rng.randint(0, 1) :]
        ends = [(i + len(s), i) for s in settings["stop"] if (i := whole.find(s)) >= 0]
        if ends:
            end, start = min(ends)
            included = settings["include_stop_str_in_output"] = rng.random() < 0.3
            whole, reason = whole[: end if included else start], "stop"
    return Case(path, asked | settings, {0: (whole, reason)})


async def test_500_prompts_are_answered_with_what_their_bytes_say(scripted: Live):
    async with httpx2.AsyncClient(base_url=scripted.url, timeout=60) as http:

        async def check(number: int) -> int:
            one = case(scripted, number)
            chunks = await streamed(http, one.path, one.body)
            assert texts_of(chunks) == one.expected, one
            assert await plain(http, one.path, one.body) == one.expected, one
            return one.expected[0][0].endswith("\ufffd")

        cut = 0
        for first in range(0, 500, 25):
            cut += sum(await asyncio.gather(*map(check, range(first, first + 25))))
    assert cut > 50  # answers that end in mid-character were among them


# --- log-probabilities ---------------------------------------------------------------------------


def offsets_and_text(tokens: list[bytes]) -> tuple[list[int], str]:
    """Where each token's text begins, in characters that are complete by then; and the text."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    offsets, text = list[int](), ""
    for token in tokens:
        offsets.append(len(text))
        text += decoder.decode(token)
    return offsets, text + decoder.decode(b"", final=True)


def spelled(token: str, special: set[str]) -> bytes:
    """``bytes:\\xf0\\x9f`` and ``a`` as bytes; a special token is named and adds none."""
    if token in special:
        return b""
    if token.startswith("bytes:"):
        return bytes.fromhex(token.removeprefix("bytes:").replace("\\x", ""))
    return token.encode()


async def check_logprobs(
    server: Live, http: httpx2.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    """Tokens, bytes and offsets of both answers agree with each other and with the text."""
    tokenizer = server.serving.tokenizer
    special = {tokenizer.token_text(token) for token in tokenizer.special_ids}
    wanted = {"logprobs": 2} if path == TEXT else {"logprobs": True, "top_logprobs": 2}
    body = {**body, **wanted}
    whole = (await http.post(path, json=body)).json()["choices"][0]
    chunks = [chunk["choices"][0] for chunk in await streamed(http, path, body)]
    parts = [chunk["logprobs"] for chunk in chunks if chunk["logprobs"]]
    text = whole["text"] if path == TEXT else whole["message"]["content"]
    said = [c["text"] if path == TEXT else c["delta"].get("content", "") for c in chunks]
    assert "".join(said) == text
    if path == TEXT:
        for name in ("tokens", "text_offset"):
            assert [one for part in parts for one in part[name]] == whole["logprobs"][name]
        tokens = [spelled(token, special) for token in whole["logprobs"]["tokens"]]
        offsets, expected = offsets_and_text(tokens)
        assert whole["logprobs"]["text_offset"] == offsets
    else:
        content = whole["logprobs"]["content"]
        said_bytes = [entry["bytes"] for part in parts for entry in part["content"]]
        assert said_bytes == [entry["bytes"] for entry in content]
        tokens = [spelled(entry["token"], special) for entry in content]
        assert all(bytes(e["bytes"]) == t for e, t in zip(content, tokens, strict=True) if t)
        _, expected = offsets_and_text(tokens)
    if whole["finish_reason"] == "length":
        assert text == expected and len(tokens) == body["max_tokens"]
    else:
        assert expected.startswith(text)


@pytest.mark.parametrize("path", [TEXT, CHAT])
async def test_log_probabilities_spell_the_text_of_random_bytes(tiny: Live, path: str):
    async with httpx2.AsyncClient(base_url=tiny.url, timeout=60) as http:

        async def check(number: int) -> None:
            rng = random.Random(number)
            text = "".join(rng.choices(PIECES, k=4))
            body: dict[str, Any] = {"max_tokens": rng.randint(1, 24), "ignore_eos": True}
            body |= rng.choice(({"temperature": 0}, {"temperature": 1, "seed": number}))
            if rng.random() < 0.3:
                body["stop"] = ["\ufffd\ufffd", "a"]
            if path == TEXT:
                body["prompt"] = text
            else:
                body["messages"] = [{"role": "user", "content": text}]
            await check_logprobs(tiny, http, path, body)

        for first in range(0, 100, 20):
            await asyncio.gather(*map(check, range(first, first + 20)))


async def test_log_probabilities_spell_the_text_of_the_default_model(smollm: Live):
    async with httpx2.AsyncClient(base_url=smollm.url, timeout=120) as http:

        async def check(number: int) -> None:
            body: dict[str, Any] = {"max_tokens": 12, "temperature": 0, "ignore_eos": True}
            text = SEEDS[number % len(SEEDS)]
            if number % 2:
                await check_logprobs(smollm, http, TEXT, {**body, "prompt": text})
            else:
                messages = [{"role": "user", "content": f"Repeat: {text}"}]
                await check_logprobs(smollm, http, CHAT, {**body, "messages": messages})

        await asyncio.gather(*map(check, range(12)))
