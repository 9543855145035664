"""Log-probabilities in the shapes of completions and of chat."""

from collections.abc import Sequence
from math import isfinite

from ..engine.tokenizer import Tokenizer
from .protocol import ChatLogprobs, CompletionLogprobs, TokenLogprob, TopLogprob
from .text import Entry

LOWEST = -9999.0  # what OpenAI writes for minus infinity, which JSON cannot


def completion_logprobs(tokenizer: Tokenizer, entries: Sequence[Entry]) -> CompletionLogprobs:
    """The chosen token is in every ``top_logprobs``, with the number of ``token_logprobs``."""
    shape = CompletionLogprobs([], [], [], [])
    for entry in entries:
        name, _ = tokenizer.token_spelling(entry.token)
        shape.tokens.append(name)
        shape.text_offset.append(entry.offset)
        if entry.logprobs is None:  # the first token of a prompt
            shape.token_logprobs.append(None)
            shape.top_logprobs.append(None)
            continue
        chosen = _finite(entry.logprobs.logprob)
        top: dict[str, float] = {}
        for token, logprob in entry.logprobs.top:  # likeliest first: of two alike the first stays
            top.setdefault(tokenizer.token_spelling(token)[0], _finite(logprob))
        top[name] = chosen
        shape.token_logprobs.append(chosen)
        shape.top_logprobs.append(top)
    return shape


def chat_logprobs(tokenizer: Tokenizer, entries: Sequence[Entry]) -> ChatLogprobs:
    content: list[TokenLogprob] = []
    for entry in entries:
        assert entry.logprobs
        name, raw = tokenizer.token_spelling(entry.token)
        top: list[TopLogprob] = []
        for token, logprob in entry.logprobs.top:
            spelling, spelled = tokenizer.token_spelling(token)
            top.append(TopLogprob(spelling, _finite(logprob), list(spelled)))
        content.append(TokenLogprob(name, _finite(entry.logprobs.logprob), list(raw), top))
    return ChatLogprobs(content)


def _finite(logprob: float) -> float:
    return logprob if isfinite(logprob) else LOWEST
