"""``GET /metrics``: the engine's own statistics, for Prometheus, under names close to vLLM's.

Nothing is counted twice: `Statistics` counts from events, and this reads it between two steps.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from ..engine.state import EngineState
from ..engine.stats import Histogram
from .serving import Serving

PREFIX = "minisgl:"

HISTOGRAMS = {
    "time_to_first_token_seconds": ("ttft", "From submission to the first token"),
    "inter_token_latency_seconds": ("itl", "Between two tokens of a request"),
    "request_time_per_output_token_seconds": ("tpot", "Mean time per token after the first"),
    "e2e_request_latency_seconds": ("e2e", "From submission to the end"),
    "request_queue_time_seconds": ("queue", "From submission to admission"),
    "step_time_seconds": ("step_time", "Duration of a step"),
}


async def metrics(request: Request) -> Response:
    """The state of the engine in Prometheus' text format."""
    serving: Serving = request.app.state.serving
    thread = serving.thread
    families = await thread.ask(lambda: list(_families(thread.state, serving.model)))
    registry = CollectorRegistry()
    registry.register(_Families(families))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def _families(state: EngineState, model: str) -> Iterator[Metric]:
    """Every metric as it is now; to be called in the engine's thread."""
    stats = state.stats
    blocks = state.config.num_blocks
    used = (blocks - state.free - state.evictable) / blocks
    yield _gauge("num_requests_running", "Requests in the batch", model, len(state.running))
    yield _gauge("num_requests_waiting", "Requests in the queue", model, len(state.waiting))
    yield _gauge("kv_cache_usage_perc", "Used share of the KV blocks, 0 to 1", model, used)
    yield _gauge("kv_blocks_total", "KV blocks in the pool", model, blocks)
    yield _gauge("kv_blocks_free", "KV blocks on the free list", model, state.free)
    yield _gauge("kv_blocks_evictable", "Cached KV blocks nobody holds", model, state.evictable)
    for name, text, value in (
        ("prompt_tokens", "Prompt tokens of admitted requests", stats.prompt_tokens),
        ("generation_tokens", "Tokens generated", stats.sampled_tokens),
        ("prefix_cache_queries", "Prompt tokens looked up in the tree", stats.prompt_tokens),
        ("prefix_cache_hits", "Prompt tokens found in the tree", stats.cached_tokens),
        ("num_preemptions", "Requests sent back to the queue", stats.preemptions),
        ("engine_steps", "Steps taken", stats.steps),
        ("engine_steps_failed", "Steps that failed", stats.failed_steps),
    ):
        counter = CounterMetricFamily(PREFIX + name, text, labels=["model_name"])
        counter.add_metric([model], value)
        yield counter
    ended = CounterMetricFamily(
        PREFIX + "request_success",
        "Requests ended, by reason",
        labels=["model_name", "finished_reason"],
    )
    for reason in ("stop", "length", "abort", "error"):
        ended.add_metric([model, reason], stats.finished.get(reason, 0))
    yield ended
    for name, (field, text) in HISTOGRAMS.items():
        yield _histogram(name, text, model, getattr(stats, field))


def _gauge(name: str, text: str, model: str, value: float) -> Metric:
    gauge = GaugeMetricFamily(PREFIX + name, text, labels=["model_name"])
    gauge.add_metric([model], value)
    return gauge


def _histogram(name: str, text: str, model: str, histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(PREFIX + name, text, labels=["model_name"])
    buckets = [
        ("+Inf" if edge == float("inf") else f"{edge:g}", float(count))
        for edge, count in histogram.cumulative()
    ]
    family.add_metric([model], buckets, histogram.sum)
    return family
