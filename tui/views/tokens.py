"""The token inspector: each token of an answer, its probability, and what could have come instead.

Probabilities are the model's own, before temperature and filters. Only the likeliest few of each
token are recorded, so what depends on all of them, such as the entropy, is a bound and marked ≥.
"""

from math import exp, log
from typing import NamedTuple

from ...engine.sampling import SamplingParams, TokenLogprobs
from ...engine.snapshot import RequestState
from ...engine.wording import plural
from ..selection import Target
from ..store import Store
from ..text import Line, cell_len, clip, pad, wrap
from .base import Column, View, fit_table

COLUMNS = (
    Column("token", 5, ("#", 4)),
    Column("step", 5, ("step", 5)),
    Column("text", 16, ("text", 10), right=False),
    Column("chosen at", 12, ("p", 8), right=False),
    Column("", 6, ("", 6)),
    Column("rank", 4, ("rank", 4)),
    Column("entropy", 10, ("entropy", 7)),
)
_BAR = "▏▎▍▌▋▊▉█"
_ALTERNATIVES = 8  # of the token under the cursor, that are listed


class Entropy(NamedTuple):
    """In bits; ``exact`` unless tokens are missing from what was recorded."""

    bits: float
    exact: bool


def entropy(found: TokenLogprobs) -> Entropy:
    """Of the model's distribution, from its likeliest tokens.

    What is not recorded has the probability ``rest``. None of it is likelier than the least likely
    recorded token, nor than ``rest`` itself, so it adds at least ``-rest × log`` of the smaller.
    """
    known = dict(found.top)
    values = list(known.values()) or [found.logprob]
    bits = -sum(exp(value) * value for value in values) / log(2)
    rest = 1 - sum(map(exp, values))
    if rest < 1e-6:
        return Entropy(max(0.0, bits), True)
    least = min(rest, exp(min(values)))
    return Entropy(bits - rest * log(least) / log(2), False)


def rank(found: TokenLogprobs) -> str:
    """The chosen token's place among the likeliest: ``1``, or ``>5`` if it is not among five."""
    better = sum(value > found.logprob for _, value in found.top)
    missing = found.top and better == len(found.top)
    return f">{better}" if missing else str(better + 1) if found.top else "?"


