"""transformers as its users run it: ``generate`` on left-padded groups of 16, with SDPA.

A group runs to its longest answer, as ``generate`` does; what a request got beyond the tokens it
asked for is not counted. There is no prefix cache to reset, and nothing is detokenized.
"""

from time import perf_counter
from typing import Any

import wire

GROUP = 16
PAD = 0  # masked out


def load(job: dict[str, Any]) -> tuple[str, wire.Run]:
    import torch
    import transformers

    torch.set_num_threads(job["threads"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        job["model"], dtype=getattr(torch, job["dtype"]), attn_implementation="sdpa"
    )
    model = model.to(device).eval()
    default_eos = model.generation_config.eos_token_id

    def generate(group: wire.Requests) -> list[int]:
        params = group[0]["params"]
        width = max(len(request["prompt"]) for request in group)
        longest = max(request["params"]["max_tokens"] for request in group)
        padding = [width - len(request["prompt"]) for request in group]
        ids = [[PAD] * pad + one["prompt"] for pad, one in zip(padding, group, strict=True)]
        mask = [[0] * pad + [1] * (width - pad) for pad in padding]
        temperature = params.get("temperature", 1.0)
        sampling = {"do_sample": True, "temperature": temperature} if temperature else {}
        ignore_eos = all(request["params"].get("ignore_eos") for request in group)
        model.generation_config.eos_token_id = None if ignore_eos else default_eos
        output = model.generate(
            torch.tensor(ids, device=device),
            attention_mask=torch.tensor(mask, device=device),
            max_new_tokens=longest,
            pad_token_id=PAD,
            **{"do_sample": False, **sampling},
        )
        made = output.shape[1] - width
        return [min(made, request["params"]["max_tokens"]) for request in group]

    @torch.inference_mode()
    def run(requests: wire.Requests) -> tuple[float, list[int]]:
        began = perf_counter()
        outputs: list[int] = []
        for start in range(0, len(requests), GROUP):
            outputs += generate(requests[start : start + GROUP])
        return perf_counter() - began, outputs

    return f"transformers {transformers.__version__}", run


if __name__ == "__main__":
    wire.main(load)
