"""How a request wants its next tokens chosen, and what it may ask to know about them.

Parameters and results only; the sampler lives in ``runner``.
"""

import math
import reprlib

import msgspec

from .errors import RequestRefused

LARGEST = 2**31 - 1


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
    logprobs: int | None = None
    prompt_logprobs: int | None = None

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
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
        return bool(self.logit_bias or self.min_tokens or self.penalises)

    @property
    def penalises(self) -> bool:
        return bool(self.repetition_penalty != 1 or self.frequency_penalty or self.presence_penalty)


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Log-probability of the chosen token, and the likeliest ones as ``(token, logprob)``."""

    logprob: float
    top: list[tuple[int, float]] = []
