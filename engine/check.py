"""Does a model give the same tokens however it is run?

Owns the ways of running it, comparing them pair by pair, and measuring how close the choice was
where two of them part. Everything is greedy, over built-in prompts. In float32 all must agree. In
bfloat16 rounding decides between tokens that are nearly as likely: a small margin is rounding, a
large one is a fault.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch

from .errors import UserError
from .llm import LLM
from .model_store import Progress, no_progress, resolve
from .models.probe import on_one_line
from .models.quiet import quiet
from .runner.attention.registry import BACKENDS
from .sampling import SamplingParams
from .tokenizer import has_tokenizer

LENGTHS = (3, 9, 17, 33, 64, 130, 250, 400)  # in tokens; as many as the context allows
CHUNK, MOST_PROMPTS = 16, 1000
_TOP = 20  # tokens whose log-probability is known at each position
_TEXT = (
    "The river had carried the town's timber for two hundred years before the railway came, and "
    "old people still told the hour by its sound. In spring it ran brown and fast under the stone "
    "bridge; by August a child could wade across. Nobody had ever agreed about its name. The maps "
    "called it one thing, the farmers upstream another, and the ferryman, who was paid by both, "
    "called it simply the water. When engineers arrived to measure it, they asked him how deep it "
    "was at the bend. He thought about this for a while. That depends, he said, on whether you "
    "mean to cross it, to drink it, or to build something that it will one day take away. "
)


@dataclass(frozen=True, slots=True)
class Answer:
    """Greedy ``tokens``, and at each position the log-probabilities of the likeliest."""

    tokens: list[int]
    top: list[dict[int, float]]


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where two runs first part: token ``position`` of the answer to ``prompt``, both from 0.

    ``tokens`` are the choices of the first and the second run; ``margins`` say by how much each
    run preferred its own to the other's, in logits (at least, where the other is far down).
    """

    prompt: int
    prompt_tokens: int
    position: int
    tokens: tuple[int, int]
    texts: tuple[str, str]
    margins: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two ways of running the same prompts, and of how many the answers agree."""

    first: str
    second: str
    prompts: int
    agreeing: int
    divergence: Divergence | None


@dataclass(frozen=True, slots=True)
class Report:
    """All comparisons of one model.

    ``cached_tokens`` were found by the warm run. ``skipped`` are the attention backends that do not
    run here, and transformers where it does not take the model, each with the reason.
    """

    model: str
    dtype: str
    device: str
    attention: str
    prompt_tokens: list[int]
    max_tokens: int
    cached_tokens: int
    comparisons: list[Comparison]
    skipped: dict[str, str]

    @property
    def agrees(self) -> bool:
        return all(one.divergence is None for one in self.comparisons)

    @property
    def ok(self) -> bool:
        """Whether nothing parted that must not: in float32 nothing may."""
        return self.agrees or self.dtype != "float32"


def check(
    model: str,
    *,
    prompts: int = len(LENGTHS),
    max_tokens: int = 16,
    progress: Progress = no_progress,
    **settings: Any,
) -> Report:
    """Run ``prompts`` greedy answers of ``max_tokens`` in every way, with ``settings`` of ``LLM``.

    Raises UserError for whatever cannot be loaded or run.
    """
    if not 1 <= prompts <= MOST_PROMPTS:
        raise UserError(f"--prompts is {prompts}; give 1 to {MOST_PROMPTS}")
    if max_tokens < 1:
        raise UserError(f"--max-tokens is {max_tokens}; give 1 or more")
    directory = resolve(model, progress)
    whole = max(settings.get("max_batch_tokens", 0), max(LENGTHS))
    settings = {**settings, "max_batch_tokens": whole}
    llm = _open(directory, settings, progress)
    info, attention = llm.model_info, llm.runner.attention.name
    load = _Load(_prompts(llm, prompts, max_tokens), max_tokens)
    text = llm.tokenizer.token_text if llm.tokenizer else str
    progress("running each prompt alone", None)
    alone = [load.run(llm, [prompt])[0] for prompt in load.prompts]
    progress("running all together, cold and warm", None)
    llm.reset_prefix_cache()
    cold, warm = load.run(llm), load.run(llm)
    warm_hits = load.cached_tokens
    del llm  # one model at a time is in memory
    comparisons = [
        load.compare("alone", alone, "batched", cold, text),
        load.compare("cold", cold, "warm", warm, text),
    ]
    chunked = _run_anew(directory, {**settings, "max_batch_tokens": CHUNK}, load, progress)
    comparisons.append(load.compare("whole", alone, f"chunks of {CHUNK}", chunked, text))
    skipped: dict[str, str] = {}
    for name in BACKENDS:
        if name == attention:
            continue
        try:
            other = _run_anew(directory, {**settings, "attention": name}, load, progress)
        except UserError as error:
            skipped[name] = str(error)
        else:
            comparisons.append(load.compare(attention, cold, name, other, text))
    try:
        theirs = _transformers_answers(directory, load, info.dtype, info.device, progress)
    except Exception as error:  # a library's own code, on what our decoder takes
        skipped["transformers"] = on_one_line(error)
    else:
        comparisons.append(load.compare("minisgl-tui", alone, "transformers", theirs, text))
    lengths = [len(prompt) for prompt in load.prompts]
    return Report(
        model=model,
        dtype=info.dtype,
        device=info.device,
        attention=attention,
        prompt_tokens=lengths,
        max_tokens=max_tokens,
        cached_tokens=warm_hits,
        comparisons=comparisons,
        skipped=skipped,
    )


def _open(directory: Path, settings: dict[str, Any], progress: Progress) -> LLM:
    gc.collect()  # what the last one left behind
    return LLM(
        directory, skip_tokenizer=not has_tokenizer(directory), progress=progress, **settings
    )


def _run_anew(
    directory: Path, settings: dict[str, Any], load: "_Load", progress: Progress
) -> list[Answer]:
    """Answers of a model loaded with other ``settings``, all prompts together."""
    llm = _open(directory, settings, progress)
    progress(
        f"running with {settings.get('attention', 'auto')} attention, at most "
        f"{settings['max_batch_tokens']} tokens a step",
        None,
    )
    return load.run(llm)


def _prompts(llm: LLM, count: int, max_tokens: int) -> list[list[int]]:
    """``count`` prompts of different texts and lengths, which all fit the model's context."""
    longest = llm.engine.config.max_model_len - max_tokens
    lengths = [length for length in LENGTHS if length <= longest]
    if not lengths:
        raise UserError(
            f"--max-tokens is {max_tokens}; of a context of {llm.engine.config.max_model_len} "
            f"tokens it must leave {LENGTHS[0]} for the prompt"
        )
    words = _TEXT.split()
    prompts: list[list[int]] = []
    for index, length in enumerate(islice(cycle(lengths), count)):
        start = 11 * index % len(words)
        rotated = words[start:] + words[:start]
        text = " ".join(islice(cycle(rotated), length))  # a word is a token or more
        if llm.tokenizer is None:
            size = llm.engine.config.vocab_size
            prompts.append([7919 * (index + 1) * (place + 1) % size for place in range(length)])
        else:
            prompts.append(llm.tokenizer.encode(text)[:length])
    return prompts


