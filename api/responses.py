"""``POST /v1/responses``: the endpoint that agents speak, without its memory.

Nothing is stored: each request brings its whole conversation, and an answer cannot be asked for
again.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ..engine.sampling import SamplingParams
from .chat import apply_template, let_call
from .connection import Batches, EventStream
from .engine_thread import Prompt
from .errors import ApiError, bad_request
from .fields import sampling_params
from .generate import Answered, respond, single_job
from .logprobs import chat_logprobs
from .protocol import ChatRequest, TokenLogprob, Usage
from .responses_input import conversation
from .responses_output import Growing, new_id
from .responses_protocol import (
    InputTokensDetails,
    OutputTokensDetails,
    ResponseObject,
    ResponsesRequest,
    ResponseUsage,
    TextConfig,
    TextFormat,
)
from .responses_tools import Function, offered
from .serving import Serving
from .text import Entry, Piece
from .tools import read_tools


async def responses(request: Request) -> Response:
    """Answers a conversation with items, of which nothing is stored."""
    serving: Serving = request.app.state.serving
    asked = await serving.read(request, ResponsesRequest)
    _check(asked)
    chat = ChatRequest(
        messages=conversation(asked), chat_template_kwargs=asked.chat_template_kwargs
    )
    offers = offered(asked)
    tools = read_tools(offers.tools, offers.choice, asked.parallel_tool_calls, serving.tools)
    tokens = await apply_template(serving, chat, "input", tools)
    room = serving.room(tokens, asked.max_output_tokens, None, "input")
    params = sampling_params(
        asked,
        serving.defaults,
        max_tokens=room,
        logprobs=_top_logprobs(asked),
        vocab_size=serving.vocab_size,
    )
    job = single_job(asked, [Prompt(tokens, params)])
    job.include_usage = True
    if tools:
        let_call(job, tools)
    shape = ResponseShape(serving, asked, params, offers.functions)
    return await respond(request, serving, job, shape, partial(ResponseEvents, shape))


async def stored_response(request: Request) -> Response:
    """There is none."""
    name = request.path_params["name"]
    raise ApiError(
        404,
        f"there is no response {name[:80]!r}: this server stores none; an answer is sent once, to "
        "the request for it",
        code="response_not_found",
    )


def _check(asked: ResponsesRequest) -> None:
    if asked.stream_options is not None:
        if not asked.stream:
            raise bad_request("stream_options needs stream: true", "stream_options")
        if asked.stream_options.include_obfuscation:
            raise bad_request(
                "stream_options.include_obfuscation is not supported by this server; leave it out "
                "or send false",
                "stream_options.include_obfuscation",
            )
    if asked.text and asked.text.format:
        _check_format(asked.text.format)


def _check_format(wanted: TextFormat) -> None:
    where = "text.format"
    for name in ("name", "schema"):
        given = getattr(wanted, name) is not None
        if wanted.type == "json_schema" and not given:
            raise bad_request(f"{where}.{name} is missing; send it", f"{where}.{name}")
        if wanted.type != "json_schema" and given:
            raise bad_request(
                f"{where}.{name} is given, but the type is {wanted.type}; send the type "
                "json_schema",
                f"{where}.{name}",
            )


def _top_logprobs(asked: ResponsesRequest) -> int | None:
    if "message.output_text.logprobs" in (asked.include or ()):
        return asked.top_logprobs or 0
    if asked.top_logprobs:
        raise bad_request(
            'top_logprobs needs include: ["message.output_text.logprobs"]', "top_logprobs"
        )
    return None


class ResponseEvents(EventStream):
    """Events with names. The last one says that it is, so that nothing comes after it."""

    ending = b""

    def __init__(self, shape: "ResponseShape", batches: Batches, end: Callable[[], None]) -> None:
        super().__init__(batches, end)
        self._shape = shape

    def event(self, said: msgspec.Struct) -> bytes:
        return f"event: {said.__struct_config__.tag}\n".encode() + super().event(said)

    def failure(self, error: ApiError) -> Sequence[msgspec.Struct]:
        return self._shape.failed(error)


class ResponseShape:
    """A ``response`` object, whole or event by event."""

    def __init__(
        self,
        serving: Serving,
        asked: ResponsesRequest,
        params: SamplingParams,
        functions: Mapping[str, Function],
    ) -> None:
        self.id = new_id("resp")
        self._tokenizer = serving.tokenizer
        self._logprobs = params.logprobs is not None
        self._block_size = serving.thread.engine.config.block_size
        text = asked.text or TextConfig()
        self._answer = Growing(
            ResponseObject(
                id=self.id,
                created_at=int(time.time()),
                status="in_progress",
                model=serving.model,
                output=[],
                instructions=asked.instructions,
                max_output_tokens=asked.max_output_tokens,
                max_tool_calls=asked.max_tool_calls,
                metadata=asked.metadata or {},
                parallel_tool_calls=asked.parallel_tool_calls is not False,
                temperature=params.temperature,
                text=TextConfig(text.format or TextFormat("text"), text.verbosity),
                tool_choice=asked.tool_choice or "auto",
                tools=asked.tools or [],
                top_logprobs=asked.top_logprobs or 0,
                top_p=params.top_p,
            ),
            functions,
        )

    def opening(self, index: int) -> Sequence[msgspec.Struct]:
        return self._answer.events()

    def chunk(self, index: int, piece: Piece, usage: Usage | None) -> Sequence[msgspec.Struct]:
        self._answer.add(piece.parts, self._shown(piece.entries))
        if piece.finish_reason:
            self._answer.end(piece.finish_reason)
        return self._answer.events()

    def last(self, usage: Usage) -> Sequence[msgspec.Struct]:
        self._answer.complete(self._counted(usage))
        return self._answer.events()

    def whole(self, answers: Sequence[Answered], usage: Usage) -> msgspec.Struct:
        (answer,) = answers
        for piece in answer.pieces:
            self.chunk(0, piece, None)
        self.last(usage)
        return self._answer.now()

    def failed(self, error: ApiError) -> Sequence[msgspec.Struct]:
        self._answer.fail(error)
        return self._answer.events()

    def _shown(self, entries: list[Entry]) -> list[TokenLogprob]:
        return chat_logprobs(self._tokenizer, entries).content if self._logprobs else []

    def _counted(self, usage: Usage) -> ResponseUsage:
        cached = usage.prompt_tokens_details.cached_tokens
        full = usage.prompt_tokens // self._block_size * self._block_size
        return ResponseUsage(
            usage.prompt_tokens,
            InputTokensDetails(cached, full - cached),
            usage.completion_tokens,
            OutputTokensDetails(),
            usage.total_tokens,
        )
