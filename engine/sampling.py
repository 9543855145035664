"""How a request wants its next tokens chosen, and what it may ask to know about them.

Parameters and results only; the sampler lives in ``runner``.
"""

import msgspec

from .errors import RequestRefused

LARGEST = 2**31 - 1


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Sampling settings of one request.

    ``temperature=0`` is greedy whatever the filters say. ``top_k=0``, ``top_p=1`` and ``min_p=0``
    switch their filter off. ``seed=None`` derives one from the engine's seed and the request id, so
    a run repeats. ``logprobs=k`` records the log-probability of the chosen token and the ``k``
    likeliest.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    max_tokens: int = 128
    ignore_eos: bool = False
    stop_token_ids: tuple[int, ...] = ()
    logprobs: int | None = None

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            try:
                msgspec.convert(value, field.type)
            except msgspec.ValidationError as error:
                message = str(error).lower().replace("`", "")
                raise RequestRefused(f"{field.name} is {value!r}; {message}") from error
        self._require(self.temperature >= 0, "temperature", "at least 0")
        self._require(0 <= self.top_k <= LARGEST, "top_k", f"0 (off) to {LARGEST}")
        self._require(0 < self.top_p <= 1, "top_p", "above 0 and at most 1")
        self._require(0 <= self.min_p <= 1, "min_p", "between 0 and 1")
        self._require(self.max_tokens >= 1, "max_tokens", "at least 1")
        self._require(self.max_tokens <= LARGEST, "max_tokens", f"at most {LARGEST}")
        self._require(self.logprobs is None or 0 <= self.logprobs <= 20, "logprobs", "0 to 20")

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


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Log-probability of the chosen token, and the likeliest ones as ``(token, logprob)``."""

    logprob: float
    top: list[tuple[int, float]] = []
