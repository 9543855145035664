"""The flags of every subcommand that starts an engine, and what they come to as settings.

Imports nothing slow. None on the command line leaves a setting to the workload, or to the engine.
"""

import argparse
from pathlib import Path
from typing import Any

from ..engine.config import EngineConfig
from ..engine.policies import (
    ADMISSION_POLICIES,
    EVICTION_POLICIES,
    PREEMPTION_POLICIES,
    SCHEDULE_POLICIES,
    make_policies,
)
from ..engine.trace import RecordTo
from ..engine.workload import Workload

DEFAULT_MODEL = "smollm2-135m"
API_KEY_VARIABLE = "MINISGL_TUI_API_KEY"


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """The same on every subcommand that starts an engine; None leaves it to workload or default."""
    flags = parser.add_argument_group("engine", "a policy may be your own: module:Class")
    flags.add_argument("--dtype", help="auto, float32, bfloat16 or float16 (default: auto)")
    flags.add_argument("--device", help="auto, cpu, cuda or mps (default: auto)")
    flags.add_argument(
        "--block-size", type=int, metavar="N", help="tokens in a KV block (default: 16)"
    )
    size = flags.add_mutually_exclusive_group()
    size.add_argument("--num-blocks", type=int, metavar="N", help="KV blocks in the pool")
    size.add_argument("--kv-memory", metavar="SIZE", help="memory for the KV pool, such as 512MB")
    flags.add_argument(
        "--max-batch-tokens", type=int, metavar="N", help="token budget of a step (default: 512)"
    )
    flags.add_argument(
        "--max-running-requests", type=int, metavar="N", help="most at a time (default: 256)"
    )
    flags.add_argument("--max-model-len", type=int, metavar="N", help="longest prompt + output")
    add_policy_flags(flags)
    flags.add_argument(
        "--attention",
        metavar="NAME",
        help="auto, reference, grouped, sdpa or varlen (default: auto)",
    )
    flags.add_argument(
        "--model-impl", metavar="NAME", help="auto, native or transformers (default: auto)"
    )
    flags.add_argument(
        "--no-cuda-graphs",
        dest="cuda_graphs",
        action="store_false",
        default=None,
        help="launch every kernel of a decode step anew (CUDA only)",
    )
    flags.add_argument(
        "--overlap",
        action="store_true",
        default=None,
        help="begin with a decode step while the results of the last are handed on; for GPUs",
    )
    flags.add_argument(
        "--compile",
        dest="compile_kernels",
        action="store_true",
        default=None,
        help="faster kernels, compiled for this CPU once; for bfloat16, takes a C++ compiler",
    )
    flags.add_argument("--seed", type=int, metavar="N", help="of sampling (default: 0)")


def add_policy_flags(flags: Any) -> None:
    flags.add_argument(
        "--schedule-policy",
        metavar="NAME",
        help=f"order of waiting requests: {', '.join(SCHEDULE_POLICIES)}",
    )
    flags.add_argument(
        "--admission-policy",
        metavar="NAME",
        help=f"room kept for running requests: {', '.join(ADMISSION_POLICIES)}",
    )
    flags.add_argument(
        "--preemption-policy",
        metavar="NAME",
        help=f"who gives way when blocks run out: {', '.join(PREEMPTION_POLICIES)}",
    )
    flags.add_argument(
        "--eviction-policy",
        metavar="NAME",
        help=f"which cached prefix goes first: {', '.join(EVICTION_POLICIES)}",
    )


def add_record_flags(parser: argparse.ArgumentParser) -> None:
    """The same on every subcommand that can be recorded."""
    flags = parser.add_argument_group("recording")
    flags.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="write every event to this .mtrace file (.mtrace.gz: compressed), prompts and answers "
        "included; `minisgl-tui replay FILE` opens it",
    )
    flags.add_argument(
        "--overwrite", action="store_true", help="replace the file of --record if it exists"
    )
    parser.set_defaults(record_flag="--record")


def record_to(args: argparse.Namespace) -> RecordTo | None:
    """Where to record to, checked as far as it can be now."""
    if args.record is None:
        return None
    wanted = RecordTo(args.record, args.overwrite)
    wanted.check(args.record_flag)
    return wanted


POLICY_FLAGS = ("schedule_policy", "admission_policy", "preemption_policy", "eviction_policy")
ENGINE_FLAGS = (
    *POLICY_FLAGS,
    "dtype",
    "device",
    "block_size",
    "num_blocks",
    "kv_memory",
    "max_batch_tokens",
    "max_running_requests",
    "max_model_len",
    "attention",
    "model_impl",
    "cuda_graphs",
    "overlap",
    "compile_kernels",
    "seed",
)


def given_flags(args: argparse.Namespace) -> dict[str, Any]:
    """The engine flags on the command line, by the names of `LLM`."""
    return {name: getattr(args, name) for name in ENGINE_FLAGS if getattr(args, name) is not None}


def engine_settings(args: argparse.Namespace, workload: Workload) -> dict[str, Any]:
    """Flags over the workload's wishes; what neither gives is the engine's own default."""
    given = given_flags(args)
    wished = workload.engine.given()
    if "kv_memory" in given:
        wished.pop("num_blocks", None)
    return {**wished, **given}


def check_settings(settings: dict[str, Any]) -> None:
    """Refuse at once what the engine would refuse after the model is loaded."""
    known = set(EngineConfig.__struct_fields__)
    make_policies(EngineConfig(**{k: v for k, v in settings.items() if k in known}))
