"""`serve --debug-redact`: whoever watches sees what happens, and nothing that is said."""

import httpx2
from minisgl_tui.engine.debugger import Mode
from minisgl_tui.engine.tokenizer import Tokenizer
from minisgl_tui.tui.sources.http import HttpSource
from tui.pilot import NARROW, running

from .served import Watched, served

PROMPT = "quetzalcoatl"
BODY = {
    "prompt": PROMPT,
    "max_tokens": 6,
    "stop": ["never-in-it"],
    "logprobs": 3,
    "cache_salt": "tenant-7",
    "logit_bias": {"81": 0.5},
}


def said_to_viewers(server: Watched) -> str:
    """All that the debug routes tell, over some heartbeats."""
    said = [httpx2.get(f"{server.url}/debug/state").text]
    with httpx2.stream("GET", f"{server.url}/debug/events?from=-1", timeout=20) as response:
        for line in response.iter_lines():
            said.append(line)
            if len(said) > 40:
                break
    return "\n".join(said)


async def test_nothing_that_is_said_leaves_the_process(tokenizer: Tokenizer) -> None:
    with served(tokenizer, redact=True) as server:
        server.control("break", "anna", condition='ev == "sampled"', log_only=True)
        server.control("break", "anna", condition='ev == "submitted"', log_only=True)
        httpx2.post(f"{server.url}/v1/completions", json=BODY, timeout=60)
        server.control("until", "anna", condition='ev == "submitted"')
        server.ask_on(4)
        async with running(NARROW, HttpSource(server.url)) as on:
            await on.until(lambda: on.store.link is not None and on.store.mode is Mode.PAUSED)
            await on.until(lambda: "prompts and answers are redacted" in on.text())
            request = on.store.now.requests[0]
            assert on.store.texts.prompt(request) == "▒" * len(PROMPT)
            assert on.store.texts.answer(request) == "▒" * 6
            said = said_to_viewers(server)
            shown = on.text()
        ids = [ord(letter) for letter in PROMPT]
        for wire in (said, shown):
            assert "quetzal" not in wire and "tenant" not in wire and "never-in-it" not in wire
            assert ",".join(map(str, ids[:3])) not in wire
        assert '"81":0.5' not in said and "submitted" in said


async def test_prefixes_are_shared_as_they_are(tokenizer: Tokenizer) -> None:
    with served(tokenizer, redact=True) as server:
        for _ in range(2):
            server.ask(4, "the same long beginning of a prompt, and then some more of it")
        async with running(NARROW, HttpSource(server.url)) as on:
            await on.until(lambda: on.store.link is not None and on.store.mode is Mode.PLAYING)
            first, second = on.store.now.requests[0], on.store.now.requests[1]
            assert first.tokens[: first.prompt_len] == second.tokens[: second.prompt_len]
            assert second.cached_tokens > 0
