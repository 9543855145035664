"""A client of OpenAI's ``/v1/completions`` that notes when each token came.

Owns one streamed request, and what can go wrong with it by name; `online` sends many. Several
tokens may come in one chunk. How many is asked of the server (``continuous_usage_stats``, which
vLLM and SGLang know); where it does not tell, each chunk counts for as many as came on average,
which the totals in its usage then make exact. A chunk's gap is shared evenly by its tokens.
"""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from time import perf_counter
from typing import Any

import httpx2

from ..asking import base_url, bearer, error_message, shortened
from ..errors import UserError
from ..sampling import LARGEST, SamplingParams
from .workloads import BenchRequest

ToText = Callable[[list[int]], str]

_CONNECT_SECONDS = 10.0
_MAX_ERROR = 1 << 16  # bytes read of an error's body


class RequestFailed(Exception):
    """A request that failed; ``str(error)`` names why, the same for all that fail alike."""


class _Status(RequestFailed):
    """The server answered with a status of 400 or above."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}: {text}")
        self.status = status


@dataclass(slots=True)
class Answer:
    """One request's stream. ``chunks`` has the time of each that carried tokens, and how many
    tokens had come by then, or None where the server does not say. Times in seconds; ``asked`` is
    the most tokens there may be."""

    sent: float
    asked: int
    chunks: list[tuple[float, int | None]] = field(default_factory=list)
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None

    @property
    def counted(self) -> int:
        """Tokens that came: by the server's account, else one a chunk."""
        return len(self.chunks) if self.output_tokens is None else self.output_tokens

    def itl(self) -> list[float]:
        """Seconds a token, for each after those of the first chunk."""
        gaps: list[float] = []
        average = self.counted / max(1, len(self.chunks))
        for (before, had), (now, has) in pairwise(self.chunks):
            if had is None or has is None:
                gaps.append((now - before) / average)
            else:
                gaps += [(now - before) / (has - had)] * (has - had)
        return gaps


