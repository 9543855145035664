"""The tools of a response, as chat has them, and the names that stand for them.

A namespace is for the client: the model is told of ``crm__find`` where the request has ``find`` in
the namespace ``crm``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..engine.models.fields import shown
from .errors import bad_request
from .fields import convert
from .protocol import FunctionName, FunctionTool, NamedTool, Tool, ToolChoice
from .responses_protocol import Namespace, ResponsesRequest
from .tools import check_function


class Function(NamedTuple):
    """A function, as the client names it."""

    name: str
    namespace: str | None = None

    @property
    def told(self) -> str:
        """Its name for the model."""
        return f"{self.namespace}__{self.name}" if self.namespace else self.name


@dataclass(slots=True)
class Offered:
    """The tools of a request as chat has them, and the functions by the names the model has."""

    tools: list[Tool] = field(default_factory=list)
    functions: dict[str, Function] = field(default_factory=dict)
    choice: ToolChoice | None = None


def offered(asked: ResponsesRequest) -> Offered:
    """ApiError 400 where a tool is no function, or makes no sense."""
    found = Offered()
    for index, tool in enumerate(asked.tools or ()):
        where = f"tools[{index}]"
        if tool.get("type") == "namespace":
            space = convert(tool, Namespace, where)
            for below, one in enumerate(space.tools):
                _add(found, one, f"{where}.tools[{below}]", space)
        else:
            _add(found, tool, where)
    found.choice = _choice(asked.tool_choice, found.functions)
    return found


def _add(found: Offered, tool: dict[str, Any], where: str, space: Namespace | None = None) -> None:
    if tool.get("type") != "function":
        raise bad_request(
            f"{where}.type is {shown(tool.get('type'))}; this server runs no tools of its own: "
            "send functions, or namespaces of them",
            f"{where}.type",
        )
    for name in _NOT_HERE:
        if tool.get(name):
            raise bad_request(
                f"{where}.{name} is not supported by this server; leave it out", f"{where}.{name}"
            )
    function = convert(tool, FunctionTool, where)
    own = Function(function.name, space.name if space else None)
    if space and space.description:
        texts = filter(None, (space.description, function.description))
        function.description = "\n".join(texts)
    function.name = own.told
    check_function(function, where, found.functions)
    found.functions[own.told] = own
    found.tools.append(Tool("function", function))


_NOT_HERE = ("async", "defer_loading")


def _choice(
    choice: str | dict[str, Any] | None, functions: Mapping[str, Function]
) -> ToolChoice | None:
    """A function in a namespace may be chosen by its own name, if no other has it."""
    if choice is None or isinstance(choice, str):
        if choice in (None, "none", "auto", "required"):
            return choice
    elif choice.get("type") == "function":
        name = convert(choice, FunctionName, "tool_choice").name
        alike = [told for told, one in functions.items() if one.name == name]
        told = alike[0] if len(alike) == 1 else name
        return NamedTool("function", FunctionName(told))
    raise bad_request(
        f"tool_choice is {shown(choice)}; send none, auto, required or "
        '{"type": "function", "name": ...}',
        "tool_choice",
    )