def share_bar(share: float, width: int) -> str:
    """
    >>> share_bar(0.5, 4), share_bar(0.01, 4)
    ('██', '▏')
    """
    eighths = max(1, round(share * width * 8))
    return "█" * (eighths // 8) + (_BAR[eighths % 8 - 1] if eighths % 8 else "")


def percent(share: float) -> str:
    """
    >>> percent(0.5), percent(0.00012)
    ('50.0 %', '<0.1 %')
    """
    return f"{100 * share:.1f} %" if share >= 0.0005 else "<0.1 %"


def sampler_words(params: SamplingParams) -> str:
    """What happens to the model's distribution before a token is drawn, in the sampler's order."""
    if params.greedy:
        return "greedy (temperature 0): the likeliest token is taken"
    steps: list[str] = []
    if params.logit_bias:
        steps.append(f"bias on {plural(len(params.logit_bias), 'token')}")
    for name in ("repetition_penalty", "frequency_penalty", "presence_penalty"):
        value = getattr(params, name)
        if value != (1 if name == "repetition_penalty" else 0):
            steps.append(f"{name.replace('_', ' ')} {value:g}")
    if params.min_tokens:
        steps.append(f"no end before {plural(params.min_tokens, 'token')}")
    steps.append(f"temperature {params.temperature:g}")
    if params.top_k:
        steps.append(f"top-k {params.top_k}")
    if params.top_p < 1:
        steps.append(f"top-p {params.top_p:g}")
    if params.min_p:
        steps.append(f"min-p {params.min_p:g}")
    seed = "the engine's seed and its id" if params.seed is None else f"seed {params.seed}"
    return " → ".join([*steps, f"drawn by {seed}"])


class TokensView(View):
    """The output tokens of one request; those under the cursor in detail below."""

    name = "Tokens"
    about = "the tokens of an answer, with their probabilities and alternatives"

    marks = False

    def __init__(self, request: int) -> None:
        super().__init__()
        self.request_id = request
        self._request: RequestState | None = None

    def update(self, store: Store, width: int, height: int) -> None:
        self._store, self._width = store, width
        self._table = fit_table(COLUMNS, width, 16)
        request = self._request = store.state.requests.get(self.request_id)
        self.header, self.footer, self.keys = [], [], []
        self.subtitle = ""
        if request is None:
            self.header = [[(f"#{self.request_id} is not known here", "warn")]]
            return
        output = len(request.tokens) - request.prompt_len
        self.subtitle = f"#{request.id} · {output} of {request.params.max_tokens} tokens"
        words = wrap(sampler_words(request.params), width)
        self.header = [[(part, "dim")] for part in words[:2]]
        if not output:
            waits = "no token yet: its prompt has to be computed first"
            self.header += [[], [(clip(waits, width), "accent")]]
            return
        if not request.logprobs:
            self.header += [[], *self._none_recorded(width)]
        alternatives = clip("instead of it", width - self._table.width)
        self.header += [[], [*self._table.head, (alternatives, "heading")]]
        self.keys = [Target("request", request.id)] * output
        room = height - len(self.header) - 3
        self.footer = self._detail(min(self.cursor, output - 1), width)[: max(0, room // 2)]

    def anchor(self, item: int) -> object:
        return item

    def find(self, anchor: object) -> int | None:
        return anchor if isinstance(anchor, int) else None

    def _none_recorded(self, width: int) -> list[Line]:
        text = (
            "No probabilities were recorded. `minisgl-tui run --logprobs 5` records those of the "
            "chosen token and of the five likeliest; so does `logprobs` in a request to the server."
        )
        return [[(part, "accent")] for part in wrap(text, width)]

    def _found(self, i: int) -> TokenLogprobs | None:
        assert self._request is not None
        logprobs = self._request.logprobs
        return logprobs[i] if i < len(logprobs) else None

    def _text(self, token: int) -> str:
        return f"“{self._store.texts.token(token)}”"

    def line(self, i: int) -> Line:
        request = self._request
        assert request is not None
        token = request.tokens[request.prompt_len + i]
        step = self._store.sampled.step_of(request.id, i)
        cells = [
            (str(i), "dim"),
            ("–" if step is None else str(step), "dim"),
            (self._text(token), "strong"),
        ]
        found = self._found(i)
        if found is None:
            return self._table.row(cells)
        share = exp(found.logprob)
        bits, exact = entropy(found)
        style = "good" if share > 0.5 else "warn" if share > 0.1 else "bad"
        widths = self._table.widths
        bar = share_bar(share, widths[3]) if len(widths) > 3 else ""
        cells += [
            (bar, style),
            (percent(share).replace(" ", ""), style),
            (rank(found), "text"),
            (f"{'' if exact else '≥ '}{bits:.2f}", "dim"),
        ]
        others = [(t, value) for t, value in found.top if t != token]
        words = " · ".join(f"{self._text(t)} {percent(exp(value))}" for t, value in others)
        return [*self._table.row(cells), (clip(words, self._width - self._table.width), "dim")]

    # --- the token under the cursor --------------------------------------------------------------

    def _detail(self, i: int, width: int) -> list[Line]:
        request, found = self._request, self._found(i)
        assert request is not None
        token = request.tokens[request.prompt_len + i]
        step = self._store.sampled.step_of(request.id, i)
        where = f"token {i}, position {request.prompt_len + i}"
        where += "" if step is None else f", sampled in step {step}"
        lead = clip(self._text(token), width // 2) + " "
        where = clip(where, width - cell_len(lead))
        lines: list[Line] = [[], [(lead, "strong"), (where, "dim")]]
        if found is None:
            return lines
        bits, exact = entropy(found)
        words = (
            f"{self._drawn(request, token, found)} · entropy {'' if exact else '≥ '}{bits:.2f} bits"
        )
        lines += [[(part, "text")] for part in wrap(words, width)]
        listed = sorted({*found.top, (token, found.logprob)}, key=lambda pair: (-pair[1], pair[0]))
        size = min(24, max(10, *(cell_len(self._text(t)) for t, _ in listed)))
        for t, value in listed[:_ALTERNATIVES]:
            here = t == token
            lines.append(
                [
                    ("▸ " if here else "  ", "accent"),
                    (pad(self._text(t), size) + " ", "strong" if here else "text"),
                    (f"{percent(exp(value)):>7} ", "text"),
                    (share_bar(exp(value), max(4, width - size - 12)), "good" if here else "faint"),
                ]
            )
        rest = 1 - sum(exp(value) for _, value in listed)
        if rest > 0.0005:
            lines.append([(f"  {pad('all others', size)} {percent(rest):>7}", "dim")])
        return lines

    def _drawn(self, request: RequestState, token: int, found: TokenLogprobs) -> str:
        share = percent(exp(found.logprob))
        if request.params.greedy:
            tied = any(value == found.logprob and t != token for t, value in found.top)
            which = "the lowest id of the likeliest" if tied else "the likeliest"
            return f"the model gave it {share}; greedy takes {which}"
        if not found.left:
            return f"the model gave it {share}"
        among = "the only one left" if found.left == 1 else f"among {found.left:,} left"
        return f"the model gave it {share}; drawn {among}, where it had {percent(found.share)}"
