"""Tiny random checkpoints, and the smallest scheduler that can drive a ModelRunner."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from minisgl_tui.engine.loader import open_checkpoint
from minisgl_tui.engine.models.base import CausalLM, Checkpoint
from minisgl_tui.engine.plan import Plan, Row
from minisgl_tui.engine.request import Request
from minisgl_tui.engine.runner.attention.registry import make_backend
from minisgl_tui.engine.runner.kv_cache import KVCache
from minisgl_tui.engine.runner.model_runner import ModelRunner
from minisgl_tui.engine.sampling import SamplingParams

from .zoo import BRIDGED, REFUSED

CPU = torch.device("cpu")
GREEDY = SamplingParams(temperature=0, max_tokens=8)

SMALL: dict[str, Any] = {
    "vocab_size": 199,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,  # large enough that tokens and positions clearly matter
    "eos_token_id": 2,
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 5000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 64,
}
_MOE = {
    "head_dim": 8,
    "num_experts": 9,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 20,
}

TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {"tie_word_embeddings": False}),
    "llama-tied-llama3-rope": (
        "LlamaConfig",
        {"tie_word_embeddings": True, "rope_parameters": _LLAMA3_ROPE},
    ),
    "llama-linear-rope-biases": (
        "LlamaConfig",
        {
            "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
            "attention_bias": True,
            "mlp_bias": True,
            "head_dim": 12,
            "num_key_value_heads": 6,
        },
    ),
    "mistral": ("MistralConfig", {"sliding_window": None, "head_dim": 16}),
    "mistral-window": ("MistralConfig", {"sliding_window": 20, "head_dim": 16}),
    "qwen2": ("Qwen2Config", {"tie_word_embeddings": True}),
    "qwen2-some-layers-slide": (
        "Qwen2Config",
        {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3Config", {"head_dim": 16, "num_key_value_heads": 3}),
}

FEATURES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3-yarn": (
        "Qwen3Config",
        {"head_dim": 16, "rope_parameters": {**_YARN_ROPE, "mscale": 0.8, "mscale_all_dim": 0.3}},
    ),
    "llama-yarn": ("LlamaConfig", {"rope_parameters": {**_YARN_ROPE, "truncate": False}}),
    "llama-yarn-attention-factor": (
        "LlamaConfig",
        {"rope_parameters": {**_YARN_ROPE, "attention_factor": 1.3, "beta_fast": 20.0}},
    ),
    "smollm3": ("SmolLM3Config", {"no_rope_layer_interval": 2, "pad_token_id": 0}),
    "smollm3-nope-layers-slide": (
        "SmolLM3Config",
        {
            "no_rope_layers": [0, 1, 0],
            "use_sliding_window": True,
            "sliding_window": 20,
            "pad_token_id": 0,
            "tie_word_embeddings": False,
            "attention_bias": True,
        },
    ),
    "mixtral": ("MixtralConfig", {"num_local_experts": 5, "num_experts_per_tok": 2}),
    "mixtral-window": ("MixtralConfig", {"num_local_experts": 4, "sliding_window": 20}),
    "qwen3-moe": ("Qwen3MoeConfig", _MOE),
    "qwen3-moe-some-layers-dense": (
        "Qwen3MoeConfig",
        {
            **_MOE,
            "norm_topk_prob": True,
            "decoder_sparse_step": 2,
            "num_hidden_layers": 4,
            "mlp_only_layers": [3],
            "use_sliding_window": True,
            "sliding_window": 24,
        },
    ),
}


def make_checkpoint(name: str, directory: Path, **changes: Any) -> Any:
    """Save a random model of kind ``name`` in ``directory``; returns the transformers model."""
    import transformers

    class_name, settings = {**TINY, **FEATURES, **BRIDGED, **REFUSED}[name]
    config = getattr(transformers, class_name)(**{**SMALL, **settings, **changes})
    torch.manual_seed(sum(name.encode()))
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("bias") or "norm" in parameter_name:
                parameter.add_(torch.randn_like(parameter) * 0.2)  # zeros and ones hide mistakes
    model.save_pretrained(directory)
    return model.eval()


def make_runner(
    directory: Path,
    *,
    block_size: int = 16,
    attention: str = "sdpa",
    num_blocks: int = 200,
    poison: bool = False,
    impl: str = "auto",
) -> ModelRunner:
    """A float32 runner; ``poison`` fills the cache with NaN, as stale memory might be."""
    checkpoint = open_checkpoint(directory, impl)
    model = checkpoint.load(dtype=torch.float32, device=CPU)
    return runner_of(
        checkpoint,
        model,
        block_size=block_size,
        attention=attention,
        num_blocks=num_blocks,
        poison=poison,
    )


def runner_of(
    checkpoint: Checkpoint,
    model: CausalLM,
    *,
    block_size: int = 16,
    attention: str = "sdpa",
    num_blocks: int = 200,
    poison: bool = False,
) -> ModelRunner:
    """As ``make_runner``, for a model that is loaded."""
    cache = KVCache(
        checkpoint.attention,
        num_blocks=num_blocks,
        block_size=block_size,
        dtype=torch.float32,
        device=CPU,
    )
    if poison:
        for tensor in (*cache.keys, *cache.values):
            tensor[:, :num_blocks].fill_(float("nan"))
    return ModelRunner(model, cache, make_backend(attention, CPU))


@dataclass(slots=True)
class Tables:
    """Hands out block ids, highest first, so that slot order differs from token order."""

    runner: ModelRunner
    next_id: int = 0

    def __post_init__(self) -> None:
        self.next_id = self.runner.cache.num_blocks - 1

    def grow(self, request: Request, length: int) -> None:
        while len(request.block_table) * self.runner.cache.block_size < length:
            request.block_table.append(self.next_id)
            self.next_id -= 1
            assert self.next_id >= -1, "the test needs a larger pool"


def chunk(tables: Tables, request: Request, count: int) -> Row:
    """The next ``count`` tokens of ``request``, or as many as there are."""
    count = min(count, request.remaining)
    row = Row(request, request.computed, count, samples=count == request.remaining)
    tables.grow(request, row.end)
    request.computed = row.end
    return row


def prefill_logits(
    runner: ModelRunner, tokens: list[int], chunk_size: int, tables: Tables | None = None
) -> torch.Tensor:
    """Logits ``[vocab]`` after ``tokens``, computed ``chunk_size`` tokens a step."""
    tables = tables or Tables(runner)
    request = Request(0, list(tokens), GREEDY)
    logits = torch.empty(0)
    while request.remaining > 0:
        logits = runner.logits(Plan(0, [chunk(tables, request, chunk_size)]))
    return logits[0]


def greedy(
    runner: ModelRunner, prompts: list[list[int]], new_tokens: int, budget: int
) -> list[list[int]]:
    """Generate for all prompts together: decodes first, then chunks, ``budget`` tokens a step."""
    tables = Tables(runner)
    requests = [Request(index, list(prompt), GREEDY) for index, prompt in enumerate(prompts)]
    step = 0
    while live := [request for request in requests if len(request.output) < new_tokens]:
        left, rows = budget, []
        for request in sorted(live, key=lambda request: request.remaining > 1):
            if left:
                rows.append(chunk(tables, request, left))
                left -= rows[-1].count
        output = runner.execute(Plan(step, rows))
        sampling = [row.request for row in rows if row.samples]
        for request, token in zip(sampling, output.tokens, strict=True):
            request.tokens.append(token)
        step += 1
    return [request.output for request in requests]


def reference_logits(model: Any, tokens: list[int]) -> torch.Tensor:
    """transformers' logits ``[len(tokens), vocab]``."""
    with torch.inference_mode():
        return model(torch.tensor([tokens])).logits[0]


def reference_greedy(model: Any, prompt: list[int], new_tokens: int) -> list[int]:
    """transformers' own greedy continuation, end-of-sequence ignored."""
    ids = torch.tensor([prompt])
    model.generation_config.eos_token_id = None  # `min_new_tokens` would suppress the id instead
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new_tokens,
        do_sample=False,
        pad_token_id=0,
    )
    return out[0, len(prompt) :].tolist()


def random_tokens(count: int, seed: int = 0, vocab: int = 199) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, vocab, (count,), generator=generator).tolist()
