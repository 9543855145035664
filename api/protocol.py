"""The bodies of requests and answers, field by field, as OpenAI, vLLM and SGLang name them.

A field that is in no class here is refused by name, as `not_here.py` says, or unknown to everybody.
null counts as absent throughout. Ranges stand with the types: bodies are checked by them, and
``/openapi.json`` states them.
"""

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from . import not_here
from .not_here import NotHere

TokenId = Annotated[int, Meta(ge=0)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Length = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Top = Annotated[int, Meta(ge=0, le=20, description="How many of the likeliest tokens to list.")]
StopString = Annotated[str, Meta(min_length=1, max_length=1024)]

FinishReason = Annotated[str, Meta(extra_json_schema={"enum": ["stop", "length", "tool_calls"]})]
LogitBias = Annotated[
    dict[str, Annotated[float, Meta(ge=-100, le=100)]],
    Meta(
        description="By token id; 100 all but forces a token, -100 all but bans it.",
        extra_json_schema={"propertyNames": {"pattern": "^[0-9]{1,10}$"}},
    ),
]
_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
Prompts = Annotated[
    list[Any],
    Meta(
        min_length=1,
        description="Texts, token ids, or lists of token ids; not a mixture.",
        examples=[["One prompt", "Another"], [5, 6, 7]],
        extra_json_schema={
            "anyOf": [{"items": {"type": "string"}}, _IDS, {"items": _IDS}],
        },
    ),
]

Role = Literal["system", "developer", "user", "assistant", "tool"]


class ContentPart(msgspec.Struct):
    """A piece of a message; ``type`` is ``text``."""

    type: str
    text: str | None = None


class FunctionCall(msgspec.Struct):
    """``arguments`` are JSON, as text."""

    name: str
    arguments: str


class MessageToolCall(msgspec.Struct):
    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class ChatMessage(msgspec.Struct):
    """An assistant's may have ``tool_calls``, alone or after content; a ``tool``'s is the result of
    the one with its ``tool_call_id``."""

    role: Role
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[MessageToolCall] | None = None
    tool_call_id: str | None = None


class FunctionTool(msgspec.Struct):
    """``parameters`` is a JSON schema; none is for a function without arguments.

    With ``strict`` the arguments of a call are sure to fit it.
    """

    name: Annotated[str, Meta(extra_json_schema={"pattern": "^[a-zA-Z0-9_-]{1,64}$"})]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct):
    type: Literal["function"]
    function: FunctionTool


class FunctionName(msgspec.Struct):
    name: str


class NamedTool(msgspec.Struct):
    """``{"type": "function", "function": {"name": "get_weather"}}``"""

    type: Literal["function"]
    function: FunctionName


ToolChoice = Literal["none", "auto", "required"] | NamedTool


Messages = Annotated[
    list[ChatMessage],
    Meta(min_length=1, examples=[[{"role": "user", "content": "Hello"}]]),
]


class StreamOptions(msgspec.Struct):
    """``continuous_usage_stats`` (vLLM's) puts the usage so far into every chunk."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


Schema = Annotated[dict[str, Any], Meta(description="A JSON schema.")]
SchemaText = Annotated[str, Meta(description="A JSON schema, as text.", examples=["{}"])]
Regex = Annotated[str, Meta(description="The whole answer matches it.", examples=["[0-9]{4}"])]
Lark = Annotated[
    str, Meta(description="In llguidance's dialect of Lark.", examples=['start: "yes" | "no"'])
]
Choice = Annotated[
    list[Annotated[str, Meta(min_length=1)]],
    Meta(
        min_length=1,
        max_length=1 << 14,
        description="The answer is one of these.",
        examples=[["yes", "no"]],
    ),
]


class JsonSchema(msgspec.Struct, forbid_unknown_fields=True):
    """``strict`` makes no difference: the answer fits the schema in any case."""

    name: str
    schema: Schema | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, forbid_unknown_fields=True):
    """OpenAI's. ``json_schema`` goes with the type of that name."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StructuredOutputs(msgspec.Struct, forbid_unknown_fields=True):
    """vLLM's: one of these."""

    json: Schema | SchemaText | None = None
    regex: Regex | None = None
    choice: Choice | None = None
    grammar: Lark | None = None
    json_object: bool | None = None


class SamplingRequest(msgspec.Struct, kw_only=True):
    """What every request for an answer may say.

    The last group are OpenAI's notes to itself: they say nothing about the answer, so any value of
    the right type is taken.
    """

    model: str | None = None
    stop: StopString | Annotated[list[StopString], Meta(max_length=64)] | None = None
    stream: bool | None = None

    temperature: Annotated[float, Meta(ge=0, le=2, description="0 is greedy.")] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    seed: Int64 | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None

    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1, description="-1 and 0: off.")] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0)] | None = None
    min_tokens: Annotated[int, Meta(ge=0, description="At most max_tokens.")] | None = None
    ignore_eos: bool | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=1024)] | None = None
    include_stop_str_in_output: bool | None = None

    structured_outputs: StructuredOutputs | None = None
    guided_json: Schema | SchemaText | None = None
    guided_regex: Regex | None = None
    guided_choice: Choice | None = None
    guided_grammar: Lark | None = None
    json_schema: Schema | SchemaText | None = None
    regex: Regex | None = None

    priority: Annotated[Int64, Meta(description="Lower runs first, by such a policy.")] | None = (
        None
    )
    cache_salt: Annotated[str, Meta(description="Prefixes are shared within one.")] | None = None

    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None