class Server:
    """A client of the server at ``url``.

    ``to_text`` turns prompts into text, for servers that take no token ids. ``timeout`` is in
    seconds a request, from sending it to its last token. `open` comes first.
    """

    def __init__(
        self, url: str, *, api_key: str | None, timeout: float, to_text: ToText | None = None
    ) -> None:
        self.url = base_url(url, "--url")
        self.model = ""
        self._timeout = timeout
        self._to_text = to_text
        self._counts_chunks = True
        self._client = httpx2.AsyncClient(
            headers=bearer(api_key),
            timeout=httpx2.Timeout(timeout, connect=_CONNECT_SECONDS),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
        )

    async def __aenter__(self) -> "Server":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.aclose()

    async def open(self, model: str | None, prompt: list[int]) -> None:
        """Settle which model to ask, and try one short request; UserError where that fails."""
        try:
            self.model = model or await self._first_model()
            request = BenchRequest(
                prompt=prompt[:16],
                params=SamplingParams(temperature=0, max_tokens=2, ignore_eos=True),
            )
            try:
                await self.ask(request)
            except _Status as error:
                if error.status not in (400, 422):
                    raise
                self._counts_chunks = False  # not every server knows of it
                await self.ask(request)
        except RequestFailed as error:
            raise UserError(f"{self.url}: {error}{_advice(error)}") from error

    async def _first_model(self) -> str:
        async with self._errors():
            response = await self._client.get(f"{self.url}/v1/models")
            if response.is_error:
                raise _Status(response.status_code, error_message(response.content))
            try:
                found = response.json()["data"]
                names = [str(model["id"]) for model in found]
            except (ValueError, KeyError, TypeError, RecursionError):
                raise RequestFailed(f"/v1/models answers {shortened(response.text)}") from None
        if not names:
            raise UserError(f"{self.url} lists no model; name one with --model")
        return names[0]

    async def ask(self, request: BenchRequest) -> Answer:
        """One streamed completion. Raises `RequestFailed`."""
        if math.isinf(request.params.temperature):
            raise RequestFailed("temperature is inf, which JSON cannot say; give a number")
        body: dict[str, Any] = {
            **request.sampling,
            "model": self.model,
            "prompt": self._to_text(request.prompt) if self._to_text else request.prompt,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if request.priority:
            body["priority"] = request.priority
        if self._counts_chunks:
            body["stream_options"]["continuous_usage_stats"] = True
        answer = Answer(perf_counter(), request.params.max_tokens)
        async with (
            self._errors(),
            asyncio.timeout(self._timeout),
            self._client.stream("POST", f"{self.url}/v1/completions", json=body) as response,
        ):
            if response.is_error:
                raise _Status(response.status_code, error_message(await _start(response)))
            await _follow(response, answer)
        return answer

    @asynccontextmanager
    async def _errors(self) -> AsyncIterator[None]:
        """Whatever can go wrong with a request, as a `RequestFailed` with a name."""
        try:
            yield
        except (TimeoutError, httpx2.TimeoutException) as error:
            what = "connecting" if isinstance(error, httpx2.ConnectTimeout) else "an answer"
            seconds = _CONNECT_SECONDS if what == "connecting" else self._timeout
            raise RequestFailed(f"timed out: {what} took over {seconds:g} s") from error
        except httpx2.ConnectError as error:
            raise RequestFailed(f"cannot connect ({error})") from error
        except httpx2.SSEError as error:
            raise RequestFailed(f"no event stream ({error})") from error
        except httpx2.HTTPError as error:
            raise RequestFailed(
                f"the connection broke ({error or type(error).__name__})"
            ) from error


async def _follow(response: httpx2.Response, answer: Answer) -> None:
    """Read the stream to its ``[DONE]``, noting when tokens came."""
    finished = False
    async for event in httpx2.EventSource(response):
        now = perf_counter()
        if event.data == "[DONE]":
            finished = True
            break
        try:
            chunk = json.loads(event.data)
            if "error" in chunk:
                raise RequestFailed(f"error in the stream: {error_message(event.data.encode())}")
            _take(chunk, now, answer)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise RequestFailed(f"a chunk that is no completion: {shortened(event.data)}") from None
    if not finished:
        raise RequestFailed("the stream ended without [DONE]")
    if not answer.chunks or not answer.counted:
        raise RequestFailed("the stream had no tokens")


def _take(chunk: dict[str, Any], now: float, answer: Answer) -> None:
    usage, total = chunk.get("usage"), 0
    if usage:
        had = answer.output_tokens or 0
        answer.prompt_tokens = _count(usage, "prompt_tokens", 0, LARGEST)
        answer.output_tokens = total = _count(usage, "completion_tokens", had, answer.asked)
        details = usage.get("prompt_tokens_details") or {}
        if details.get("cached_tokens") is not None:
            answer.cached_tokens = _count(details, "cached_tokens", 0, answer.prompt_tokens)
    choices = chunk.get("choices")
    if not choices:
        return  # the usage alone
    before = answer.chunks[-1][1] if answer.chunks else 0
    if usage and before is not None:
        if total > before:
            answer.chunks.append((now, total))
    elif choices[0]["text"] or not choices[0].get("finish_reason"):
        # A token may have no text of its own, but then it is not the end of the answer.
        answer.chunks.append((now, None))


def _count(usage: dict[str, Any], name: str, least: int, most: int) -> int:
    count = usage[name]
    if type(count) is not int or not least <= count <= most:
        raise RequestFailed(f"a usage that cannot be: {name} is {shortened(str(count))}")
    return count


def _advice(error: RequestFailed) -> str:
    status = error.status if isinstance(error, _Status) else None
    if status in (401, 403):
        return "; give the server's key with --api-key"
    if status == 404:
        return "; check the address, and the model's name (--model)"
    return "" if status else "; is an OpenAI-compatible server running there?"


async def _start(response: httpx2.Response) -> bytes:
    """The beginning of an answer of unknown length."""
    body = b""
    async for part in response.aiter_bytes():
        body += part
        if len(body) > _MAX_ERROR:
            break
    return body
