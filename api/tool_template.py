"""How a model is told of tools, and how it writes its calls: what its chat template says of both.

A template that shows tools is asked to write a call, and the format is the one that reads it. One
that shows none is used with a description of the tools in the system message, and with calls and
results spelled out in plain messages, in the form that Hermes models know.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..engine.errors import UserError
from ..engine.tokenizer import Message, Tokenizer
from .tool_parser import FORMATS, HERMES, CallParser, Format, ToolCall, joined

Specs = Sequence[Mapping[str, Any]]  # tools as templates want them, which is how OpenAI has them

PARSERS = ("auto", *FORMATS, "none")


@dataclass(frozen=True, slots=True)
class ToolTemplate:
    """``format`` is how the model's calls are told, None where ``refusal`` says why they are not.

    ``shown``: the model's own template has a place for tools. ``system``: it takes a system
    message. ``markers`` are the special tokens among those that set calls off, with their texts.
    """

    format: Format | None = None
    shown: bool = False
    system: bool = True
    refusal: str = ""
    markers: Mapping[int, str] = field(default_factory=dict)

    def written(self, messages: Sequence[Message], tools: Specs) -> list[Message]:
        """``messages`` for the template, which has ``tools`` as well if it has a place for them."""
        return list(messages) if self.shown else spelled_out(messages, tools, self.system)


def check_parser(parser: str) -> None:
    if parser not in PARSERS:
        raise UserError(f"--tool-parser is {parser!r}; it must be one of {', '.join(PARSERS)}")


def tool_template(tokenizer: Tokenizer, parser: str = "auto") -> ToolTemplate:
    """What ``tokenizer``'s template makes of tools, if their calls are to be read by ``parser``.

    Raises UserError for a parser that cannot be right.
    """
    check_parser(parser)
    if not tokenizer.has_chat_template:
        return ToolTemplate(refusal="the model has no chat template")
    shown = _shows_tools(tokenizer)
    system = shown or _takes_system(tokenizer)
    if parser == "none":
        return ToolTemplate(None, shown, system, "this server was started with --tool-parser none")
    if not shown and parser not in ("auto", HERMES.name):
        raise UserError(
            f"--tool-parser is {parser}, but the model's chat template shows no tools; it is told "
            "of them in the form of hermes: leave the flag out"
        )
    format = HERMES
    if shown:
        format = _format_of(tokenizer) if parser == "auto" else FORMATS[parser]
    if format is None:
        return ToolTemplate(
            None,
            shown,
            system,
            "the model's chat template writes calls in a form that this server does not read",
        )
    return ToolTemplate(format, shown, system, "", tokenizer.special_tokens(format.markers))


_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Its name"}},
            "required": ["city"],
        },
    },
}
_QUESTION = {"role": "user", "content": "What is the weather in Rome?"}
_ARGUMENTS = {"city": "Rome"}
_CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "call00000",
            "type": "function",
            "function": {"name": "get_weather", "arguments": _ARGUMENTS},
        }
    ],
}


def _written(tokenizer: Tokenizer, *messages: Message, opened: bool = False) -> str | None:
    """With the tool; None where the template refuses."""
    try:
        return tokenizer.chat_text(messages, tools=[_TOOL], add_generation_prompt=opened)
    except UserError:
        return None


def _shows_tools(tokenizer: Tokenizer) -> bool:
    told = _written(tokenizer, _QUESTION)
    try:
        return told not in (None, tokenizer.chat_text([_QUESTION], add_generation_prompt=False))
    except UserError:  # one that is for tools alone
        return told is not None


def _takes_system(tokenizer: Tokenizer) -> bool:
    try:
        tokenizer.chat_text([{"role": "system", "content": "Be brief."}, _QUESTION])
    except UserError:
        return False
    return True


def _format_of(tokenizer: Tokenizer) -> Format | None:
    """The format that reads the call which the template writes."""
    whole = _written(tokenizer, _QUESTION, _CALL)
    # An opened turn may begin with something that a turn from earlier has not, such as <think>.
    for opened in (True, False):
        before = _written(tokenizer, _QUESTION, opened=opened)
        if whole is None or before is None:
            continue
        turn = whole[_common(before, whole) :]
        for format in FORMATS.values():
            parser = CallParser(format, ["get_weather"])
            parts = joined(parser.feed(turn) + parser.end())
            calls = [part for part in parts if isinstance(part, ToolCall)]
            if len(calls) == 1 and _object(calls[0].arguments) == _ARGUMENTS:
                return format
    return None


def _common(one: str, other: str) -> int:
    """The length of the text that both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _object(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


# --- for templates that know nothing of tools ----------------------------------------------------

_DESCRIPTION = """\
You can call functions. Each line between <tools> and </tools> describes one:
<tools>
{tools}
</tools>
To call one, write its name and its arguments as JSON in this form, once for each call:
<tool_call>
{{"name": "the name", "arguments": {{"an argument": "its value"}}}}
</tool_call>
What it returns comes back between <tool_response> and </tool_response>."""


def spelled_out(messages: Sequence[Message], tools: Specs, system: bool = True) -> list[Message]:
    """The conversation in messages that have a role and content only.

    The tools are described at the end of the system message, or before the first message where
    the template takes no ``system``. A call becomes what the model would have written, and results
    that follow each other one message of the user's.
    """
    found: list[Message] = []
    for index, message in enumerate(messages):
        role, content = message["role"], message["content"]
        if role == "tool":
            response = f"<tool_response>\n{content}\n</tool_response>"
            if index and messages[index - 1]["role"] == "tool":
                found[-1]["content"] += f"\n{response}"
            else:
                found.append({"role": "user", "content": response})
        elif calls := message.get("tool_calls"):
            texts = [content] if content else []
            texts += [_spelled(call["function"]) for call in calls]
            found.append({"role": role, "content": "\n".join(texts)})
        else:
            found.append(dict(message))
    if tools:
        _describe(tools, found, system)
    return found


def _describe(tools: Specs, messages: list[Message], system: bool) -> None:
    lines = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    description = _DESCRIPTION.format(tools=lines)
    first = messages[0]
    if first["role"] == "system":
        first["content"] += f"\n\n{description}"
    elif system:
        messages.insert(0, {"role": "system", "content": description})
    else:
        first["content"] = f"{description}\n\n{first['content']}"


def _spelled(function: Mapping[str, Any]) -> str:
    call = {"name": function["name"], "arguments": function["arguments"]}
    return f"{HERMES.opening}\n{json.dumps(call, ensure_ascii=False)}\n{HERMES.closing}"
