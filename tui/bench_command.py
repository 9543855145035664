"""``minisgl-tui bench``: which of the benchmarks, its flags checked, its figures printed.

Measuring is done in `engine.bench`, for the server's own cost in `api.overhead` and for the
screens in `ticks.py` and `seeks.py`; they come in only when a benchmark starts.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine import model_store
from ..engine.errors import UserError
from ..engine.workload import WorkloadRequest
from .engine_flags import (
    DEFAULT_MODEL,
    ENGINE_FLAGS,
    POLICY_FLAGS,
    add_engine_flags,
    check_settings,
    given_flags,
)
from .progress import print_progress, progress_bar
from .serve_command import needs_extra

if TYPE_CHECKING:
    from ..engine.bench.workloads import BenchWorkload, Encode
    from ..engine.tokenizer import Tokenizer

RUN_FAILED = 1
_MAX_REPEATS, _MAX_CONCURRENCY, _MAX_THREADS, _MAX_STREAMS = 1000, 4096, 1024, 1024
_MAX_RUNNING, _MAX_STEPS = 1024, 1_000_000
_VOCABULARY, _CONTEXT = 49_152, 1 << 20  # of a server that says nothing about its model

CORE_FLAGS = {"running": 1 << 14, "nodes": 1_000_000, "blocks": 10_000_000}  # and their most
URL_FLAGS = ("api_key", "concurrency", "request_rate", "timeout", "tokenizer", "text")
OFFLINE_FLAGS = ("threads", "peer")
SERVER_FLAGS = ("streams", "step_ms")


def add_parser(commands: Any) -> None:
    bench = commands.add_parser(
        "bench",
        help="measure the engine, another one beside it, or a server",
        description="Measure a model on this machine; with --url a server; with --core the "
        "scheduler and the cache alone; with --overhead our server's own cost; with "
        "--watch what being watched costs it; with --tui the debugger's screens; with --seek what "
        "going through a recording costs.",
    )
    bench.set_defaults(command=run)
    bench.add_argument(
        "--model", metavar="M", help=f"as in `run` (default: {DEFAULT_MODEL}, or the server's)"
    )
    bench.add_argument(
        "--workload",
        action="append",
        metavar="NAME",
        help="single, wide_decode, mixed, shared_prefix, long_prefill, nano-vllm or a TOML or JSON "
        "file; may be given again (default: the first five)",
    )
    bench.add_argument(
        "--repeats", type=int, metavar="N", help="runs of each; figures are medians (default: 3)"
    )
    bench.add_argument("--json", action="store_true", help="print JSON")
    offline = bench.add_argument_group("a model on this machine")
    offline.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: cores)")
    offline.add_argument(
        "--peer",
        action="append",
        metavar="NAME[=PYTHON]",
        help="run transformers or vllm beside it, by the python that has it; may be given again",
    )
    _add_url_flags(bench.add_argument_group("a server that speaks the OpenAI protocol"))
    core = bench.add_argument_group(
        "the core alone, or the screens; policy flags show their effect on the core's load"
    )
    core.add_argument("--core", action="store_true", help="the core, with a model of no cost")
    core.add_argument("--tui", action="store_true", help="what every pane of the debugger costs")
    core.add_argument("--seek", action="store_true", help="positions of a long recording")
    core.add_argument(
        "--running", type=int, metavar="N", help="requests decoding (default: 1000; 64 for --seek)"
    )
    core.add_argument("--nodes", type=int, metavar="N", help="nodes in the tree (default: 10000)")
    core.add_argument("--blocks", type=int, metavar="N", help="in the pool (default: 100000)")
    core.add_argument("--steps", type=int, metavar="N", help="of --seek (default: 100000)")
    ours = bench.add_argument_group("our HTTP server beside the bare engine, or unwatched")
    ours.add_argument("--overhead", action="store_true", help="with a model of no cost")
    ours.add_argument("--watch", action="store_true", help="what viewers cost it, with --model")
    ours.add_argument(
        "--streams",
        type=int,
        action="append",
        metavar="N",
        help="at a time; may be given again for --overhead (default: 1, 8, 64 and 256; 64 for "
        "--watch)",
    )
    ours.add_argument(
        "--step-ms",
        type=float,
        metavar="T",
        help="time that a step takes (default: 5; for --watch: of the model)",
    )
    add_engine_flags(bench)


def _add_url_flags(flags: Any) -> None:
    flags.add_argument("--url", metavar="URL", help="such as http://127.0.0.1:30000")
    flags.add_argument("--api-key", metavar="KEY", help="sent as a bearer token")
    flags.add_argument(
        "--concurrency", type=int, metavar="N", help="most requests at a time (default: 256)"
    )
    flags.add_argument(
        "--request-rate", type=float, metavar="R", help="requests a second (default: all at once)"
    )
    flags.add_argument(
        "--timeout", type=float, metavar="S", help="seconds for one request (default: 600)"
    )
    flags.add_argument(
        "--tokenizer", metavar="M", help="model to encode and decode texts with, named as --model"
    )
    flags.add_argument(
        "--text",
        action="store_true",
        default=None,
        help="send prompts as text, to servers that take no token ids; needs --tokenizer",
    )


def run(args: argparse.Namespace) -> int:
    """Run the benchmark that the flags ask for; returns the exit code."""
    kinds = ("core", "overhead", "watch", "tui", "seek", "url")
    chosen = [f"--{name}" for name in kinds if getattr(args, name) not in (None, False)]
    if len(chosen) > 1:
        raise UserError(f"{' and '.join(chosen)} are benchmarks apart; give one of them")
    modelless = (*ENGINE_FLAGS, *URL_FLAGS, *OFFLINE_FLAGS, "model", "workload")
    if not (args.overhead or args.watch):
        _refuse(args, SERVER_FLAGS, "only for --overhead and --watch; add one of them")
    if args.core:
        unused = (name for name in (*modelless, "repeats") if name not in POLICY_FLAGS)
        _refuse(args, unused, "not for --core, which runs no model; leave it out")
        return _bench_core(args)
    if args.tui:
        _refuse(args, (*modelless, "repeats"), "not for --tui, which runs no model; leave it out")
        return _bench_tui(args)
    if args.seek:
        _refuse(args, (*modelless, "repeats"), "not for --seek, which runs no model; leave it out")
        _refuse(args, ("nodes", "blocks"), "not for --seek; leave it out")
        return _bench_seek(args)
    _refuse(args, ("steps",), "only for --seek; add that or leave it out")
    _refuse(args, CORE_FLAGS, "only for --core and --tui; add one of them or leave it out")
    repeats = _whole(args.repeats, 3, _MAX_REPEATS, "--repeats")

    from ..engine.bench.measures import RunFailed

    try:
        if args.overhead:
            _refuse(args, modelless, "not for --overhead, which runs no model; leave it out")
            return _bench_overhead(args, repeats)
        if args.watch:
            unused = (name for name in modelless if name != "model")
            _refuse(args, unused, "not for --watch; leave it out")
            return _bench_watch(args)
        if args.url is not None:
            _refuse(
                args,
                (*OFFLINE_FLAGS, *ENGINE_FLAGS),
                "not for --url, as the server has its own settings; leave it out",
            )
            return _bench_url(args, repeats)
        _refuse(args, URL_FLAGS, "only for --url; add that or leave it out")
        return _bench_offline(args, repeats)
    except RunFailed as error:
        print(f"minisgl-tui: {error}", file=sys.stderr)
        return RUN_FAILED


def _refuse(args: argparse.Namespace, names: Iterable[str], why: str) -> None:
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(args, name) is not None]
    if given:
        raise UserError(f"{', '.join(given)}: {why}")


def _whole(value: int | None, default: int, most: int, flag: str) -> int:
    if value is None:
        return default
    if not 1 <= value <= most:
        raise UserError(f"{flag} is {value}; it must be from 1 to {most}")
    return value


def _positive(value: float | None, flag: str, most: float) -> float | None:
    if value is not None and not 0 < value <= most:  # NaN is neither
        raise UserError(f"{flag} is {value:g}; it must be above 0 and at most {most:g}")
    return value


# --- a model on this machine ---------------------------------------------------------------------


def _bench_offline(args: argparse.Namespace, repeats: int) -> int:
    from ..engine.bench.peer import PeerChoice

    peers = [PeerChoice.parse(text) for text in args.peer or []]
    flags = given_flags(args)
    check_settings(flags)
    model = DEFAULT_MODEL if args.model is None else args.model
    model_store.check(model)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = _whole(args.threads, cores or 1, _MAX_THREADS, "--threads")
    with progress_bar() as progress:
        path = model_store.resolve(model, progress)
        progress("starting PyTorch", None)
        from ..engine.bench.compare import run_offline
        from ..engine.bench.report import show_offline
        from ..engine.bench.workloads import choose
        from ..engine.loader import open_checkpoint

        checkpoint = open_checkpoint(path, flags.get("model_impl", "auto"))
        longest = flags.get("max_model_len", checkpoint.max_context)
        workloads, notes = choose(
            args.workload or [], checkpoint.vocab_size, longest, _encoder(path)
        )
        for workload in workloads:
            check_settings(workload.settings(flags))
        results = run_offline(
            path,
            checkpoint,
            workloads,
            flags,
            repeats=repeats,
            threads=threads,
            peers=peers,
            progress=progress,
        )
    results.model, results.notes = model, [*notes, *results.notes]
    _print(results, show_offline(results), args.json)
    return 0


def _encoder(path: Path | None) -> "Encode":
    """Token ids of a workload file's request, by the tokenizer in ``path`` if one is needed."""
    tokenizer: Tokenizer | None = None

    def encode(request: WorkloadRequest) -> list[int]:
        nonlocal tokenizer
        if request.tokens is not None:
            return request.tokens
        if path is None:
            raise UserError("the workload has texts; say how to encode them with --tokenizer")
        if tokenizer is None:
            from ..engine.tokenizer import Tokenizer

            tokenizer = Tokenizer(path)
        from .session import ModelCodec

        return ModelCodec(tokenizer, None).encode(request)

    return encode


