"""``POST /v1/completions``: texts or token ids, one prompt or many, gone on with."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from ..engine.errors import RequestRefused
from ..engine.models.fields import shown
from .engine_thread import Prompt
from .errors import bad_request, refused
from .fields import (
    check_ids,
    sampling_params,
)
from .generate import Answered, Heading, Job, job_for, respond
from .logprobs import completion_logprobs
from .protocol import Completion, CompletionChoice, CompletionRequest, Usage
from .serving import Serving
from .text import Piece, echo_of

DEFAULT_MAX_TOKENS = 16  # OpenAI's


async def completions(request: Request) -> Response:
    """Goes on with a prompt, or with each of several, as text or as token ids."""
    serving: Serving = request.app.state.serving
    asked = await serving.read(request, CompletionRequest)
    texts = await _texts(serving, asked)
    prompts = [await _prompt(serving, asked, text) for text in texts]
    job = job_for(asked, prompts, asked.limit)
    job.markers = serving.markers(asked)
    if asked.echo:
        ids = [prompt.tokens for prompt in prompts]
        texts = ids if asked.truncate_prompt_tokens else texts
        pairs = zip(texts, ids, strict=True)
        job.echoes = [echo_of(serving.tokenizer, *pair, job.markers) for pair in pairs]
    return await respond(request, serving, job, CompletionShape(serving, asked, job))


async def _texts(serving: Serving, asked: CompletionRequest) -> list[str | list[int]]:
    """The prompts as they came, in a list; long lists are looked through out of the loop's way."""
    prompt = asked.prompt
    if isinstance(prompt, str):
        return [prompt]
    count = 1 if isinstance(prompt[0], int | float) else len(prompt)
    serving.thread.check_count(count * (asked.n or 1))
    return await serving.encode(lambda: as_prompts(prompt))


async def _tokens(serving: Serving, asked: CompletionRequest, text: str | list[int]) -> list[int]:
    """The token ids of one prompt: all of them, or more than the context has room for."""
    if not isinstance(text, str):
        return text
    special = asked.add_special_tokens is not False
    most = serving.longest if asked.truncate_prompt_tokens else serving.context
    encode = partial(serving.tokenizer.encode, text, special=special, most=most)
    try:
        return await serving.encode(encode)
    except RequestRefused as error:
        raise refused(error, "prompt") from None


def as_prompts(prompt: list[Any]) -> list[str | list[int]]:
    """``["a"]`` → ``["a"]``, ``[5, 6]`` → ``[[5, 6]]``; 400 for what mixes the two."""
    if _are_ids(prompt):
        return [_ids(prompt)]
    if all(isinstance(one, str) for one in prompt):
        return prompt
    if all(isinstance(one, list) and _are_ids(one) for one in prompt):
        return [_ids(one) for one in prompt]
    raise bad_request(
        f"prompt is {shown(prompt)}; give a text, a list of texts, a list of token ids or a list "
        "of such lists, not a mixture",
        "prompt",
    )


def _are_ids(values: list[Any]) -> bool:
    return all(type(v) is int or (type(v) is float and v.is_integer()) for v in values)


def _ids(values: list[Any]) -> list[int]:
    return [int(value) for value in values]


async def _prompt(serving: Serving, asked: CompletionRequest, text: str | list[int]) -> Prompt:
    """One prompt, checked; read by itself, so that nobody else waits for all of a batch."""
    tokens = await _tokens(serving, asked, text)
    if keep := asked.truncate_prompt_tokens:
        serving.check_whole(tokens, "prompt")
        tokens = tokens[-keep:]
    if not tokens:
        raise bad_request("the prompt is empty; it needs at least one token", "prompt")
    room = serving.room(tokens, asked.limit, DEFAULT_MAX_TOKENS, "prompt")
    check_ids(tokens, serving.vocab_size, "prompt")
    params = sampling_params(
        asked,
        serving.defaults,
        max_tokens=max(1, room),
        logprobs=asked.logprobs,
        prompt_logprobs=asked.logprobs if asked.echo else None,
        vocab_size=serving.vocab_size,
    )
    return Prompt(tokens, params)


class CompletionShape:
    """``text_completion`` objects, whole and as chunks."""

    def __init__(self, serving: Serving, asked: CompletionRequest, job: Job) -> None:
        self._heading = Heading("cmpl", serving.model)
        self.id = self._heading.id
        self._tokenizer = serving.tokenizer
        self._logprobs = asked.logprobs is not None
        self._has_ids = bool(asked.return_token_ids)
        self._job = job
        self._no_usage = None if job.include_usage else UNSET
        self._begun: set[int] = set()  # choices of which something has been said

    def opening(self, index: int) -> list[msgspec.Struct]:
        return []

    def chunk(self, index: int, piece: Piece, usage: Usage | None) -> list[msgspec.Struct]:
        choice = self._choice(index, piece)
        if index in self._begun:
            choice.prompt_token_ids = UNSET
        self._begun.add(index)
        return [self._object([choice], usage or self._no_usage)]

    def last(self, usage: Usage) -> list[msgspec.Struct]:
        return [self._object([], usage)]

    def whole(self, answers: Sequence[Answered], usage: Usage) -> msgspec.Struct:
        choices = [self._choice(index, answer) for index, answer in enumerate(answers)]
        return self._object(choices, usage)

    def _choice(self, index: int, said: Piece | Answered) -> CompletionChoice:
        logprobs = completion_logprobs(self._tokenizer, said.entries) if self._logprobs else None
        choice = CompletionChoice(index, said.text, logprobs, said.finish_reason)
        if self._has_ids:
            choice.prompt_token_ids = self._job.prompts[index // self._job.n].tokens
            choice.token_ids = said.token_ids
        return choice

    def _object(self, choices: list[CompletionChoice], usage: Any) -> Completion:
        head = self._heading
        return Completion(head.id, "text_completion", head.created, head.model, choices, usage)
