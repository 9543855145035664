"""What a request says about tools: checked, as chat templates want it, and as a grammar."""

import json
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..engine.models.fields import shown
from ..engine.sampling import Grammar
from ..engine.tokenizer import Message
from .errors import bad_request
from .protocol import ChatMessage, FunctionTool, NamedTool, Tool, ToolChoice
from .tool_grammar import calls_grammar
from .tool_parser import CallParser
from .tool_template import ToolTemplate

NAME = re.compile("[a-zA-Z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Tools:
    """The functions that an answer may call.

    ``forced``: it has to call one; ``only`` is which, if just one will do. ``parallel``: it may
    call several.
    """

    functions: list[FunctionTool]
    template: ToolTemplate
    forced: bool = False
    only: str | None = None
    parallel: bool = True

    @property
    def specs(self) -> list[Mapping[str, Any]]:
        """For the chat template."""
        return [_spec(function) for function in self.functions]

    @property
    def markers(self) -> Mapping[int, str]:
        """Special tokens that the parser has to see, with their texts."""
        return self.template.markers

    def parser(self) -> CallParser:
        """A fresh one for an answer."""
        assert self.template.format
        return CallParser(self.template.format, [f.name for f in self.functions], self.parallel)

    def grammar(self) -> Grammar | None:
        """What the answer has to be, None where that is up to the model.

        A forced answer is calls and nothing else, whose arguments fit their schemas. An answer
        that may call a strict function may say anything, but calls that it begins are such, too.
        """
        assert self.template.format
        callable_ = [f for f in self.functions if self.only in (None, f.name)]
        if not self.forced and not any(f.strict for f in callable_):
            return None
        return calls_grammar(
            self.template.format,
            self.template.markers,
            callable_,
            forced=self.forced,
            parallel=self.parallel,
        )


def read_tools(
    tools: Sequence[Tool] | None,
    choice: ToolChoice | None,
    parallel: bool | None,
    template: ToolTemplate,
) -> Tools | None:
    """The tools of a request, None where it has none or wants none called: then the model is not
    told of them. ApiError 400 where they make no sense."""
    functions = [tool.function for tool in tools or ()]
    names: dict[str, None] = {}  # in their order
    for index, function in enumerate(functions):
        check_function(function, f"tools[{index}].function", names)
        names[function.name] = None
    if not functions:
        if choice not in (None, "none", "auto"):
            raise bad_request("tool_choice asks for a call, but there are no tools", "tool_choice")
        return None
    only = choice.function.name if isinstance(choice, NamedTool) else None
    if only is not None and only not in names:
        raise bad_request(
            f"tool_choice names {shown(only)}, which is not in tools; they are "
            f"{', '.join([*names][:8])}{', …' if len(names) > 8 else ''}",
            "tool_choice",
        )
    if choice == "none":
        return None
    if template.format is None:
        raise bad_request(f"tools cannot be called here: {template.refusal}", "tools")
    forced = only is not None or choice == "required"
    return Tools(functions, template, forced, only, parallel is not False and only is None)


def check_function(function: FunctionTool, where: str, before: Container[str]) -> None:
    """400 for what is wrong with the function at ``where``; ``before`` are the names so far."""
    if not NAME.fullmatch(function.name):
        raise bad_request(
            f"{where}.name is {shown(function.name)}; it must be 1 to 64 letters, digits, _ and -",
            f"{where}.name",
        )
    if function.name in before:
        raise bad_request(
            f"{where}.name is {shown(function.name)}, like an earlier one; names must differ",
            f"{where}.name",
        )
    schema = function.parameters or {}
    if schema.get("type", "object") != "object":
        raise bad_request(
            f"{where}.parameters is a schema of type {shown(schema['type'])}; arguments are an "
            'object: {"type": "object", "properties": ...}',
            f"{where}.parameters",
        )
    for name, kind, expected in (
        ("properties", dict, "an object of schemas"),
        ("required", list, "a list of names"),
    ):
        value = schema.get(name, kind())
        if not isinstance(value, kind) or (kind is list and not all(map(_is_text, value))):
            raise bad_request(
                f"{where}.parameters.{name} is {shown(value)}; it must be {expected}",
                f"{where}.parameters",
            )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _spec(function: FunctionTool) -> Mapping[str, Any]:
    """With all the members that templates read without asking whether they are there."""
    parameters = {"type": "object", "properties": {}, **(function.parameters or {})}
    return {
        "type": "function",
        "function": {
            "name": function.name,
            "description": function.description or "",
            "parameters": parameters,
        },
    }


# --- calls and results of earlier turns ----------------------------------------------------------


class CallHistory:
    """The calls of a conversation so far, and which of them a result belongs to."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}  # of the functions, by the call's id

    def take(self, message: ChatMessage, where: str) -> Message:
        """What ``message`` says about calls, as templates want it. ApiError 400 if it is wrong."""
        if message.tool_calls and message.role != "assistant":
            raise bad_request(
                f"{where}.tool_calls is in a message of role {message.role}; calls are an "
                "assistant's",
                f"{where}.tool_calls",
            )
        if message.tool_call_id is not None and message.role != "tool":
            raise bad_request(
                f"{where}.tool_call_id is in a message of role {message.role}; results are a "
                "tool's",
                f"{where}.tool_call_id",
            )
        if message.role == "tool":
            return self._result(message, f"{where}.tool_call_id")
        if not message.tool_calls:
            return {}
        calls: list[dict[str, Any]] = []
        for index, call in enumerate(message.tool_calls):
            at = f"{where}.tool_calls[{index}].function.arguments"
            function = {
                "name": call.function.name,
                "arguments": arguments_object(call.function.arguments, at),
            }
            calls.append({"id": call.id, "type": "function", "function": function})
            self._names[call.id] = call.function.name
        return {"tool_calls": calls}

    def _result(self, message: ChatMessage, where: str) -> Message:
        if message.tool_call_id is None:
            raise bad_request(f"{where} is missing; send the id of the call", where)
        if message.tool_call_id not in self._names:
            raise bad_request(
                f"{where} is {shown(message.tool_call_id)}, which no earlier tool_calls have as "
                "their id",
                where,
            )
        name = message.name or self._names[message.tool_call_id]
        return {"tool_call_id": message.tool_call_id, "name": name}


def arguments_object(text: str, where: str) -> dict[str, Any]:
    """Templates want them as an object; no text at all is what some clients send for none."""
    try:
        arguments = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise bad_request(
            f"{where} is no valid JSON: {reason}; send it as generated", where
        ) from None
    if not isinstance(arguments, dict):
        raise bad_request(f"{where} is {shown(arguments)}; it must be a JSON object", where)
    return arguments
