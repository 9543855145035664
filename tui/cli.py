"""The command line: one program, one parser, and a short function a subcommand.

Imports nothing slow: torch, transformers and textual come in only when a command needs them, so
that ``--help`` answers at once. Errors a person can act on end as one line on stderr, exit code 2.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import demos
from ..engine import model_store
from ..engine.config import EngineConfig
from ..engine.errors import UserError
from ..engine.policies import (
    ADMISSION_POLICIES,
    EVICTION_POLICIES,
    PREEMPTION_POLICIES,
    SCHEDULE_POLICIES,
    make_policies,
)
from ..engine.sampling import SamplingParams
from ..engine.workload import Workload, WorkloadRequest, load_workload
from .screens.layout import SMALLEST

DEFAULT_MODEL = "smollm2-135m"
USAGE_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser, commands = _parser()
    if not words or (words[0] not in commands and words[0] not in ("-h", "--help", "--version")):
        words.insert(0, "run")  # `minisgl-tui` alone opens the debugger
    args = parser.parse_args(words)
    try:
        return args.command(args)
    except UserError as error:
        print(f"minisgl-tui: {error}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        print("minisgl-tui: interrupted", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    """Reports a bad flag in one line, like every other error."""

    def error(self, message: str) -> Any:
        self.exit(USAGE_ERROR, f"minisgl-tui: {message}; see `{self.prog} --help`\n")


def _parser() -> tuple[argparse.ArgumentParser, dict[str, Any]]:
    parser = _Parser(
        prog="minisgl-tui",
        description="An LLM inference engine you can stop, step and question in a terminal. "
        "Without a command: run.",
    )
    parser.add_argument("--version", action="version", version=version("minisgl-tui"))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    run = commands.add_parser("run", help="step a model in the terminal")
    _add_run_flags(run)
    _add_engine_flags(run)
    run.set_defaults(command=_run)
    models = commands.add_parser("models", help="list models on this machine, or fetch one")
    models.set_defaults(command=_list_models)
    actions = models.add_subparsers(title="actions", metavar="ACTION")
    listing = actions.add_parser("list", help="what is here, and where")
    listing.set_defaults(command=_list_models)
    pull = actions.add_parser("pull", help="fetch a model, so that it starts without a network")
    pull.add_argument("name", help="alias, Hub id, local directory or .gguf file")
    pull.set_defaults(command=_pull_model)
    bench = commands.add_parser("bench", help="measure the scheduler and the cache")
    bench.set_defaults(command=_bench_core)
    bench.add_argument(
        "--core", action="store_true", required=True, help="the core alone, with a model of no cost"
    )
    bench.add_argument("--running", type=int, default=1000, metavar="N", help="requests decoding")
    bench.add_argument("--nodes", type=int, default=10_000, metavar="N", help="nodes in the tree")
    bench.add_argument(
        "--blocks", type=int, default=100_000, metavar="N", help="blocks in the pool"
    )
    bench.add_argument("--json", action="store_true", help="print JSON")
    _add_policy_flags(
        bench.add_argument_group(
            "policies", "given any, show what they do to a load of shared prefixes instead"
        )
    )
    return parser, commands.choices


def _add_run_flags(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what to run")
    what.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help="alias, local directory, .gguf file or Hub id (default: %(default)s)",
    )
    load = what.add_mutually_exclusive_group()
    load.add_argument(
        "--prompt", action="append", metavar="TEXT", help="a chat message; may be given again"
    )
    load.add_argument(
        "--workload", type=Path, metavar="FILE", help="requests from a TOML or JSON file"
    )
    load.add_argument(
        "--demo",
        metavar="NAME",
        help=f"a built-in workload: {', '.join(demos.names())} (default: {demos.DEFAULT})",
    )
    what.add_argument("--system", metavar="TEXT", help="system prompt, in place of the workload's")
    what.add_argument(
        "--max-tokens",
        type=int,
        default=64,
        metavar="N",
        help="longest answer to --prompt and typed prompts (default: %(default)s)",
    )
    what.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="for --prompt and typed prompts; 0 is greedy (default: %(default)s)",
    )


def _add_engine_flags(parser: argparse.ArgumentParser) -> None:
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
    _add_policy_flags(flags)
    flags.add_argument(
        "--attention", metavar="NAME", help="auto, reference or sdpa (default: auto)"
    )
    flags.add_argument(
        "--model-impl", metavar="NAME", help="auto, native or transformers (default: auto)"
    )
    flags.add_argument("--seed", type=int, metavar="N", help="of sampling (default: 0)")


def _add_policy_flags(flags: Any) -> None:
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
    "seed",
)


def _engine_settings(args: argparse.Namespace, workload: Workload) -> dict[str, Any]:
    """Flags over the workload's wishes; what neither gives is the engine's own default."""
    given = {name: getattr(args, name) for name in ENGINE_FLAGS if getattr(args, name) is not None}
    wished = workload.engine.given()
    if "kv_memory" in given:
        wished.pop("num_blocks", None)
    return {**wished, **given}


def _check_settings(settings: dict[str, Any]) -> None:
    """Refuse at once what the engine would refuse after the model is loaded."""
    known = set(EngineConfig.__struct_fields__)
    make_policies(EngineConfig(**{k: v for k, v in settings.items() if k in known}))


def _workload(args: argparse.Namespace) -> Workload:
    """What to run, with ``--system`` in place of the workload's own."""
    workload = _chosen_workload(args)
    if args.system is not None:
        workload.system = args.system
    return workload


