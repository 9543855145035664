"""How a request wants its next tokens chosen, and what it may ask to know about them.

Parameters and results only; the sampler lives in ``runner``.
"""

import json
import math
import reprlib
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import msgspec

from .errors import RequestRefused

LARGEST = 2**31 - 1

Kind = Literal["json_schema", "regex", "lark"]


class Grammar(msgspec.Struct, frozen=True):
    """What an answer has to be, from its first token to its last.

    ``source`` is the JSON text of a schema, a regular expression that the whole answer matches, or
    a grammar in llguidance's dialect of Lark. Whether it can be compiled is for the runner to say.
    """

    kind: Kind
    source: str

    def __post_init__(self) -> None:
        for field in _fields(type(self)):
            value = getattr(self, field.name)
            try:
                msgspec.convert(value, field.type)
            except msgspec.ValidationError as error:
                expected = "json_schema, regex or lark" if field.name == "kind" else "text"
                raise RequestRefused(
                    f"grammar: {field.name} is {reprlib.repr(value)}; it must be {expected}"
                ) from error
        try:
            self.source.encode()
        except UnicodeEncodeError as error:
            raise RequestRefused(f"grammar: the source is no valid Unicode: {error}") from None

    @classmethod
    def json(cls, schema: dict[str, Any] | bool) -> "Grammar":
        """Whatever JSON ``schema`` allows: ``{"type": "object"}`` is any object."""
        return cls("json_schema", json.dumps(schema, ensure_ascii=False))

    @classmethod
    def choice(cls, options: Sequence[str]) -> "Grammar":
        """One of ``options``, to the letter."""
        if not options or not all(isinstance(option, str) and option for option in options):
            raise RequestRefused(
                f"choice is {reprlib.repr(options)}; give a list of texts, none of them empty"
            )
        return cls("lark", "start: " + " | ".join(map(json.dumps, dict.fromkeys(options))))


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Sampling settings of one request.

    ``temperature=0`` is greedy whatever the filters say. ``top_k=0``, ``top_p=1`` and ``min_p=0``
    switch their filter off. ``seed=None`` derives one from the engine's seed and the request id, so
    a run repeats.

    ``presence_penalty`` is taken off the logit of every token generated before, and
    ``frequency_penalty`` off it as often as that was; ``repetition_penalty`` divides the logit of
    every token of prompt or output, or multiplies it where negative. ``logit_bias`` is added to the
    logits of its token ids; 100 all but forces a token, -100 all but bans it. Until ``min_tokens``
    are generated, no token that would end the answer is chosen. All of them hold for greedy too.

    ``grammar`` bans every token with which the output could no longer become what it describes.
    It may end where that is complete; where it cannot go on it ends, and neither ``min_tokens`` nor
    ``ignore_eos`` keep it from that. One that reaches ``max_tokens`` before is cut like any other.

    ``logprobs=k`` records the log-probability of the chosen token and the ``k`` likeliest, by the
    model's own distribution: nothing above changes them. ``prompt_logprobs=k`` records the same for
    the tokens of the prompt, for which all of it is computed, whatever is cached.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = {}
    seed: int | None = None
    max_tokens: int = 128
    min_tokens: int = 0
    ignore_eos: bool = False
    stop_token_ids: tuple[int, ...] = ()
    grammar: Grammar | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None

    def __post_init__(self) -> None:
        for field in _fields(type(self)):
            value = getattr(self, field.name)
            if value is field.default:
                continue
            try:
                msgspec.convert(value, field.type)
            except msgspec.ValidationError as error:
                message = str(error).lower().replace("`", "")
                raise RequestRefused(f"{field.name} is {reprlib.repr(value)}; {message}") from error
        self._require(self.temperature >= 0, "temperature", "at least 0")
        self._require(0 <= self.top_k <= LARGEST, "top_k", f"0 (off) to {LARGEST}")
        self._require(0 < self.top_p <= 1, "top_p", "above 0 and at most 1")
        self._require(0 <= self.min_p <= 1, "min_p", "between 0 and 1")
        for name in ("presence_penalty", "frequency_penalty"):
            self._require(-2 <= getattr(self, name) <= 2, name, "between -2 and 2")
        penalty = self.repetition_penalty
        self._require(0 < penalty < math.inf, "repetition_penalty", "a number above 0")
        for token, bias in self.logit_bias.items():
            if not -100 <= bias <= 100:
                raise RequestRefused(
                    f"logit_bias of token {token} is {bias}; it must be between -100 and 100"
                )
        self._require(self.max_tokens >= 1, "max_tokens", "at least 1")
        self._require(self.max_tokens <= LARGEST, "max_tokens", f"at most {LARGEST}")
        longest = f"0 to max_tokens, which is {self.max_tokens}"
        self._require(0 <= self.min_tokens <= self.max_tokens, "min_tokens", longest)
        for name in ("logprobs", "prompt_logprobs"):
            self._require(0 <= (getattr(self, name) or 0) <= 20, name, "0 to 20")

    def _require(self, ok: bool, name: str, expected: str) -> None:
        if not ok:
            raise RequestRefused(f"{name} is {getattr(self, name)}; it must be {expected}")

    def sample(self, i: int) -> "SamplingParams":
        """The parameters of sample ``i`` of several: the same, with a seed of its own."""
        if self.seed is None or i == 0:
            return self
        return msgspec.structs.replace(self, seed=self.seed + i)

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    @property
    def adjusts(self) -> bool:
        """Whether anything changes the logits before temperature and filters do."""
        return bool(self.logit_bias or self.min_tokens or self.penalises or self.grammar)

    @property
    def penalises(self) -> bool:
        return bool(self.repetition_penalty != 1 or self.frequency_penalty or self.presence_penalty)


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Log-probability of the chosen token, and the likeliest ones as ``(token, logprob)``.

    ``left`` counts the tokens that bias, penalties, temperature and filters left to draw from, and
    ``share`` is the probability that the chosen one had among them; 0 for a greedy choice, and for
    tokens of a prompt, which nobody draws.
    """

    logprob: float
    top: list[tuple[int, float]] = []
    left: int = 0
    share: float = 0.0


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """Looked up once: it is asked for with every request, and a thousand times for a snapshot."""
    return msgspec.structs.fields(kind)
