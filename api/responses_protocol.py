"""The bodies of ``/v1/responses``, as OpenAI names them: the request, the answer and its events.

Items of a conversation and events are told apart by ``type``.
"""

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from .not_here import NotHere
from .protocol import (
    JsonSchema,
    ResponseFormat,
    SamplingRequest,
    Schema,
    TokenLogprob,
    Top,
)

NOTHING_STORED = "nothing is stored here; send the whole conversation as input"

Include = Literal[
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
]


class InputPart(msgspec.Struct):
    """A piece of a message: ``input_text`` and ``output_text`` have a text, ``refusal`` its own."""

    type: str
    text: str | None = None
    refusal: str | None = None


class InputMessage(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[InputPart]


class InputCall(msgspec.Struct):
    """``arguments`` are JSON, as text. ``namespace`` is that of the function, if it is in one."""

    call_id: str
    name: str
    arguments: str
    namespace: str | None = None


class InputCallOutput(msgspec.Struct):
    call_id: str
    output: str | list[InputPart]


class Namespace(msgspec.Struct):
    """Functions under one name; ``description`` is about all of them."""

    name: str
    tools: list[dict[str, Any]]
    description: str | None = None


class TextFormat(msgspec.Struct, omit_defaults=True):
    """The members beside ``type`` are for ``json_schema``."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: Schema | None = None
    description: str | None = None
    strict: bool | None = None


class TextConfig(msgspec.Struct, omit_defaults=True):
    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ResponseStreamOptions(msgspec.Struct):
    include_obfuscation: bool | None = None


Items = Annotated[
    list[dict[str, Any]],
    Meta(min_length=1, description="Messages, tool calls and their outputs, as OpenAI has them."),
]


class ResponsesRequest(SamplingRequest, kw_only=True):
    """``input`` is a text or a list of items; `responses_input` says which.

    Of ``include``, only the log-probabilities are ever there to be included. The last group says
    nothing about the answer: any value of the right type is taken.
    """

    NOT_HERE: ClassVar[dict[str, NotHere]] = {
        "access_programs": NotHere(),
        "background": NotHere((False,)),
        "background_options": NotHere(),
        "context_management": NotHere(([],)),
        "conversation": NotHere((), NOTHING_STORED),
        "image": NotHere(),
        "logprobs": NotHere((), 'send include: ["message.output_text.logprobs"]'),
        "max_completion_tokens": NotHere((), "send max_output_tokens"),
        "max_tokens": NotHere((), "send max_output_tokens"),
        "messages": NotHere((), "send input"),
        "moderation": NotHere(),
        "n": NotHere((1,)),
        "previous_response_id": NotHere((), NOTHING_STORED),
        "prompt": NotHere((), "send input"),
        "prompt_cache_options": NotHere(),
        "response_format": NotHere((), "send text: {format: ...}"),
        "truncation": NotHere(("disabled",)),
    }

    FORMAT: ClassVar[str] = "text.format"

    input: str | Items
    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    include: list[Include] | None = None
    top_logprobs: Top | None = None
    text: TextConfig | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    metadata: Annotated[dict[str, str], Meta(max_length=16)] | None = None

    reasoning: dict[str, Any] | None = None
    max_tool_calls: int | None = None  # of tools that OpenAI runs itself
    client_metadata: dict[str, Any] | None = None

    @property
    def response_format(self) -> ResponseFormat | None:
        """``text.format`` as chat has it."""
        wanted = self.text and self.text.format
        if not wanted:
            return None
        if wanted.type != "json_schema":
            return ResponseFormat(wanted.type)
        return ResponseFormat(wanted.type, JsonSchema(wanted.name or "", wanted.schema))


# --- the answer ----------------------------------------------------------------------------------


class OutputText(msgspec.Struct, tag_field="type", tag="output_text"):
    """``logprobs`` is empty where they were not asked for."""

    text: str = ""
    annotations: list[Any] = []
    logprobs: list[TokenLogprob] = []


class OutputMessage(msgspec.Struct, tag_field="type", tag="message"):
    id: str
    status: str
    content: list[OutputText]
    role: str = "assistant"


class OutputCall(msgspec.Struct, tag_field="type", tag="function_call"):
    """``call_id`` is what its output will name; ``arguments`` are JSON, as the model wrote it."""

    id: str
    call_id: str
    name: str
    arguments: str
    status: str
    namespace: str | UnsetType = UNSET


OutputItem = OutputMessage | OutputCall


class InputTokensDetails(msgspec.Struct):
    """``cache_write_tokens`` are those in blocks that the prompt was the first to fill."""

    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(msgspec.Struct):
    """What a model thinks aloud is part of its text, and not counted apart."""

    reasoning_tokens: int = 0


class ResponseUsage(msgspec.Struct):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class IncompleteDetails(msgspec.Struct):
    reason: str


class ResponseError(msgspec.Struct):
    code: str
    message: str


class Reasoning(msgspec.Struct, frozen=True):
    effort: None = None
    summary: None = None


class ResponseObject(msgspec.Struct, kw_only=True):
    """An answer, or as much as there is of it. Settings are those that were applied."""

    id: str
    object: str = "response"
    created_at: int
    completed_at: int | None = None
    status: str
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    model: str
    output: list[OutputItem]
    usage: ResponseUsage | None = None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    temperature: float
    text: TextConfig
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    background: bool = False
    previous_response_id: None = None
    reasoning: Reasoning = Reasoning()
    store: bool = False
    truncation: str = "disabled"


# --- events --------------------------------------------------------------------------------------


class Event(msgspec.Struct, kw_only=True, tag_field="type"):
    sequence_number: int = 0


class _OfResponse(Event, kw_only=True):
    response: ResponseObject


class Created(_OfResponse, tag="response.created"):
    pass


class InProgress(_OfResponse, tag="response.in_progress"):
    pass


class Completed(_OfResponse, tag="response.completed"):
    pass


class Incomplete(_OfResponse, tag="response.incomplete"):
    pass


class Failed(_OfResponse, tag="response.failed"):
    pass


class _OfItem(Event, kw_only=True):
    output_index: int
    item: OutputItem


class ItemAdded(_OfItem, tag="response.output_item.added"):
    pass


class ItemDone(_OfItem, tag="response.output_item.done"):
    pass


class _InItem(Event, kw_only=True):
    item_id: str
    output_index: int


class _OfPart(_InItem, kw_only=True):
    content_index: int = 0
    part: OutputText


class PartAdded(_OfPart, tag="response.content_part.added"):
    pass


class PartDone(_OfPart, tag="response.content_part.done"):
    pass


class TextDelta(_InItem, kw_only=True, tag="response.output_text.delta"):
    content_index: int = 0
    delta: str
    logprobs: list[TokenLogprob]


class TextDone(_InItem, kw_only=True, tag="response.output_text.done"):
    content_index: int = 0
    text: str
    logprobs: list[TokenLogprob]


class ArgumentsDelta(_InItem, kw_only=True, tag="response.function_call_arguments.delta"):
    delta: str


class ArgumentsDone(_InItem, kw_only=True, tag="response.function_call_arguments.done"):
    arguments: str


ResponseEvent = (
    Created
    | InProgress
    | ItemAdded
    | PartAdded
    | TextDelta
    | TextDone
    | PartDone
    | ArgumentsDelta
    | ArgumentsDone
    | ItemDone
    | Completed
    | Incomplete
    | Failed
)
