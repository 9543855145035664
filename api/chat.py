"""``POST /v1/chat/completions``: a conversation, through the model's chat template."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from ..engine.errors import UserError
from ..engine.tokenizer import Message
from .engine_thread import Prompt
from .errors import bad_request, refused
from .fields import (
    sampling_params,
)
from .generate import Answered, Heading, Job, job_for, respond
from .logprobs import chat_logprobs
from .protocol import (
    AnswerMessage,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatMessage,
    ChatRequest,
    ChunkChoice,
    Delta,
    FunctionCall,
    FunctionDelta,
    MessageToolCall,
    ToolCallDelta,
    Usage,
)
from .serving import Serving
from .text import Entry, Piece
from .tool_parser import CallDelta, ToolCall
from .tools import CallHistory, Tools, read_tools


async def chat_completions(request: Request) -> Response:
    """Answers a conversation, through the model's chat template."""
    serving: Serving = request.app.state.serving
    asked = await serving.read(request, ChatRequest)
    logprobs = _top_logprobs(asked)
    tools = read_tools(asked.tools, asked.tool_choice, asked.parallel_tool_calls, serving.tools)
    keep = asked.truncate_prompt_tokens
    tokens = await apply_template(serving, asked, tools=tools, whole=keep is not None)
    tokens = tokens[-keep:] if keep else tokens
    room = serving.room(tokens, asked.limit, None, "messages")
    params = sampling_params(
        asked,
        serving.defaults,
        max_tokens=max(1, room),
        logprobs=logprobs,
        vocab_size=serving.vocab_size,
    )
    job = job_for(asked, [Prompt(tokens, params)], asked.limit)
    job.markers = serving.markers(asked)
    if tools:
        let_call(job, tools)
    shape = ChatShape(serving, asked, job, tools)
    return await respond(request, serving, job, shape)


def let_call(job: Job, tools: Tools) -> None:
    """Have the answers of ``job`` call ``tools``. ApiError 400 if they cannot call anything."""
    if job.constrained_by:
        raise bad_request(
            f"{job.constrained_by} and tools: an answer that is held to a grammar can call "
            'nothing; leave one out or send tool_choice: "none"',
            job.constrained_by,
        )
    job.calls, job.markers = tools.parser, {**job.markers, **tools.markers}
    if forced := tools.grammar():
        job.constrained_by = "tools"
        for prompt in job.prompts:
            prompt.params = msgspec.structs.replace(prompt.params, grammar=forced)


async def apply_template(
    serving: Serving,
    asked: ChatRequest,
    param: str = "messages",
    tools: Tools | None = None,
    *,
    whole: bool = False,
) -> list[int]:
    """The token ids of the conversation, with the ``tools`` that the model is told of; or 400 for
    ``param`` where there is no making sense of it. Of one that is longer than the context only a
    beginning that is, unless ``whole`` is wanted."""
    if asked.continue_final_message and asked.add_generation_prompt:
        raise bad_request(
            "continue_final_message and add_generation_prompt exclude each other; send one",
            "continue_final_message",
        )
    opens_turn = asked.add_generation_prompt
    if opens_turn is None:
        opens_turn = not asked.continue_final_message

    def applied() -> list[int]:
        specs = tools.specs if tools else []
        return serving.tokenizer.apply_chat(
            serving.tools.written(template_messages(asked.messages), specs),
            add_generation_prompt=opens_turn,
            continue_final_message=bool(asked.continue_final_message),
            template_kwargs=asked.chat_template_kwargs,
            tools=specs if serving.tools.shown else None,
            most=serving.longest if whole else serving.context,
        )

    try:
        tokens = await serving.encode(applied)
    except UserError as error:
        raise refused(error, param) from None
    if whole:
        serving.check_whole(tokens, param)
    return tokens


def template_messages(messages: Sequence[ChatMessage]) -> list[Message]:
    """Messages as templates want them: texts in one piece, arguments of calls as objects, results
    with the name of their function, and ``system`` for ``developer``."""
    found: list[Message] = []
    history = CallHistory()
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        role = "system" if message.role == "developer" else message.role
        one: Message = {"role": role, "content": _text(message, f"{where}.content")}
        if message.name is not None:
            one["name"] = message.name
        found.append(one | history.take(message, where))
    return found


