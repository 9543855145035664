"""What the peer scripts share: one JSON object a line, workload names in, results out.

    started as    python SCRIPT job.json
    says          {"ready": "vllm 0.32.0"}              once the model is loaded and warm
    reads         {"workload": "mixed"}                 until its input ends
    says          {"seconds": 1.5, "outputs": [32, …]}  tokens that each request got
    or            {"error": "…", "missing": "vllm"}     and ends; ``missing`` if not installed

``job.json`` holds ``model``, ``dtype``, ``threads``, ``max_model_len``, ``skip_tokenizer``,
``warm_up``, a request ``{"prompt": [ids], "params": {...}}``, and ``workloads``: by name, a list of
such requests. Parameters at their default are left out, but for ``max_tokens`` and ``temperature``.
What the engine prints by itself goes to stderr.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

Requests = list[dict[str, Any]]
Run = Callable[[Requests], tuple[float, list[int]]]
Load = Callable[[dict[str, Any]], tuple[str, Run]]
"""Loads the model that the job names; returns the engine's name and version, and what runs it."""


def main(load: Load) -> None:
    # Engines print to stdout, their child processes too: keep the pipe for ourselves.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=out, flush=True)

    try:
        with open(sys.argv[1], encoding="utf-8") as file:
            job = json.load(file)
        name, run = load(job)
        for count in (1, 4):
            run([job["warm_up"]] * count)
        say({"ready": name})
        for line in sys.stdin:
            seconds, outputs = run(job["workloads"][json.loads(line)["workload"]])
            say({"seconds": seconds, "outputs": outputs})
    except ModuleNotFoundError as error:
        say({"error": str(error), "missing": error.name})
    except Exception as error:
        traceback.print_exc()
        say({"error": " ".join(f"{type(error).__name__}: {error}".split())})
