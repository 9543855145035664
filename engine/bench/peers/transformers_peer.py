"""transformers as its users run it: ``generate`` on left-padded groups of 16, with SDPA.

A group runs to its longest answer, as ``generate`` does; what a request got beyond the tokens it
asked for, or after its end, is not counted. All of a group are sampled by the parameters of the
first, and by no others than `FILTERS` and the temperature. There is no prefix cache to reset, and
nothing is detokenized.
"""

from collections.abc import Collection
from time import perf_counter
from typing import Any

import wire

GROUP = 16
PAD = 0  # masked out
FILTERS = {"top_k": 0, "top_p": 1.0, "min_p": None}  # off


def load(job: dict[str, Any]) -> tuple[str, wire.Run]:
    import torch
    import transformers

    torch.set_num_threads(job["threads"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        job["model"], dtype=getattr(torch, job["dtype"]), attn_implementation="sdpa"
    )
    model = model.to(device).eval()
    eos = model.generation_config.eos_token_id
    ends = [eos] if isinstance(eos, int) else eos or []
    model.generation_config = transformers.GenerationConfig()  # the requests say what they want

    def generate(group: wire.Requests) -> list[int]:
        params = group[0]["params"]
        width = max(len(request["prompt"]) for request in group)
        longest = max(request["params"]["max_tokens"] for request in group)
        padding = [width - len(request["prompt"]) for request in group]
        ids = [[PAD] * pad + one["prompt"] for pad, one in zip(padding, group, strict=True)]
        mask = [[0] * pad + [1] * (width - pad) for pad in padding]
        temperature = params["temperature"]
        filters = {name: params.get(name, off) for name, off in FILTERS.items()}
        sampling = {"temperature": temperature, **filters} if temperature else {}
        heeded = [] if params.get("ignore_eos") else ends
        output = model.generate(
            torch.tensor(ids, device=device),
            attention_mask=torch.tensor(mask, device=device),
            max_new_tokens=longest,
            pad_token_id=PAD,
            eos_token_id=heeded or None,
            do_sample=bool(sampling),
            **sampling,
        )
        return [
            answered(row[: request["params"]["max_tokens"]], heeded)
            for row, request in zip(output[:, width:].tolist(), group, strict=True)
        ]

    @torch.inference_mode()
    def run(requests: wire.Requests) -> tuple[float, list[int]]:
        began = perf_counter()
        outputs: list[int] = []
        for start in range(0, len(requests), GROUP):
            outputs += generate(requests[start : start + GROUP])
        return perf_counter() - began, outputs

    return f"transformers {transformers.__version__}", run


def answered(tokens: list[int], ends: Collection[int]) -> int:
    """How many of ``tokens`` there are up to the first of ``ends``; what follows is padding."""
    return next((n for n, token in enumerate(tokens, start=1) if token in ends), len(tokens))


if __name__ == "__main__":
    wire.main(load)
