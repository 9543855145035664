"""A response's ``input`` as a conversation for the chat template."""

from typing import Any

from ..engine.models.fields import shown
from .errors import bad_request
from .fields import convert
from .protocol import ChatMessage, ContentPart
from .responses_protocol import NOTHING_STORED, InputMessage, InputPart, ResponsesRequest


def conversation(asked: ResponsesRequest) -> list[ChatMessage]:
    """The messages that ``input`` stands for, ``instructions`` in front. ApiError 400.

    A ``reasoning`` item, which clients send back from other servers, is no part of the
    conversation: templates show a model what was said, not what was thought. System and developer
    messages at the beginning are one system message with the instructions, since many templates
    know a single one.
    """
    if isinstance(asked.input, str):
        given = [ChatMessage("user", asked.input)]
    else:
        items = enumerate(asked.input)
        given = [message for index, item in items if (message := _message(item, f"input[{index}]"))]
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


def _texts(message: ChatMessage) -> list[str]:
    if isinstance(message.content, str):
        return [message.content]
    return [part.text or "" for part in message.content or []]


def _message(item: dict[str, Any], where: str) -> ChatMessage | None:
    kind = item.get("type") or ("message" if "role" in item else None)
    if kind == "message":
        message = convert(item, InputMessage, where)
        return ChatMessage(message.role, _content(message.content, f"{where}.content"))
    if kind == "reasoning":
        return None
    if kind == "item_reference":
        raise bad_request(f"{where} is an item_reference; {NOTHING_STORED}", where)
    raise bad_request(
        f"{where}.type is {shown(kind)}; this server reads message and reasoning items",
        f"{where}.type",
    )


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