def _chosen_workload(args: argparse.Namespace) -> Workload:
    if args.workload:
        return load_workload(args.workload)
    if args.prompt:
        requests = [
            WorkloadRequest(user=text, max_tokens=args.max_tokens, temperature=args.temperature)
            for text in args.prompt
        ]
        return Workload(requests=requests)
    return demos.load(args.demo or demos.DEFAULT)


def _run(args: argparse.Namespace) -> int:
    params = SamplingParams(temperature=args.temperature, max_tokens=args.max_tokens)
    workload = _workload(args)
    settings = _engine_settings(args, workload)
    _check_settings(settings)
    model_store.check(args.model)
    _check_terminal()

    from .app import DebuggerApp
    from .session import model_session
    from .sources.local import LocalSource

    source = LocalSource(model_session(args.model, workload, settings), params)
    app = DebuggerApp(source)
    app.run()
    if app.fatal:
        print(f"minisgl-tui: {app.fatal}", file=sys.stderr)
    return app.return_code or 0


def _bench_core(args: argparse.Namespace) -> int:
    if min(args.running, args.nodes, args.blocks) < 1:
        raise UserError("--running, --nodes and --blocks must be at least 1")
    policies = {name: value for name in POLICY_FLAGS if (value := getattr(args, name))}
    if policies:
        return _bench_policies(policies, args.json)
    from ..engine.bench.core import measure

    progress = _print_progress()
    results = measure(
        args.running, args.nodes, args.blocks, progress=lambda stage: progress(stage, None)
    )
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    if args.json:
        print(json.dumps(results))
    else:
        for name, value in results.items():
            print(f"{name:28} {value:12,.3f}".rstrip("0").rstrip("."))
    return 0


def _bench_policies(policies: dict[str, str], as_json: bool) -> int:
    from ..engine.bench.policies import policy_effect

    defaults, chosen = policy_effect(), policy_effect(**policies)
    if as_json:
        print(json.dumps({"defaults": defaults, "chosen": chosen, "policies": policies}))
        return 0
    print(f"{'':24} {'defaults':>14} {' '.join(policies.values()):>14}")
    for name, value in defaults.items():
        print(f"{name:24} {value:14,.3f} {chosen[name]:14,.3f}")
    return 0


def _check_terminal() -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError("run draws on a terminal, and this is none; start it in one")
    width, height = shutil.get_terminal_size()
    least_width, least_height = SMALLEST
    if width < least_width or height < least_height:
        raise UserError(
            f"the terminal is {width}×{height}; minisgl-tui needs {least_width}×{least_height}: "
            "enlarge it"
        )


def _list_models(args: argparse.Namespace) -> int:
    models = model_store.list_models()
    for model in models:
        print(f"{model.name:24} {model.size / 1e6:8.0f} MB  {model.path}")
    if not models:
        print(f"no models here yet; fetch the default one: minisgl-tui models pull {DEFAULT_MODEL}")
    return 0


def _pull_model(args: argparse.Namespace) -> int:
    path = model_store.pull(args.name, _print_progress())
    print(f"\r\x1b[K{args.name}: {path}" if sys.stderr.isatty() else f"{args.name}: {path}")
    return 0


def _print_progress() -> Callable[[str, float | None], None]:
    """One line on stderr: rewritten on a terminal, one a stage elsewhere."""
    last = ""

    def show(stage: str, fraction: float | None) -> None:
        nonlocal last
        if sys.stderr.isatty():
            percent = "" if fraction is None else f" {fraction:4.0%}"
            print(f"\r\x1b[K{stage}{percent}", end="", file=sys.stderr, flush=True)
        elif stage != last:
            print(stage, file=sys.stderr, flush=True)
        last = stage

    return show


if __name__ == "__main__":
    sys.exit(main())
