"""From checked prompts to an answer, whole or streamed; completions and chat only shape it.

A generation is closed however its answer ends, so that a client who goes leaves nothing running.
"""

import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from .access import note
from .connection import Batches, EventStream, while_connected
from .constraints import check_grammar, grammar_of
from .engine_thread import Generation, Prompt
from .fields import stops_of, wants_usage
from .protocol import GenerateRequest, PromptTokensDetails, SamplingRequest, Usage
from .serving import Serving
from .text import Choice, Echo, Entry, Piece, StopStrings
from .tool_parser import CallParser, ToolCall, joined


@dataclass(slots=True)
class Job:
    """What to run. ``echoes`` are what each prompt's answers begin with, if with anything.

    ``calls`` makes what tells an answer's tool calls, for each answer; ``markers`` are the special
    tokens that have a text.
    """

    prompts: list[Prompt]
    stops: list[str]
    n: int = 1
    include_stop: bool = False
    limit: int | None = None  # 0: no tokens are wanted
    priority: int = 0
    salt: str = ""
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    echoes: list[Echo] = field(default_factory=list)
    calls: Callable[[], CallParser] | None = None
    markers: Mapping[int, str] = field(default_factory=dict)
    constrained_by: str = ""  # the field that made the grammar of the parameters


def job_for(asked: GenerateRequest, prompts: list[Prompt], limit: int | None) -> Job:
    """What ``asked`` wants with ``prompts``. ApiError 400 where it makes no sense."""
    job = single_job(asked, prompts)
    job.n = asked.n or 1
    job.limit = limit
    job.include_usage, job.continuous_usage = wants_usage(asked)
    return job


def single_job(asked: SamplingRequest, prompts: list[Prompt]) -> Job:
    """The same for an endpoint that has one answer to a prompt."""
    return Job(
        prompts=prompts,
        stops=stops_of(asked),
        include_stop=bool(asked.include_stop_str_in_output),
        priority=asked.priority or 0,
        salt=asked.cache_salt or "",
        stream=bool(asked.stream),
        constrained_by=constraint[0] if (constraint := grammar_of(asked)) else "",
    )


@dataclass(slots=True)
class Answered:
    """All that one choice came to, piece by piece."""

    pieces: list[Piece]

    @property
    def parts(self) -> list[str | ToolCall]:
        """Texts and tool calls in their order, most often one text."""
        return joined(part for piece in self.pieces for part in piece.parts)

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    @property
    def calls(self) -> list[ToolCall]:
        return [part for part in self.parts if isinstance(part, ToolCall)]

    @property
    def entries(self) -> list[Entry]:
        return [entry for piece in self.pieces for entry in piece.entries]

    @property
    def token_ids(self) -> list[int]:
        return [token for piece in self.pieces for token in piece.token_ids]

    @property
    def finish_reason(self) -> str:
        return self.pieces[-1].finish_reason or ""


@dataclass(slots=True)
class Heading:
    """What every chunk of an answer repeats."""

    prefix: str
    model: str
    id: str = ""
    created: int = 0

    def __post_init__(self) -> None:
        self.id = f"{self.prefix}-{uuid.uuid4().hex}"
        self.created = int(time.time())


class Shape(Protocol):
    """How an endpoint says it: whole, or as the objects of a stream."""

    @property
    def id(self) -> str:
        """That of the answer, which its client sees."""
        ...

    def opening(self, index: int) -> Sequence[msgspec.Struct]:
        """What is said before a choice's first piece."""
        ...

    def chunk(self, index: int, piece: Piece, usage: Usage | None) -> Sequence[msgspec.Struct]: ...

    def last(self, usage: Usage) -> Sequence[msgspec.Struct]: ...

    def whole(self, answers: Sequence[Answered], usage: Usage) -> msgspec.Struct: ...


