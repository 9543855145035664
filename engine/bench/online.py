"""Workloads sent to a server over HTTP: how many at a time, when, and what came back.

The requests of a workload file go out at once, whatever their ``at_step``: from outside there are
no steps. What a prefix cache holds of earlier runs is avoided, not emptied: see `fresh`.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from time import perf_counter

import msgspec

from .measures import Report, Run, RunFailed, report
from .server import Answer, RequestFailed, Server
from .workloads import BenchRequest, BenchWorkload

Progress = Callable[[str, float | None], None]


class ServerResults(msgspec.Struct):
    """What a run against a server found; ``errors`` in each report count failed requests."""

    url: str
    model: str
    date: str
    concurrency: int
    request_rate: float | None
    workloads: list[Report]
    notes: list[str] = []


async def run_workload(
    server: Server,
    workload: BenchWorkload,
    *,
    concurrency: int,
    request_rate: float | None,
    answered: Callable[[int], None] = lambda count: None,
) -> Run:
    """Send ``workload`` once, at most ``concurrency`` requests at a time.

    With a ``request_rate`` they are sent at random moments, that many a second on average (a
    Poisson process, the same each time); else as soon as there is room. Times to first token count
    from sending. ``answered`` is told how many requests have ended.
    """
    rng = random.Random(0)
    room = asyncio.Semaphore(concurrency)
    answers: list[Answer] = []
    errors: Counter[str] = Counter()
    ended = 0

    async def one(request: BenchRequest, wait: float) -> None:
        nonlocal ended
        await asyncio.sleep(wait)
        async with room:
            try:
                answer = await server.ask(request)
            except RequestFailed as error:
                errors[str(error)] += 1
            else:
                answers.append(answer)
                if request.params.ignore_eos and answer.counted != request.params.max_tokens:
                    errors["another number of tokens than asked for"] += 1
        ended += 1
        answered(ended)

    due = 0.0
    began = perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for request in workload.requests:
            tasks.create_task(one(request, due))
            due += rng.expovariate(request_rate) if request_rate else 0.0
    seconds = perf_counter() - began
    if not answers:
        (name, _), *_ = errors.most_common(1)
        raise RunFailed(f"workload {workload.name}: every request failed: {name}")
    known = [answer.cached_tokens for answer in answers if answer.cached_tokens is not None]
    return Run(
        seconds=seconds,
        prompt_tokens=sum(answer.prompt_tokens or 0 for answer in answers),
        output_tokens=sum(answer.counted for answer in answers),
        cached_tokens=sum(known) if known else None,
        ttft=[answer.chunks[0][0] - answer.sent for answer in answers],
        itl=[gap for answer in answers for gap in answer.itl()],
        errors=dict(errors),
    )


def fresh(workload: BenchWorkload, nonce: int) -> BenchWorkload:
    """``workload`` with every prompt's first token changed by ``nonce``.

    A server's prefix cache cannot be emptied from outside. This way it holds nothing of an earlier
    run, and requests that share a prefix still do.
    """
    largest = max(max(request.prompt) for request in workload.requests) + 1
    requests = [
        msgspec.structs.replace(
            request, prompt=[(request.prompt[0] + nonce) % largest, *request.prompt[1:]]
        )
        for request in workload.requests
    ]
    return msgspec.structs.replace(workload, requests=requests)


async def run_server(
    server: Server,
    model: str | None,
    workloads: Sequence[BenchWorkload],
    *,
    repeats: int,
    concurrency: int,
    request_rate: float | None,
    progress: Progress = lambda stage, fraction: None,
) -> ServerResults:
    """Measure ``workloads`` on ``server``, ``repeats`` times each; `UserError` where it cannot be
    used, `RunFailed` where it answers nothing."""
    progress(f"asking {server.url}", None)
    await server.open(model, workloads[0].requests[0].prompt)
    nonces = random.SystemRandom()
    total = repeats * sum(len(workload.requests) for workload in workloads)
    before, reports = 0, list[Report]()
    for workload in workloads:
        runs: list[Run] = []
        for repeat in range(1, repeats + 1):
            stage = f"{workload.name}, repeat {repeat} of {repeats}"
            progress(stage, before / total)

            def show(ended: int, stage: str = stage, before: int = before) -> None:
                progress(stage, (before + ended) / total)

            run = await run_workload(
                server,
                fresh(workload, nonces.randrange(1 << 30)),
                concurrency=concurrency,
                request_rate=request_rate,
                answered=show,
            )
            runs.append(run)
            before += len(workload.requests)
        reports.append(report(workload.name, len(workload.requests), runs))
    return ServerResults(
        url=server.url,
        model=server.model,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        concurrency=concurrency,
        request_rate=request_rate,
        workloads=reports,
    )
