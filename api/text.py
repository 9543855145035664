"""One choice's text as its tokens come: characters whole, stop strings cut off and never shown."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..engine.sampling import TokenLogprobs
from ..engine.tokenizer import Detokenizer, Tokenizer
from .engine_thread import Update
from .tool_parser import CallParser, Part


class StopStrings:
    """Lets text through up to the first stop string that is completed.

    Only what could still become one is held back. With the stop ``"END"``, ``feed("the EN")`` gives
    ``"the "``, then ``feed("T")`` gives ``"ENT"``; ``feed("END.")`` gives ``""`` and sets
    ``matched``. What comes out does not depend on how the text was cut into pieces.
    """

    def __init__(self, stops: list[str], include: bool = False) -> None:
        self._stops = stops
        self._include = include
        self._held = ""
        self.matched = False

    def feed(self, text: str) -> str:
        """What may be shown now."""
        if not self._stops:
            return text
        text = self._held + text
        ends = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            self.matched = True
            self._held = ""
            end, start = min(ends)
            return text[: end if self._include else start]
        shown = len(text) - self._ambiguous(text)
        self._held = text[shown:]
        return text[:shown]

    def release(self) -> str:
        """What was held back, and will not become a stop string any more."""
        held, self._held = self._held, ""
        return held

    def _ambiguous(self, text: str) -> int:
        """Length of the longest end of ``text`` that a stop string begins with."""
        longest = min(len(text), max(map(len, self._stops)) - 1)
        for length in range(longest, 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0


@dataclass(slots=True)
class Entry:
    """A token with what was asked about it; ``offset`` is where its text begins, in characters."""

    token: int
    logprobs: TokenLogprobs | None
    offset: int
    of_prompt: bool = False


@dataclass(slots=True)
class Piece:
    """What a choice has to say: texts and pieces of tool calls in their order, the tokens they
    stand for, and the end if this is it."""

    parts: list[Part]
    entries: list[Entry]
    finish_reason: str | None = None

    @property
    def text(self) -> str:
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def token_ids(self) -> list[int]:
        """Those that were generated."""
        return [entry.token for entry in self.entries if not entry.of_prompt]


@dataclass(slots=True)
class Echo:
    """A prompt as its answers repeat it: its text, and where in that each token begins."""

    text: str
    tokens: list[int]
    offsets: list[int]


def echo_of(
    tokenizer: Tokenizer,
    prompt: str | list[int],
    tokens: list[int],
    markers: Mapping[int, str],
) -> Echo:
    """``prompt`` is the text that ``tokens`` are of, if it came as a text; ``markers`` as in
    `Choice`."""
    detokenizer = tokenizer.detokenizer()
    offsets: list[int] = []
    text = ""
    for token in tokens:
        offsets.append(len(text))
        text += _spelled(token, detokenizer, markers)
    text += detokenizer.flush()
    return Echo(prompt if isinstance(prompt, str) else text, tokens, offsets)


def _spelled(token: int, detokenizer: Detokenizer, markers: Mapping[int, str]) -> str:
    if token in markers:
        return detokenizer.flush() + markers[token]
    return detokenizer.feed(token)


class Choice:
    """Turns the updates of one choice into pieces; joined, they are its whole answer.

    ``completion_tokens`` counts what was generated up to the end of the answer. ``limit`` 0 asks
    for no tokens at all, although the engine always makes one. ``echo`` goes before. ``calls``
    finds tool calls in what the stop strings let through. ``markers`` are the special tokens that
    have a text, for it to see or because the client asked. ``ends`` are tokens that have none where
    they end the answer.
    """

    def __init__(
        self,
        detokenizer: Detokenizer,
        stops: StopStrings,
        *,
        limit: int,
        min_tokens: int = 0,
        echo: Echo | None = None,
        calls: CallParser | None = None,
        markers: Mapping[int, str] | None = None,
        ends: frozenset[int] = frozenset(),
    ) -> None:
        self.completion_tokens = 0
        self.cached_tokens = 0
        self.finish_reason: str | None = None
        self._detokenizer = detokenizer
        self._stops = stops
        self._limit = limit
        self._min_tokens = min_tokens
        self._echo = echo
        self._calls = calls
        self._markers = markers or {}
        self._ends = ends
        self._length = len(echo.text) if echo else 0
        self._entries: list[Entry] = []

    def take(self, update: Update) -> Piece | None:
        """None as long as there is nothing to show."""
        self.cached_tokens = update.cached_tokens
        text = self._begin(update) if self._echo else ""
        if self._limit:
            text += self._go_on(update)
        elif update.finish_reason:
            self.finish_reason = "length"
        parts: list[Part] = [text] if text else []
        if self._calls:
            parts = self._tell(self._calls, text)
        if not parts and not self.finish_reason:
            return None
        entries, self._entries = self._entries, []
        return Piece(parts, entries, self.finish_reason)

    def _tell(self, calls: CallParser, text: str) -> list[Part]:
        parts = calls.feed(text)
        if calls.complete:
            self.finish_reason = "stop"
        elif self.finish_reason:
            parts += calls.end()
        return parts

    def _begin(self, update: Update) -> str:
        assert self._echo
        echo, self._echo = self._echo, None
        if update.prompt_logprobs:
            rows = zip(echo.tokens, update.prompt_logprobs, echo.offsets, strict=True)
            self._entries = [Entry(*row, of_prompt=True) for row in rows]
        return echo.text

    def _go_on(self, update: Update) -> str:
        text = ""
        last = len(update.tokens) - 1 if update.finish_reason == "stop" else -1
        for index, token in enumerate(update.tokens):
            logprobs = update.logprobs[index] if update.logprobs else None
            text += self._token(token, logprobs, index == last and token in self._ends)
            if self._stops.matched:
                break
        if update.finish_reason and not self._stops.matched:
            text += self._stops.feed(self._detokenizer.flush())
            text += self._stops.release()
        self.finish_reason = "stop" if self._stops.matched else update.finish_reason
        return text

    def _token(self, token: int, logprobs: TokenLogprobs | None, is_end: bool) -> str:
        self.completion_tokens += 1
        self._entries.append(Entry(token, logprobs, self._length))
        text = "" if is_end else _spelled(token, self._detokenizer, self._markers)
        self._length += len(text)
        if self.completion_tokens <= self._min_tokens:
            return text  # too early for a stop string
        return self._stops.feed(text)