def _print(results: Any, table: str, as_json: bool) -> None:
    import msgspec

    print(msgspec.json.encode(results).decode() if as_json else table)


# --- a server ------------------------------------------------------------------------------------


def _bench_url(args: argparse.Namespace, repeats: int) -> int:
    import asyncio

    from ..engine.bench.online import ServerResults, run_server
    from ..engine.bench.report import show_server
    from ..engine.bench.server import Server
    from ..engine.bench.workloads import choose

    if args.text and not args.tokenizer:
        raise UserError("--text needs the model's tokenizer; name it with --tokenizer")
    concurrency = _whole(args.concurrency, 256, _MAX_CONCURRENCY, "--concurrency")
    request_rate = _positive(args.request_rate, "--request-rate", 1e6)
    timeout = _positive(args.timeout, "--timeout", 86_400) or 600.0
    with progress_bar() as progress:
        path = model_store.resolve(args.tokenizer, progress) if args.tokenizer else None
        vocabulary, to_text = _VOCABULARY, None
        if path is not None:
            from ..engine.tokenizer import Tokenizer

            tokenizer = Tokenizer(path)
            vocabulary = tokenizer.vocab_size
            to_text = tokenizer.decode if args.text else None
        workloads, notes = choose(args.workload or [], vocabulary, _CONTEXT, _encoder(path))

        async def measure(workloads: "list[BenchWorkload]") -> ServerResults:
            async with Server(
                args.url, api_key=args.api_key, timeout=timeout, to_text=to_text
            ) as server:
                return await run_server(
                    server,
                    args.model,
                    workloads,
                    repeats=repeats,
                    concurrency=concurrency,
                    request_rate=request_rate,
                    progress=progress,
                )

        results = asyncio.run(measure(workloads))
    results.notes = notes
    _print(results, show_server(results), args.json)
    return RUN_FAILED if any(report.errors for report in results.workloads) else 0


