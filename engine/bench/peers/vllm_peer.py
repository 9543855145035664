"""vLLM as its users run it offline: ``LLM.generate``, compiled, prefix caching on, cold each time.

Its threads are its own choice among the cores it is given: on a CPU it keeps one for its scheduler.
On two cores that decodes twice as fast as binding threads to both, which wins on long prompts only;
``VLLM_CPU_OMP_THREADS_BIND=0,1`` asks for that. Settings in the environment come first.
"""

import os
from time import perf_counter
from typing import Any

import wire

MAX_NUM_SEQS = 64  # on a CPU, where its default of 256 would only take memory
CONTEXT = 4096


def load(job: dict[str, Any]) -> tuple[str, wire.Run]:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job["threads"]])
    defaults = {
        "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)

    import vllm  # pyright: ignore[reportMissingImports]
    from vllm.platforms import current_platform  # pyright: ignore[reportMissingImports]

    engine = vllm.LLM(
        model=job["model"],
        dtype=job["dtype"],
        max_model_len=min(job["max_model_len"], CONTEXT),
        skip_tokenizer_init=job["skip_tokenizer"],
        enable_prefix_caching=True,
        **({"max_num_seqs": MAX_NUM_SEQS} if current_platform.is_cpu() else {}),
    )

    def run(requests: wire.Requests) -> tuple[float, list[int]]:
        engine.reset_prefix_cache()
        params = [vllm.SamplingParams(**by_ids(request["params"])) for request in requests]
        prompts = [{"prompt_token_ids": request["prompt"]} for request in requests]
        began = perf_counter()
        answers = engine.generate(prompts, params, use_tqdm=False)
        seconds = perf_counter() - began
        return seconds, [len(answer.outputs[0].token_ids) for answer in answers]

    return f"vllm {vllm.__version__}", run


def by_ids(params: dict[str, Any]) -> dict[str, Any]:
    """``params`` with numbers for token ids, which are texts where they are keys of JSON."""
    bias = params.get("logit_bias", {})
    return {**params, "logit_bias": {int(token): value for token, value in bias.items()} or None}


if __name__ == "__main__":
    wire.main(load)
