"""A response as it grows: its items, and the events that tell of them.

The whole answer is what the events add up to: both are made here, from the same pieces.
"""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec import UNSET

from .errors import ApiError
from .protocol import TokenLogprob
from .responses_protocol import (
    ArgumentsDelta,
    ArgumentsDone,
    Completed,
    Created,
    Event,
    Failed,
    Incomplete,
    IncompleteDetails,
    InProgress,
    ItemAdded,
    ItemDone,
    OutputCall,
    OutputItem,
    OutputMessage,
    OutputText,
    PartAdded,
    PartDone,
    ResponseError,
    ResponseObject,
    ResponseUsage,
    TextDelta,
    TextDone,
)
from .responses_tools import Function
from .tool_parser import CallDelta, Part


def new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


class Growing:
    """Grows ``response``, which has no output yet, and may call ``functions``. `events` gives each
    event once."""

    def __init__(self, response: ResponseObject, functions: Mapping[str, Function]) -> None:
        self._response = response
        self._functions = functions  # by the names that the model has for them
        self._open: _Message | _Call | None = None  # the item that is being written
        self._events: list[Event] = []
        self._said = 0  # how many events were given
        self._say(Created(response=self.now()))
        self._say(InProgress(response=self.now()))

    def events(self) -> list[Event]:
        events, self._events = self._events, []
        for event in events:
            event.sequence_number = self._said
            self._said += 1
        return events

    def now(self) -> ResponseObject:
        """The response with the items that are complete."""
        return msgspec.structs.replace(self._response, output=list(self._response.output))

    def add(self, parts: Sequence[Part], logprobs: list[TokenLogprob]) -> None:
        """Some more. The log-probabilities are those of the text: a call has none."""
        for part in parts:
            if isinstance(part, CallDelta):
                self._call(part)
            else:
                self._text(part, logprobs)
                logprobs = []
        if logprobs and not parts and not isinstance(self._open, _Call):
            self._text("", logprobs)

    def end(self, finish_reason: str) -> None:
        """No more comes. An answer without a word is an empty message."""
        response = self._response
        response.status = "incomplete" if finish_reason == "length" else "completed"
        if response.status == "incomplete":
            response.incomplete_details = IncompleteDetails("max_output_tokens")
        if not response.output and not self._open:
            self._begin(_Message())
        self._end_item(response.status)

    def complete(self, usage: ResponseUsage) -> None:
        """After the end."""
        response = self._response
        response.usage = usage
        if response.status == "completed":
            response.completed_at = int(time.time())
        last = Completed if response.status == "completed" else Incomplete
        self._say(last(response=self.now()))

    def fail(self, error: ApiError) -> None:
        """What was said so far stays; an item in the middle of it is incomplete."""
        self._end_item("incomplete")
        response = self._response
        response.status = "failed"
        response.error = ResponseError("server_error", str(error))
        self._say(Failed(response=self.now()))

    def _text(self, text: str, logprobs: list[TokenLogprob]) -> None:
        message = self._open
        if not isinstance(message, _Message):
            self._end_item("completed")
            message = _Message()
            self._begin(message)
        self._say(message.more(text, logprobs, self._index))

    def _call(self, delta: CallDelta) -> None:
        call = self._open
        if delta.name:
            self._end_item("completed")
            call = _Call(delta.id, self._functions.get(delta.name, Function(delta.name)))
            self._begin(call)
        assert isinstance(call, _Call)
        if delta.arguments:
            self._say(call.more(delta.arguments, self._index))

    @property
    def _index(self) -> int:
        """Of the item that is being written, or would be next."""
        return len(self._response.output)

    def _say(self, *events: Event) -> None:
        self._events += events

    def _begin(self, item: "_Message | _Call") -> None:
        self._open = item
        self._say(*item.beginning(self._index))

    def _end_item(self, status: str) -> None:
        if self._open:
            item, events = self._open.ending(self._index, status)
            self._say(*events, ItemDone(output_index=self._index, item=item))
            self._response.output.append(item)
            self._open = None


@dataclass(slots=True)
class _Message:
    """A message that is being written. ``at`` is its place among the items."""

    id: str = field(default_factory=lambda: new_id("msg"))
    texts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)

    def beginning(self, at: int) -> list[Event]:
        empty = OutputMessage(self.id, "in_progress", [])
        return [
            ItemAdded(output_index=at, item=empty),
            PartAdded(item_id=self.id, output_index=at, part=OutputText()),
        ]

    def more(self, text: str, logprobs: list[TokenLogprob], at: int) -> Event:
        self.texts.append(text)
        self.logprobs += logprobs
        return TextDelta(item_id=self.id, output_index=at, delta=text, logprobs=logprobs)

    def ending(self, at: int, status: str) -> tuple[OutputItem, list[Event]]:
        part = OutputText("".join(self.texts), logprobs=self.logprobs)
        return OutputMessage(self.id, status, [part]), [
            TextDone(item_id=self.id, output_index=at, text=part.text, logprobs=part.logprobs),
            PartDone(item_id=self.id, output_index=at, part=part),
        ]


@dataclass(slots=True)
class _Call:
    """A function call that is being written; the same methods as a message."""

    call_id: str
    function: Function
    id: str = field(default_factory=lambda: new_id("fc"))
    arguments: list[str] = field(default_factory=list)

    def beginning(self, at: int) -> list[Event]:
        return [ItemAdded(output_index=at, item=self._item("in_progress"))]

    def more(self, arguments: str, at: int) -> Event:
        self.arguments.append(arguments)
        return ArgumentsDelta(item_id=self.id, output_index=at, delta=arguments)

    def ending(self, at: int, status: str) -> tuple[OutputItem, list[Event]]:
        item = self._item(status)
        return item, [ArgumentsDone(item_id=self.id, output_index=at, arguments=item.arguments)]

    def _item(self, status: str) -> OutputCall:
        name, namespace = self.function
        arguments = "".join(self.arguments)
        return OutputCall(self.id, self.call_id, name, arguments, status, namespace or UNSET)