class GenerateRequest(SamplingRequest, kw_only=True):
    """What completions and chat have in common. Of those that vLLM named, ``skip_special_tokens``
    (true unless said otherwise) leaves special tokens out of texts, ``return_token_ids`` has the
    ids sent along, and ``truncate_prompt_tokens`` keeps the last so many of a prompt.
    """

    max_tokens: Length | None = None
    max_completion_tokens: Length | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    response_format: ResponseFormat | None = None
    stream_options: StreamOptions | None = None
    skip_special_tokens: bool | None = None
    return_token_ids: bool | None = None
    truncate_prompt_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None

    @property
    def limit(self) -> int | None:
        """Of the two names for the most tokens of an answer the newer one counts."""
        newer = self.max_completion_tokens
        return self.max_tokens if newer is None else newer


class CompletionRequest(GenerateRequest, kw_only=True):
    """``prompt`` is a text, a list of texts, a list of token ids or a list of such lists.

    ``add_special_tokens`` (true unless said otherwise) puts those in front of texts that the model
    expects there.
    """

    NOT_HERE: ClassVar[dict[str, NotHere]] = not_here.COMPLETIONS

    prompt: Annotated[str, Meta(examples=["Once upon a time"])] | Prompts
    echo: bool | None = None
    logprobs: Top | None = None
    add_special_tokens: bool | None = None


class ChatRequest(GenerateRequest, kw_only=True):
    NOT_HERE: ClassVar[dict[str, NotHere]] = not_here.CHAT

    messages: Messages
    logprobs: bool | None = None
    top_logprobs: Top | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None


class TokenizeRequest(msgspec.Struct):
    """Either ``prompt``, or ``messages`` with what chat may say about the template.

    ``add_special_tokens`` (true unless said otherwise) is about a prompt alone: a template names
    the special tokens that it wants.
    """

    model: str | None = None
    prompt: str | None = None
    messages: Messages | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None


class DetokenizeRequest(msgspec.Struct):
    tokens: list[TokenId]
    model: str | None = None


# --- answers -------------------------------------------------------------------------------------


class PromptTokensDetails(msgspec.Struct):
    cached_tokens: int


class Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class CompletionLogprobs(msgspec.Struct):
    """One entry a token; ``text_offset`` is where its text begins in the choice's text."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(msgspec.Struct):
    """Of a stream the first chunk has the ``prompt_token_ids``, and each its own ``token_ids``."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason | None
    prompt_token_ids: list[int] | UnsetType = UNSET
    token_ids: list[int] | UnsetType = UNSET


class Completion(msgspec.Struct):
    """Whole, or a chunk of a stream: ``usage`` is absent, or null, where it is not asked for."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | UnsetType | None = UNSET


class TopLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct):
    content: list[TokenLogprob]
    refusal: None = None


class AnswerMessage(msgspec.Struct):
    """``content`` is null where there are only calls."""

    content: str | None
    role: Literal["assistant"] = "assistant"
    refusal: None = None
    tool_calls: list[MessageToolCall] | UnsetType = UNSET


class ChatChoice(msgspec.Struct):
    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason
    token_ids: list[int] | UnsetType = UNSET


class ChatCompletion(msgspec.Struct):
    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    object: Literal["chat.completion"] = "chat.completion"
    prompt_token_ids: list[int] | UnsetType = UNSET


class FunctionDelta(msgspec.Struct):
    arguments: str
    name: str | UnsetType = UNSET


class ToolCallDelta(msgspec.Struct):
    """``id``, ``type`` and the name come with the first of a call, its arguments bit by bit."""

    index: int
    function: FunctionDelta
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET


class Delta(msgspec.Struct):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET


class ChunkChoice(msgspec.Struct):
    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None
    token_ids: list[int] | UnsetType = UNSET


class ChatChunk(msgspec.Struct):
    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | UnsetType | None = UNSET
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    prompt_token_ids: list[int] | UnsetType = UNSET


class ModelCard(msgspec.Struct):
    id: str
    created: int
    max_model_len: int
    owned_by: str = "minisgl-tui"
    object: Literal["model"] = "model"


class ModelList(msgspec.Struct):
    data: list[ModelCard]
    object: Literal["list"] = "list"


class Version(msgspec.Struct):
    version: str


class ServerInfo(msgspec.Struct):
    """As SGLang names it: ``page_size`` is the tokens of a KV block, ``max_total_num_tokens`` what
    all blocks hold, ``context_length`` the longest prompt and answer together."""

    model_path: str
    served_model_name: str
    version: str
    context_length: int
    max_total_num_tokens: int
    max_running_requests: int
    max_batch_tokens: int
    page_size: int
    schedule_policy: str
    tp_size: int = 1
    dp_size: int = 1


class ModelInfo(msgspec.Struct):
    """``model_path`` is the name that clients use, never a path of the server's machine."""

    model_path: str
    served_model_name: str
    max_context_length: int
    vocab_size: int
    eos_token_ids: list[int]
    is_generation: bool = True


class Flushed(msgspec.Struct):
    """``freed_blocks`` were cached and are free now; what running requests hold stays."""

    freed_blocks: int


class Tokens(msgspec.Struct):
    tokens: list[int]
    count: int
    max_model_len: int
    token_strs: list[str] | UnsetType = UNSET


class TokenizerInfo(msgspec.Struct):
    """What lm-eval's remote tokenizer and other clients need to make prompts of their own."""

    tokenizer_class: str
    vocab_size: int
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    unk_token: str | None
    chat_template: str | None


class Text(msgspec.Struct):
    prompt: str