class _Load:
    """The prompts, and running and comparing them."""

    def __init__(self, prompts: list[list[int]], max_tokens: int) -> None:
        self.prompts, self.max_tokens = prompts, max_tokens
        self.cached_tokens = 0  # of the last run

    def run(self, llm: LLM, prompts: list[list[int]] | None = None) -> list[Answer]:
        """Answers to ``prompts``, or to all, in one call."""
        params = SamplingParams(
            temperature=0, max_tokens=self.max_tokens, ignore_eos=True, logprobs=_TOP
        )
        completions = llm.generate(self.prompts if prompts is None else prompts, params)
        for completion in completions:
            if completion.finish_reason == "error":
                raise UserError(f"a prompt was not answered: {completion.message}")
        self.cached_tokens = sum(completion.cached_tokens for completion in completions)
        return [
            Answer(one.token_ids, [dict(entry.top) for entry in one.logprobs])
            for one in completions
        ]

    def compare(
        self,
        first: str,
        ours: list[Answer],
        second: str,
        theirs: list[Answer],
        text: Callable[[int], str],
    ) -> Comparison:
        """How many answers agree, and where the first that does not parts."""
        pairs = list(zip(ours, theirs, strict=True))
        parted = [index for index, (a, b) in enumerate(pairs) if a.tokens != b.tokens]
        divergence = None
        if parted:
            divergence = self._divergence(parted[0], *pairs[parted[0]], text)
        return Comparison(first, second, len(pairs), len(pairs) - len(parted), divergence)

    def _divergence(
        self, prompt: int, ours: Answer, theirs: Answer, text: Callable[[int], str]
    ) -> Divergence:
        position = next(
            place
            for place, (a, b) in enumerate(zip(ours.tokens, theirs.tokens, strict=True))
            if a != b
        )
        a, b = ours.tokens[position], theirs.tokens[position]
        return Divergence(
            prompt=prompt,
            prompt_tokens=len(self.prompts[prompt]),
            position=position,
            tokens=(a, b),
            texts=(text(a), text(b)),
            margins=(_margin(ours.top[position], a, b), _margin(theirs.top[position], b, a)),
        )


def _margin(top: dict[int, float], chosen: int, other: int) -> float:
    return top[chosen] - top.get(other, min(top.values()))


def _transformers_answers(
    directory: Path, load: _Load, dtype: str, device: str, progress: Progress
) -> list[Answer]:
    """Each prompt alone through transformers' own model, with its own cache and attention."""
    import transformers

    progress("running with transformers", None)
    gc.collect()
    with quiet(transformers):
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            directory, dtype=dtype, local_files_only=True, use_safetensors=True
        )
        model = model.to(device).eval()
        return [_greedy(model, prompt, load.max_tokens, device) for prompt in load.prompts]


@torch.inference_mode()
def _greedy(model: Any, prompt: list[int], max_tokens: int, device: str) -> Answer:
    answer, ids, cache = Answer([], []), torch.tensor([prompt], device=device), None
    for _ in range(max_tokens):
        output = model(input_ids=ids, past_key_values=cache, use_cache=True)
        scores = output.logits[0, -1].float().log_softmax(-1)
        values, tokens = scores.topk(min(_TOP, len(scores)))
        answer.top.append(dict(zip(tokens.tolist(), values.tolist(), strict=True)))
        answer.tokens.append(int(scores.argmax()))
        ids, cache = torch.tensor([answer.tokens[-1:]], device=device), output.past_key_values
    return answer
