"""Token ids to text, a little at a time and never half a character.

The codec is the model's tokenizer; here is what a screen needs on top: answers that grow without
being decoded from the start again, and heads of long runs that are decoded once.
"""

from collections.abc import Sequence
from functools import cached_property

from ..engine.snapshot import NodeState, RequestState
from ..engine.state import EngineState
from .sources.base import Codec
from .text import visible

_HEAD = 96  # tokens of a node that are looked at
_BROKEN = "\ufffd"


class _Growing:
    """An answer as far as it could be decoded: ``text`` says the tokens before ``read``."""

    __slots__ = ("_detokenizer", "read", "text")

    def __init__(self, codec: Codec, prompt: list[int]) -> None:
        self._detokenizer = codec.detokenizer(prompt)
        self.read = len(prompt)
        self.text = ""

    def advance(self, tokens: list[int]) -> None:
        if self.read < len(tokens):
            self.text += self._detokenizer.feed(*tokens[self.read :])
            self.read = len(tokens)


class Texts:
    """Decoded text of requests and nodes, cached."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self._answers: dict[int, _Growing] = {}
        self._prompts: dict[int, str] = {}
        self._heads: dict[tuple[int, ...], str] = {}
        self._tokens: dict[int, str] = {}

    def answer(self, request: RequestState) -> str:
        """What ``request`` has said so far, without a character that is still incomplete."""
        growing = self._answers.get(request.id)
        if growing is None or growing.read > len(request.tokens):  # or it is looked at earlier
            prompt = request.tokens[: request.prompt_len]
            growing = self._answers[request.id] = _Growing(self.codec, prompt)
        growing.advance(request.tokens)
        return growing.text

    def prompt(self, request: RequestState) -> str:
        text = self._prompts.get(request.id)
        if text is None:
            text = self.codec.decode(request.tokens[: request.prompt_len])
            self._prompts[request.id] = text
        return text

    def question(self, request: RequestState) -> str:
        """What is the prompt's own: what follows the last lead-in of the chat template."""
        lead, tail = self._template
        text = self.prompt(request).removesuffix(tail)
        return text.rpartition(lead)[2] if lead else text

    @cached_property
    def _template(self) -> tuple[str, str]:
        """The line that comes before a user's text, and all that comes after it."""
        lead, tail = self.codec.chat_frame()
        at = lead.rstrip("\n").rfind("\n")
        return lead[at + 1 :], tail

    def head(self, node: NodeState, skip: int = 0) -> str:
        """The beginning of a node's run after ``skip`` tokens, on one line."""
        key = (node.id, node.start, min(len(node.tokens), _HEAD), skip)
        text = self._heads.get(key)
        if text is None:
            if len(self._heads) > 20_000:
                self._heads.clear()
            text = visible(self.codec.decode(node.tokens[skip:_HEAD]).strip(_BROKEN))
            self._heads[key] = text = f"…{text}" if skip else text
        return text

    def run(self, tokens: Sequence[int]) -> str:
        """Any few tokens on one line; characters cut at the ends are left out."""
        return visible(self.codec.decode(tokens).strip(_BROKEN))

    def token(self, token: int) -> str:
        text = self._tokens.get(token)
        if text is None:
            text = self._tokens[token] = visible(self.codec.token(token))
        return text

    def forget(self, state: EngineState) -> None:
        """Drop what belongs to requests the state no longer keeps."""
        if len(self._answers) > 2 * len(state.requests) + 100:
            for cache in (self._answers, self._prompts):
                for gone in cache.keys() - state.requests.keys():
                    del cache[gone]