# --- our server beside the bare engine -----------------------------------------------------------


def _bench_overhead(args: argparse.Namespace, repeats: int) -> int:
    streams = [_whole(count, 1, _MAX_STREAMS, "--streams") for count in args.streams or ()]
    step_ms = _positive(args.step_ms, "--step-ms", 1000) or 5.0
    with needs_extra("--overhead"):
        from ..api.overhead import STREAMS, measure, show

    with progress_bar() as progress:
        results = measure(
            streams or STREAMS, step_seconds=step_ms / 1e3, repeats=repeats, progress=progress
        )
    _print(results, show(results), args.json)
    return 0


def _bench_watch(args: argparse.Namespace) -> int:
    with needs_extra("--watch"):
        from ..api.simulated import SimulatedServer
        from ..api.watch_cost import REPEATS, STREAMS, measure, show
    from .served import PROGRAM, ServerProcess

    if len(args.streams or ()) > 1:
        raise UserError("--streams may be given once for --watch")
    streams = _whole(args.streams[0] if args.streams else None, STREAMS, _MAX_STREAMS, "--streams")
    step_ms = _positive(args.step_ms, "--step-ms", 1000)
    if step_ms:
        _refuse(args, ("model",), "not with --step-ms, which runs no model; leave it out")
    model = DEFAULT_MODEL if args.model is None else args.model
    model_store.check(model)

    @contextmanager
    def serve(debug: bool) -> Iterator[str]:
        if step_ms:
            with SimulatedServer(step_ms / 1e3, debug=debug) as simulated:
                yield simulated.url
            return
        words = ["serve", "--model", model, "--port", "0", *(["--debug"] if debug else [])]
        with ServerProcess(words) as process:
            yield process.listening()

    with progress_bar() as progress:
        if not step_ms:
            model_store.resolve(model, progress)
        results = measure(
            serve,
            [*PROGRAM, "record"],
            streams=streams,
            repeats=_whole(args.repeats, REPEATS, _MAX_REPEATS, "--repeats"),
            progress=progress,
        )
    _print(results, show(results), args.json)
    return 0


