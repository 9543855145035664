"""A response as it grows: its items, and the events that tell of them.

The whole answer is what the events add up to: both are made here, from the same pieces of text.
"""

import time
import uuid

import msgspec

from .errors import ApiError
from .protocol import TokenLogprob
from .responses_protocol import (
    Completed,
    Created,
    Event,
    Failed,
    Incomplete,
    IncompleteDetails,
    InProgress,
    ItemAdded,
    ItemDone,
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


def new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


class Growing:
    """Grows ``response``, which has no output yet; `events` are those not taken yet."""

    def __init__(self, response: ResponseObject) -> None:
        self._response = response
        self._message: _Message | None = None  # the item that is still open
        self._events: list[Event] = []
        self._said = 0  # events taken
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

    def text(self, text: str, logprobs: list[TokenLogprob]) -> None:
        """Some more of the text; tokens without any have log-probabilities all the same."""
        if not text and not logprobs:
            return
        message = self._message or self._begin_message()
        message.texts.append(text)
        message.logprobs += logprobs
        delta = TextDelta(
            item_id=message.id, output_index=self._index, delta=text, logprobs=logprobs
        )
        self._say(delta)

    def end(self, finish_reason: str) -> None:
        """No more comes; an answer without a word is an empty message."""
        response = self._response
        response.status = "incomplete" if finish_reason == "length" else "completed"
        if response.status == "incomplete":
            response.incomplete_details = IncompleteDetails("max_output_tokens")
        if not response.output and not self._message:
            self._begin_message()
        self._end_message(response.status)

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
        self._end_message("incomplete")
        response = self._response
        response.status = "failed"
        response.error = ResponseError("server_error", str(error))
        self._say(Failed(response=self.now()))

    @property
    def _index(self) -> int:
        """Of the item that is open, or would be next."""
        return len(self._response.output)

    def _say(self, event: Event) -> None:
        self._events.append(event)

    def _begin_message(self) -> "_Message":
        message = self._message = _Message()
        self._say(ItemAdded(output_index=self._index, item=message.item("in_progress", [])))
        self._say(PartAdded(item_id=message.id, output_index=self._index, part=OutputText()))
        return message

    def _end_message(self, status: str) -> None:
        message, index = self._message, self._index
        if message is None:
            return
        self._message = None
        part = OutputText("".join(message.texts), logprobs=message.logprobs)
        item = message.item(status, [part])
        self._say(
            TextDone(item_id=message.id, output_index=index, text=part.text, logprobs=part.logprobs)
        )
        self._say(PartDone(item_id=message.id, output_index=index, part=part))
        self._say(ItemDone(output_index=index, item=item))
        self._response.output.append(item)


class _Message:
    """A message in the making."""

    def __init__(self) -> None:
        self.id = new_id("msg")
        self.texts: list[str] = []
        self.logprobs: list[TokenLogprob] = []

    def item(self, status: str, content: list[OutputText]) -> OutputItem:
        return OutputMessage(self.id, status, content)
