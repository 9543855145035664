"""Tool calls in the text of an answer, as it comes: what is said, what is called, with what.

A call is a JSON object with the name of a function and its arguments, set off as the model's
family does it (`Format`). Nothing here knows of requests or of how an endpoint says it.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from uuid import uuid4


@dataclass(frozen=True, slots=True)
class Format:
    """How a family of models writes its calls.

    ``opening`` and ``closing`` stand around each. ``bare``: an answer that begins with the object
    itself is a call as well, if it names a function that there is; others follow it, after a
    semicolon perhaps. ``arguments`` are the members that may hold them, what the model was taught
    first.
    """

    name: str
    opening: str
    closing: str
    arguments: tuple[str, ...]
    bare: bool = False

    @property
    def markers(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.opening, self.closing)))


HERMES = Format("hermes", "<tool_call>", "</tool_call>", ("arguments",))
LLAMA3 = Format("llama3", "<|python_tag|>", "", ("parameters", "arguments"), bare=True)
FORMATS = {one.name: one for one in (HERMES, LLAMA3)}


@dataclass(slots=True)
class CallDelta:
    """A piece of call ``index`` of an answer: first its id and name, then its arguments' JSON as
    the model wrote it."""

    index: int
    arguments: str = ""
    id: str = ""
    name: str = ""


@dataclass(slots=True)
class ToolCall:
    id: str
    name: str
    arguments: str = ""


Part = str | CallDelta


def joined(parts: Iterable[Part]) -> list[str | ToolCall]:
    """What ``parts`` come to, in their order: texts that are not empty, and whole calls."""
    found: list[str | ToolCall] = []
    for part in parts:
        last = found[-1] if found else None
        if isinstance(part, CallDelta):
            if part.name:
                found.append(ToolCall(part.id, part.name))
            call = found[-1]
            assert isinstance(call, ToolCall)
            call.arguments += part.arguments
        elif isinstance(last, str):
            found[-1] = last + part
        elif part:
            found.append(part)
    return found


class CallParser:
    """Tells calls from content in a text that comes in pieces; ``feed`` each, then ``end`` once.

    In Hermes' format ``Let me see. <tool_call>{"name": "now", "arguments": {}}</tool_call>`` is
    the content ``Let me see.``, then call 0 of ``now`` with ``{}``, however it is cut. Held back
    is only what could still belong to a call: the beginning of a marker with the white space before
    it, and a call whose name is not known yet. What turns out to be none is content, to the letter.
    From its name and the ``{`` of its arguments on a call is one, whatever becomes of it. White
    space before a call, and at the end after one, is no content.

    ``functions`` are the names that can be called. ``parallel=False`` allows one call: with its
    last brace the answer is ``complete``.
    """

    def __init__(self, format: Format, functions: Collection[str], parallel: bool = True) -> None:
        self.calls = 0
        self.complete = False
        self._format = format
        self._functions = functions
        self._parallel = parallel
        self._call: _CallObject | None = None
        self._parts: list[Part] = []
        self._held = ""  # not read yet, for it may be the beginning of something
        self._raw = ""  # read as part of a call that is not certain yet
        self._read = self._between if format.bare else self._content

    def feed(self, text: str) -> list[Part]:
        """What is certain now, in order."""
        text, self._held = self._held + text, ""
        while text and not self.complete:
            text = self._read(text)
        parts, self._parts = self._parts, []
        return parts

    def end(self) -> list[Part]:
        """What was held back, now that nothing follows."""
        rest = self._raw + self._held
        self._raw = self._held = ""
        gap = self.calls and rest.strip() in (("", ";") if self._format.bare else ("",))
        closing = self._read == self._closing and self._format.closing.startswith(rest.strip())
        return [rest] if rest and not gap and not closing else []

    # Each of these reads some of a text and returns the rest, or holds the rest back.

    def _content(self, text: str) -> str:
        opening = self._format.opening
        at = text.find(opening)
        if at >= 0:
            content = text[:at].rstrip()
            self._say(content)
            self._expect_call(text[len(content) : at + len(opening)])
            return text[at + len(opening) :]
        shown = len(text) - _longest_start(opening, text)
        shown = len(text[:shown].rstrip())
        self._say(text[:shown])
        self._held = text[shown:]
        return ""

    def _between(self, text: str) -> str:
        """At the beginning, or after a call, of an answer in a bare format."""
        opening = self._format.opening
        rest = text.lstrip(_SPACE)
        if self.calls and rest.startswith(";"):
            rest = rest[1:].lstrip(_SPACE)
        gap = text[: len(text) - len(rest)]
        if rest.startswith("{"):
            self._expect_call(gap, self._functions)
            return rest
        if rest.startswith(opening):
            self._expect_call(gap + opening)
            return rest[len(opening) :]
        if opening.startswith(rest):
            self._held = text
            return ""
        self._read = self._content
        return text

    def _object(self, text: str) -> str:
        call = self._call
        assert call
        end = call.feed(text)
        if call.broken:
            self._say(self._raw + text[:end])
            self._raw = ""
            self._read = self._content
        elif call.certain:
            if not call.told:
                call.told = True
                self._raw = ""
                self._parts.append(CallDelta(self.calls, "", f"call_{uuid4().hex}", call.name))
                self.calls += 1
            if arguments := call.take_arguments():
                self._parts.append(CallDelta(self.calls - 1, arguments))
        else:
            self._raw += text[:end]
        if call.ended:
            self.complete = not self._parallel
            self._read = self._closing if self._format.closing else self._after_call
        return text[end:]

    def _closing(self, text: str) -> str:
        closing = self._format.closing
        rest = text.lstrip()
        if rest.startswith(closing):
            self._read = self._after_call
            return rest[len(closing) :]
        if closing.startswith(rest):
            self._held = text
            return ""
        self._read = self._content  # junk after the object, and worth seeing
        return text

    def _after_call(self, text: str) -> str:
        self._read = self._between if self._format.bare else self._content
        return text

    def _expect_call(self, raw: str, functions: Collection[str] | None = None) -> None:
        self._raw = raw
        self._call = _CallObject(self._format.arguments, functions)
        self._read = self._object

    def _say(self, text: str) -> None:
        if text:
            self._parts.append(text)


class _CallObject:
    """Reads one call character by character: ``{"name": ..., "arguments": {...}}``.

    Members may come in any order, and others among them are passed over. ``broken``: this is no
    call. ``certain``: it has a name and an object of arguments has begun; nothing breaks it then,
    it only ends, at the latest before a ``<`` outside of a string. Inside of the arguments only
    strings and brackets are told apart: whether they are sound JSON is for the client to see.
    """

    def __init__(
        self, arguments_members: Collection[str], functions: Collection[str] | None
    ) -> None:
        self.name = ""
        self.broken = self.ended = False
        self.told = False
        self._members = arguments_members
        self._functions = functions  # the names there are; None for any
        self._member = ""
        self._text: list[str] = []  # of the string that is being read
        self._arguments: list[str] | None = None  # what nobody has taken yet
        self._depth = 0
        self._escaped = self._quoted = False
        self._read: Callable[[str], bool] = self._begin
        self._then: Callable[[str], None] = self._pass_over

    @property
    def certain(self) -> bool:
        return bool(self.name) and self._arguments is not None

    def feed(self, text: str) -> int:
        """How many characters of ``text`` belong to the object, as far as can be said."""
        for index, character in enumerate(text):
            while not self._read(character):
                if self.broken or self.ended:
                    return index
            if self.broken or self.ended:
                return index + 1
        return len(text)

    def take_arguments(self) -> str:
        taken, self._arguments = "".join(self._arguments or ()), []
        return taken

    # Each of these says whether it has read the character; if not, the next state is to read it.

    def _begin(self, character: str) -> bool:
        if character == "{":
            self._read = self._before_member
            return True
        return character in _SPACE or self._fail()

    def _before_member(self, character: str) -> bool:
        if character == '"':
            return self._string(self._member_named)
        if character == "}":
            return self._close()
        return character in _SPACE or self._fail()

    def _colon(self, character: str) -> bool:
        if character == ":":
            self._read = self._value
            return True
        return character in _SPACE or self._fail()

    def _value(self, character: str) -> bool:
        if character in _SPACE:
            return True
        if self._member in self._members and self._arguments is None:
            if character != "{":
                return self._fail()
            self._arguments = []
            self._read = self._in_arguments
            return False
        if self._member == "name" and not self.name:
            return self._string(self._named) if character == '"' else self._fail()
        if character == '"':
            return self._string(self._pass_over)
        self._read = self._nested if character in "{[" else self._plain
        return False

    def _in_arguments(self, character: str) -> bool:
        assert self._arguments is not None
        if not self._nested(character):
            return False
        self._arguments.append(character)
        return True

    def _nested(self, character: str) -> bool:
        if self._quoted:
            self._quoted = self._escaped or character != '"'
            self._escaped = character == "\\" and not self._escaped
        elif character == "<":
            return self._fail()
        elif character == '"':
            self._quoted = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            if not self._depth:
                self._read = self._after_member
        return True

    def _plain(self, character: str) -> bool:
        """A number, true, false or null."""
        if character.isalnum() or character in "+-.":
            return True
        self._read = self._after_member
        return False

    def _after_member(self, character: str) -> bool:
        if character == ",":
            self._read = self._before_member
            return True
        if character == "}":
            return self._close()
        return character in _SPACE or self._fail()

    def _string(self, then: Callable[[str], None]) -> bool:
        """Its quote was read; ``then`` is called with what it says."""
        self._text = []
        self._then = then
        self._read = self._in_string
        return True

    def _in_string(self, character: str) -> bool:
        if character == '"' and not self._escaped:
            self._then("".join(self._text))
        else:
            self._escaped = character == "\\" and not self._escaped
            self._text.append(character)
        return True

    def _member_named(self, text: str) -> None:
        self._member = text
        self._read = self._colon

    def _named(self, text: str) -> None:
        self._read = self._after_member
        if text and (self._functions is None or text in self._functions):
            self.name = text
        else:
            self.broken = True

    def _pass_over(self, text: str) -> None:
        self._read = self._after_member

    def _close(self) -> bool:
        if not self.certain:
            return self._fail()
        self.ended = True
        return True

    def _fail(self) -> bool:
        self.ended = self.certain
        self.broken = not self.certain
        return False


_SPACE = " \t\r\n"


def _longest_start(marker: str, text: str) -> int:
    """Length of the longest end of ``text`` that ``marker`` begins with."""
    longest = min(len(marker) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if text.endswith(marker[:n])), 0)