# --- the screens ---------------------------------------------------------------------------------


def _bench_tui(args: argparse.Namespace) -> int:
    from .ticks import measure, show

    progress = print_progress()
    results = measure(**_sizes(args), progress=lambda stage: progress(stage, None))
    progress("", None)
    _print(results, show(results), args.json)
    return 0


def _bench_seek(args: argparse.Namespace) -> int:
    running = _whole(args.running, 64, _MAX_RUNNING, "--running")
    steps = _whole(args.steps, 100_000, _MAX_STEPS, "--steps")
    from .seeks import measure, show

    with progress_bar() as progress:
        results = measure(running, steps, progress=progress)
    _print(results, show(results), args.json)
    return 0


# --- the core alone ------------------------------------------------------------------------------


def _sizes(args: argparse.Namespace) -> dict[str, Any]:
    """How large a load is asked for."""
    return {
        name: _whole(value, 1, most, f"--{name}")
        for name, most in CORE_FLAGS.items()
        if (value := getattr(args, name)) is not None
    }


def _bench_core(args: argparse.Namespace) -> int:
    sizes = _sizes(args)
    policies = {name: value for name in POLICY_FLAGS if (value := getattr(args, name))}
    if policies:
        return _bench_policies(policies, args.json)
    from ..engine.bench.core import measure

    progress = print_progress()
    results = measure(**sizes, progress=lambda stage: progress(stage, None))
    progress("", None)
    if args.json:
        print(json.dumps(results))
    else:
        for name, value in results.items():
            print(f"{name:28} {value:12,.3f}".rstrip("0").rstrip("."))
    return 0


def _figure(name: str, value: float) -> str:
    if name.startswith(("queue_", "ttft_", "itl_", "e2e_")):
        return f"{value:,.3f} s"
    return f"{value:.1%}" if name.endswith("_rate") else f"{value:,.0f}"


def _bench_policies(policies: dict[str, str], as_json: bool) -> int:
    from ..engine.bench.policies import policy_effect

    defaults, chosen = policy_effect(), policy_effect(**policies)
    if as_json:
        print(json.dumps({"defaults": defaults, "chosen": chosen, "policies": policies}))
        return 0
    print(f"{'':24} {'defaults':>14} {' '.join(policies.values()):>14}")
    for name, value in defaults.items():
        cells = (_figure(name, one) for one in (value, chosen[name]))
        print(f"{name:24} {' '.join(f'{cell:>14}' for cell in cells)}")
    return 0
