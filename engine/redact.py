"""What the engine does without what was said: records that hold no token, text or key of a client.

Each token is replaced by a number that is made from all tokens up to it, with a secret of this
process. So prompts that begin alike still begin alike and part at the same token, and the tree is
what it was; but nobody can read a token off its number, or count how often it comes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace as with_fields
from hashlib import blake2b
from secrets import token_bytes
from typing import Any

from msgspec.structs import replace

from . import events as ev
from .config import EngineConfig
from .events import AnyEvent, StepRecord
from .request import TIMED_OUT
from .sampling import LARGEST, Grammar, SamplingParams
from .state import EngineState
from .stops import Stopped

REDACTED = "(redacted)"


class Redactor:
    """Hears every record of an engine from its first on, and hands what may be shown of it on to
    those who `listen`. ``state`` is the picture that comes of that, and ``config`` what it says
    of the engine."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = replace(config, vocab_size=0)  # what stands for tokens is beyond any
        self.state = EngineState(self.config)
        self._secret = token_bytes(32)
        self._listeners: list[ev.Listener] = []

    def listen(self, listener: ev.Listener) -> None:
        self._listeners.append(listener)

    def __call__(self, record: StepRecord) -> None:
        told: list[AnyEvent] = []

        def events() -> Iterator[AnyEvent]:
            """Each is redacted when the state includes all before it, and then taken in itself."""
            for event in record.events:
                told.append(self._redacted(event))
                yield told[-1]

        one_by_one: Any = events()
        self.state.apply(replace(record, events=one_by_one))
        redacted = replace(record, events=told)
        for listener in self._listeners:
            listener(redacted)

    def _redacted(self, event: AnyEvent) -> AnyEvent:
        state = self.state
        if isinstance(event, ev.Submitted):
            salt = self._name(event.salt)
            tokens = self._chain(self._number(salt), event.prompt)
            return replace(event, prompt=tokens, salt=salt, params=_bare(event.params))
        if isinstance(event, ev.Sampled):
            lasts = [state.requests[req].tokens[-1] for req in event.reqs]
            numbers = map(self._number, lasts, event.tokens)
            return replace(event, tokens=list(numbers), logprobs=[])
        if isinstance(event, ev.Inserted):
            parent = state.nodes[event.parent]
            start = parent.start + len(parent.tokens)
            tokens = self._cut(event.req, start, len(event.tokens))
            return replace(event, tokens=tokens, salt=self._name(event.salt))
        if isinstance(event, ev.Extended):
            node = state.nodes[event.node]
            start = node.start + len(node.tokens)
            return replace(event, tokens=self._cut(event.req, start, len(event.tokens)))
        return without_texts(event)

    def _cut(self, req: int, start: int, count: int) -> list[int]:
        return self.state.requests[req].tokens[start : start + count]

    def _chain(self, number: int, tokens: Iterable[int]) -> list[int]:
        """The numbers of ``tokens``, which follow the one that has ``number``."""
        numbers: list[int] = []
        for token in tokens:
            number = self._number(number, token)
            numbers.append(number)
        return numbers

    def _number(self, *parts: object) -> int:
        digest = blake2b(repr(parts).encode(), key=self._secret, digest_size=4).digest()
        return int.from_bytes(digest, "little") & LARGEST

    def _name(self, salt: str) -> str:
        """What stands for ``salt``, which may be a secret of whoever sent it."""
        return f"{self._number(salt):08x}" if salt else ""


def redacted_stop(stop: Stopped) -> Stopped:
    """``stop`` as it may be told: which events it hit, and nothing that was said in them."""
    hits = tuple(with_fields(hit, event=without_texts(hit.event)) for hit in stop.hits)
    return with_fields(stop, hits=hits)


def without_texts(event: AnyEvent) -> AnyEvent:
    """``event`` without tokens, and without messages that may quote some."""
    if isinstance(event, ev.Submitted):
        return replace(event, prompt=[], salt="", params=_bare(event.params))
    if isinstance(event, ev.Sampled):
        return replace(event, tokens=[], logprobs=[])
    if isinstance(event, ev.Inserted):
        return replace(event, tokens=[], salt="")
    if isinstance(event, ev.Extended):
        return replace(event, tokens=[])
    if isinstance(event, ev.Finished) and event.message:
        kept = event.message.startswith(TIMED_OUT)
        return event if kept else replace(event, message=REDACTED)
    if isinstance(event, ev.StepFailed):
        return replace(event, error=REDACTED)
    return event


def _bare(params: SamplingParams) -> SamplingParams:
    grammar = params.grammar and Grammar(params.grammar.kind, REDACTED)
    return replace(params, logit_bias={}, stop_token_ids=(), grammar=grammar)