async def respond(
    request: Request,
    serving: Serving,
    job: Job,
    shape: Shape,
    stream: Callable[[Batches, Callable[[], None]], EventStream] = EventStream,
) -> Response:
    """Run ``job`` and answer ``request``, as long as its client is there."""
    runner, params = serving.thread.engine.runner, job.prompts[0].params  # all have one grammar
    await check_grammar(runner, params, job.constrained_by)
    generation = serving.thread.generate(
        job.prompts, job.n, priority=job.priority, salt=job.salt, name=shape.id
    )
    answer = _Answer(serving, job, shape, generation)

    def end() -> None:
        generation.close()
        usage = answer.usage()
        note(
            request.scope,
            id=shape.id,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.prompt_tokens_details.cached_tokens,
            completion_tokens=usage.completion_tokens,
        )

    if job.stream:
        chunks = answer.chunks()
        try:  # what fails before the first chunk is a plain error
            first = await while_connected(request.receive, anext(chunks))
        except BaseException:
            end()
            raise
        return stream(_chain(first, chunks), end)
    try:
        whole = await while_connected(request.receive, answer.whole())
    finally:
        end()
    return Response(msgspec.json.encode(whole), media_type="application/json")


class _Answer:
    """The choices of a job, fed by its generation."""

    def __init__(self, serving: Serving, job: Job, shape: Shape, generation: Generation) -> None:
        self._job = job
        self._shape = shape
        self._generation = generation
        eos = serving.thread.engine.config.eos_token_ids
        ends = [
            frozenset() if job.include_stop else frozenset({*eos, *prompt.params.stop_token_ids})
            for prompt in job.prompts
        ]
        self._choices = [
            Choice(
                serving.tokenizer.detokenizer(prompt.tokens),
                StopStrings(job.stops, job.include_stop),
                limit=prompt.params.max_tokens if job.limit is None else job.limit,
                min_tokens=prompt.params.min_tokens,
                echo=job.echoes[index] if job.echoes else None,
                calls=job.calls() if job.calls else None,
                markers=job.markers,
                ends=ends[index],
            )
            for index, prompt in enumerate(job.prompts)
            for _ in range(job.n)
        ]

    def usage(self) -> Usage:
        """So far. A prompt counts once; what its first answer computed is no hit of the others."""
        job, choices = self._job, self._choices
        prompt = sum(len(prompt.tokens) for prompt in job.prompts)
        output = sum(choice.completion_tokens for choice in choices)
        cached = sum(
            min(choice.cached_tokens for choice in choices[first : first + job.n])
            for first in range(0, len(choices), job.n)
        )
        return Usage(prompt, output, prompt + output, PromptTokensDetails(cached))

    async def whole(self) -> msgspec.Struct:
        pieces: list[list[Piece]] = [[] for _ in self._choices]
        async for batch in self._batches():
            for index, piece in batch:
                pieces[index].append(piece)
        return self._shape.whole([Answered(of_one) for of_one in pieces], self.usage())

    async def chunks(self) -> Batches:
        job, shape = self._job, self._shape
        opened: set[int] = set()
        async for batch in self._batches():
            chunks: list[msgspec.Struct] = []
            usage = self.usage() if job.continuous_usage else None
            for index, piece in batch:
                if index not in opened:
                    opened.add(index)
                    chunks += shape.opening(index)
                chunks += shape.chunk(index, piece, usage)
            yield chunks
        if job.include_usage:
            yield list(shape.last(self.usage()))

    async def _batches(self) -> AsyncIterator[list[tuple[int, Piece]]]:
        """What there is to say, by choice, each time that something is."""
        async for updates in self._generation.updates():
            batch: list[tuple[int, Piece]] = []
            for update in updates:
                choice = self._choices[update.choice]
                piece = None if choice.finish_reason else choice.take(update)
                if piece:
                    batch.append((update.choice, piece))
                if choice.finish_reason:
                    self._generation.stop(update.choice)
            if batch:
                yield batch


async def _chain(first: list[msgspec.Struct], rest: Batches) -> Batches:
    yield first
    async for batch in rest:
        yield batch
