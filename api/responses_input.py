"""A response's ``input`` as a conversation for the chat template."""

from collections.abc import Sequence
from typing import Any

from ..engine.models.fields import shown
from .errors import bad_request
from .fields import convert
from .protocol import ChatMessage, ContentPart, FunctionCall, MessageToolCall
from .responses_protocol import (
    NOTHING_STORED,
    InputCall,
    InputCallOutput,
    InputMessage,
    InputPart,
    ResponsesRequest,
)
from .responses_tools import Function
from .tools import arguments_object


def conversation(asked: ResponsesRequest) -> list[ChatMessage]:
    """The messages that ``input`` stands for, ``instructions`` in front. ApiError 400.

    A ``reasoning`` item, which clients send back from other servers, is no part of the
    conversation: templates show a model what was said, not what was thought. System and developer
    messages at the beginning are one system message with the instructions, since many templates
    know a single one. Calls that follow each other, or the text they came with, are one message.
    """
    if isinstance(asked.input, str):
        given = [ChatMessage("user", asked.input)]
    else:
        given = _messages(asked.input)
    if not given:
        raise bad_request("input has no message; send a text or at least one", "input")
    first = [ChatMessage("system", asked.instructions)] if asked.instructions else []
    leading = next(
        (i for i, message in enumerate(given) if message.role not in ("system", "developer")),
        len(given),
    )
    first += given[:leading]
    parts = [ContentPart("text", text) for message in first for text in _texts(message)]
    system = [ChatMessage("system", parts)] if parts else []
    return system + given[leading:]


def _messages(items: Sequence[dict[str, Any]]) -> list[ChatMessage]:
    messages: list[ChatMessage] = []
    called: set[str] = set()
    for index, item in enumerate(items):
        where = f"input[{index}]"
        kind = item.get("type") or ("message" if "role" in item else None)
        if kind == "message":
            message = convert(item, InputMessage, where)
            content = _content(message.content, f"{where}.content")
            messages.append(ChatMessage(message.role, content))
        elif kind == "function_call":
            call = _call(convert(item, InputCall, where), f"{where}.arguments")
            called.add(call.id)
            if not messages or messages[-1].role != "assistant":
                messages.append(ChatMessage("assistant"))
            messages[-1].tool_calls = [*(messages[-1].tool_calls or ()), call]
        elif kind == "function_call_output":
            output = convert(item, InputCallOutput, where)
            if output.call_id not in called:
                raise bad_request(
                    f"{where}.call_id is {shown(output.call_id)}, which no function_call before it "
                    "has as its call_id",
                    f"{where}.call_id",
                )
            content = _content(output.output, f"{where}.output")
            messages.append(ChatMessage("tool", content, tool_call_id=output.call_id))
        elif kind == "item_reference":
            raise bad_request(f"{where} is an item_reference; {NOTHING_STORED}", where)
        elif kind != "reasoning":
            raise bad_request(
                f"{where}.type is {shown(kind)}; this server reads message, function_call, "
                "function_call_output and reasoning items",
                f"{where}.type",
            )
    return messages


def _call(call: InputCall, where: str) -> MessageToolCall:
    arguments_object(call.arguments, where)
    told = Function(call.name, call.namespace).told
    return MessageToolCall(call.call_id, FunctionCall(told, call.arguments))


def _texts(message: ChatMessage) -> list[str]:
    if isinstance(message.content, str):
        return [message.content]
    return [part.text or "" for part in message.content or []]


def _content(content: str | list[InputPart], where: str) -> str | list[ContentPart]:
    if isinstance(content, str):
        return content
    return [ContentPart("text", _text(part, f"{where}[{i}]")) for i, part in enumerate(content)]


def _text(part: InputPart, where: str) -> str:
    """``{"type": "input_text", "text": "hi"}`` → ``hi``"""
    if part.type not in ("input_text", "output_text", "refusal"):
        raise bad_request(
            f"{where} is of type {shown(part.type)}; this model reads text: "
            '{"type": "input_text", "text": ...}',
            where,
        )
    name = "refusal" if part.type == "refusal" else "text"
    text = getattr(part, name)
    if text is None:
        raise bad_request(f"{where}.{name} is missing; send it", f"{where}.{name}")
    return text