def _text(message: ChatMessage, where: str) -> str:
    if isinstance(message.content, str):
        return message.content
    if message.content is None:
        if message.role == "assistant":  # one of ours that had calls, or ended before it said any
            return ""
        raise bad_request(f"{where} is missing; send a text", where)
    texts: list[str] = []
    for part in message.content:
        if part.type != "text" or part.text is None:
            raise bad_request(
                f"{where} has a part of type {part.type[:40]!r}; this model reads text parts: "
                '{"type": "text", "text": ...}',
                where,
            )
        texts.append(part.text)
    return "\n".join(texts)


def _top_logprobs(asked: ChatRequest) -> int | None:
    if asked.top_logprobs is not None and not asked.logprobs:
        raise bad_request("top_logprobs needs logprobs: true", "top_logprobs")
    return (asked.top_logprobs or 0) if asked.logprobs else None


class ChatShape:
    """``chat.completion`` objects and their chunks; a choice's first chunk names its role.

    With ``tools`` an answer may have calls, and content is null where it has nothing else. It has
    then ended with ``tool_calls``; but ``stop`` where one function was asked for by name, and
    ``length`` where it was cut.
    """

    def __init__(self, serving: Serving, asked: ChatRequest, job: Job, tools: Tools | None) -> None:
        self._heading = Heading("chatcmpl", serving.model)
        self.id = self._heading.id
        self._tokenizer = serving.tokenizer
        self._logprobs = bool(asked.logprobs)
        self._no_usage = None if job.include_usage else UNSET
        self._prompt = job.prompts[0].tokens if asked.return_token_ids else UNSET
        self._tools = tools
        self._calling: set[int] = set()  # choices of a stream that have called something

    def opening(self, index: int) -> list[msgspec.Struct]:
        delta = Delta("assistant", None if self._tools else "")
        opening = self._chunk([ChunkChoice(index, delta)], self._no_usage)
        opening.prompt_token_ids = self._prompt
        return [opening]

    def chunk(self, index: int, piece: Piece, usage: Usage | None) -> list[msgspec.Struct]:
        delta = Delta(content=piece.text) if piece.text else Delta()
        if calls := [_delta(part) for part in piece.parts if isinstance(part, CallDelta)]:
            delta.tool_calls = calls
            self._calling.add(index)
        reason = self._reason(piece.finish_reason, index in self._calling)
        choice = ChunkChoice(index, delta, self._shown(piece.entries), reason, self._ids(piece))
        return [self._chunk([choice], usage or self._no_usage)]

    def last(self, usage: Usage) -> list[msgspec.Struct]:
        return [self._chunk([], usage)]

    def whole(self, answers: Sequence[Answered], usage: Usage) -> msgspec.Struct:
        choices = [
            ChatChoice(
                index,
                self._message(answer),
                self._shown(answer.entries),
                self._reason(answer.finish_reason, bool(answer.calls)) or "",
                self._ids(answer),
            )
            for index, answer in enumerate(answers)
        ]
        head = self._heading
        return ChatCompletion(
            head.id, head.created, head.model, choices, usage, prompt_token_ids=self._prompt
        )

    def _message(self, answer: Answered) -> AnswerMessage:
        message = AnswerMessage(answer.text or (None if self._tools else ""))
        if answer.calls:
            message.tool_calls = [_call(call) for call in answer.calls]
        return message

    def _reason(self, ended: str | None, called: bool) -> str | None:
        by_name = self._tools and self._tools.only
        return "tool_calls" if ended == "stop" and called and not by_name else ended

    def _chunk(self, choices: list[ChunkChoice], usage: Any) -> ChatChunk:
        head = self._heading
        return ChatChunk(head.id, head.created, head.model, choices, usage)

    def _ids(self, said: Piece | Answered) -> list[int] | UnsetType:
        return said.token_ids if self._prompt is not UNSET else UNSET

    def _shown(self, entries: Sequence[Entry]) -> Any:
        return chat_logprobs(self._tokenizer, entries) if self._logprobs else None


def _call(call: ToolCall) -> MessageToolCall:
    return MessageToolCall(call.id, FunctionCall(call.name, call.arguments))


def _delta(part: CallDelta) -> ToolCallDelta:
    function = FunctionDelta(part.arguments)
    if not part.name:
        return ToolCallDelta(part.index, function)
    function.name = part.name
    return ToolCallDelta(part.index, function, part.id, "function")
