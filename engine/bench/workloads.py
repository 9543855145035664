"""What is measured: prompts as token ids, and how many tokens each of them is answered with.

The built-in ones are deterministic and the same on every machine. Ids above a model's vocabulary
wrap around, so lengths and shared prefixes stay what they are. No torch.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ..errors import UserError
from ..sampling import SamplingParams
from ..workload import WorkloadRequest, load_workload

Encode = Callable[[WorkloadRequest], list[int]]

_DEFAULTS = msgspec.structs.asdict(SamplingParams())

_LOW, _HIGH = 100, 49_000  # ids of the built-in prompts: ordinary tokens of a 49,152 vocabulary


class BenchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt and its parameters: it is answered with exactly ``params.max_tokens`` tokens, or up
    to as many where ``params.ignore_eos`` is false.

    ``at_step`` and ``priority`` are as in workload files; only our own engine knows of steps.
    """

    prompt: list[int]
    params: SamplingParams
    at_step: int = 0
    priority: int = 0

    @property
    def sampling(self) -> dict[str, Any]:
        """The parameters by the names that our API and vLLM have for them: those that are not at
        their default, and the two whose default is another elsewhere."""
        asked = msgspec.structs.asdict(self.params)
        return {
            name: value
            for name, value in asked.items()
            if name in ("max_tokens", "temperature") or value != _DEFAULTS[name]
        }


class BenchWorkload(msgspec.Struct, frozen=True):
    """``engine`` holds the settings that a workload file asks for, by the names of `LLM`."""

    name: str
    requests: list[BenchRequest]
    engine: dict[str, int | str] = {}

    def settings(self, flags: dict[str, Any]) -> dict[str, Any]:
        """``flags`` over what the workload asks for."""
        sized = "kv_memory" in flags  # the pool's size has two names
        wished = {k: v for k, v in self.engine.items() if not (sized and k == "num_blocks")}
        return {**wished, **flags}

    @property
    def warm_up(self) -> BenchRequest:
        """The first request cut short: whoever has room for that one has it for this."""
        first = self.requests[0]
        most = min(4, first.params.max_tokens)
        params = SamplingParams(temperature=0, max_tokens=most, ignore_eos=True)
        return BenchRequest(prompt=first.prompt[:20], params=params)

    @property
    def prompt_tokens(self) -> int:
        return sum(len(request.prompt) for request in self.requests)

    @property
    def output_tokens(self) -> int:
        """The most there can be; exactly as many where every request ignores end of sequence."""
        return sum(request.params.max_tokens for request in self.requests)

    @property
    def exact(self) -> bool:
        return all(request.params.ignore_eos for request in self.requests)

    @property
    def longest(self) -> int:
        """Tokens of the longest request, prompt and output."""
        return max(len(request.prompt) + request.params.max_tokens for request in self.requests)


def built_in(name: str, vocab_size: int) -> BenchWorkload:
    """The built-in workload ``name`` for a model of ``vocab_size`` tokens."""
    temperature = 0.6 if name == "nano-vllm" else 0.0
    return BenchWorkload(
        name,
        [
            BenchRequest(
                prompt=[token % vocab_size for token in prompt],
                params=SamplingParams(
                    temperature=temperature, max_tokens=output_len, ignore_eos=True
                ),
            )
            for prompt, output_len in _BUILT_IN[name]()
        ],
    )


def from_file(path: Path, encode: Encode) -> BenchWorkload:
    """The workload in ``path``; ``encode`` gives the token ids of a request. Raises UserError."""
    workload = load_workload(path)
    requests = [
        BenchRequest(
            prompt=encode(request),
            params=request.params(),
            at_step=request.at_step,
            priority=request.priority,
        )
        for request in workload.expanded()
    ]
    return BenchWorkload(path.stem, requests, workload.engine.given())


def choose(
    names: list[str], vocab_size: int, max_model_len: int, encode: Encode
) -> tuple[list[BenchWorkload], list[str]]:
    """The workloads called ``names`` (built-in names or files; none: `DEFAULT`), and notes on
    those of the default that do not fit into ``max_model_len`` tokens and are left out.

    Raises UserError for a name that is neither, and where one that was asked for does not fit.
    """
    chosen: list[BenchWorkload] = []
    notes: list[str] = []
    for name in names or DEFAULT:
        workload = _named(name, vocab_size, encode)
        if workload.longest <= max_model_len:
            chosen.append(workload)
            continue
        problem = (
            f"{name} needs a context of {workload.longest} tokens, and the model has "
            f"{max_model_len}"
        )
        if names:
            raise UserError(f"workload {problem}; choose another")
        notes.append(f"left out: {problem}")
    if not chosen:
        raise UserError("no built-in workload fits; give your own with --workload FILE")
    names_chosen = [workload.name for workload in chosen]
    twice = next((name for name in names_chosen if names_chosen.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"there are two workloads called {twice}; give each of them once")
    return chosen, notes


def _named(name: str, vocab_size: int, encode: Encode) -> BenchWorkload:
    if name in _BUILT_IN:
        return built_in(name, vocab_size)
    path = Path(name).expanduser()
    if path.suffix in (".toml", ".json") or path.exists():
        return from_file(path, encode)
    raise UserError(
        f"workload {name!r} is neither built in ({', '.join(_BUILT_IN)}) nor a TOML or JSON file"
    )


# --- the built-in ones: (prompt, output length) of each request --------------------------------

_Pairs = list[tuple[list[int], int]]


def _ids(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(_LOW, _HIGH) for _ in range(count)]


def _single() -> _Pairs:
    """One stream: 32 in, 128 out. Decode at batch 1 reads all weights for every token."""
    return [(_ids(random.Random(1), 32), 128)]


def _mixed() -> _Pairs:
    """32 requests at once, 32–256 in, 32–128 out: prefills and decodes share the steps."""
    rng = random.Random(2)
    return [(_ids(rng, rng.randint(32, 256)), rng.randint(32, 128)) for _ in range(32)]


def _shared_prefix() -> _Pairs:
    """32 requests of 512 common and 32 own tokens, 32 out: what the prefix cache is for."""
    rng = random.Random(3)
    head = _ids(rng, 512)
    return [(head + _ids(rng, 32), 32) for _ in range(32)]


def _long_prefill() -> _Pairs:
    """2,048 in, 1 out: nothing but prefill."""
    return [(_ids(random.Random(4), 2048), 1)]


def _wide_decode() -> _Pairs:
    """16 requests of 32 in, 64 out: decode in a batch."""
    rng = random.Random(5)
    return [(_ids(rng, 32), 64) for _ in range(16)]


def _nano_vllm() -> _Pairs:
    """nano-vllm's benchmark: 256 requests, 100–1,024 in and out, 133,966 tokens out."""
    rng = random.Random(0)
    prompts = [[rng.randint(0, 10_000) for _ in range(rng.randint(100, 1024))] for _ in range(256)]
    return [(prompt, rng.randint(100, 1024)) for prompt in prompts]


_BUILT_IN: dict[str, Callable[[], _Pairs]] = {
    "single": _single,
    "wide_decode": _wide_decode,
    "mixed": _mixed,
    "shared_prefix": _shared_prefix,
    "long_prefill": _long_prefill,
    "nano-vllm": _nano_vllm,
}
NAMES = tuple(_BUILT_IN)
DEFAULT = [name for name in NAMES if name != "nano-vllm"]
