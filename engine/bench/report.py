"""Results as text: tables under 100 columns. No torch, no colours."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .measures import Latency, Report
from .online import ServerResults

if TYPE_CHECKING:
    from .compare import OfflineResults

Row = Sequence[str]

DISTURBING = 0.1  # cores
_LABELS = {"detokenize": "text"}  # columns that would be too wide by their full name


def show_offline(results: "OfflineResults") -> str:
    """Rates and latencies, where the time went, the roof, and the peers."""
    machine = results.machine
    limits = machine.limits
    repeats = len(results.workloads[0].repeats)
    head = [
        f"{_short(results.model)} in {machine.dtype} on {machine.device}",
        f"{machine.cpu}, {machine.threads} threads, torch {machine.torch}",
        f"reads {limits.read_bandwidth / 1e9:.1f} GB/s, multiplies {limits.peak / 1e9:,.0f} "
        f"GFLOP/s; {_runs(repeats)}; the prefix cache is empty before each",
    ]
    tables = [_rates(results.workloads), _phases(results.workloads)]
    if results.peers:
        tables.append(_peers(results))
    busy = [
        f"other programs took {one.others:.1f} cores during {one.workload}: it was slower for that"
        for one in results.workloads
        if one.others is not None and one.others > DISTURBING
    ]
    return _paragraphs("\n".join(head), *tables, "\n".join([*results.notes, *busy]))


def show_server(results: ServerResults) -> str:
    """Rates and latencies as seen from outside, and the errors by name."""
    repeats = len(results.workloads[0].repeats)
    rate = f", {results.request_rate:g} requests/s" if results.request_rate else ""
    head = (
        f"{_short(results.model)} at {_short(results.url)}\n"
        f"at most {results.concurrency} requests at a time{rate}; {_runs(repeats)}"
    )
    errors = [
        f"{report.workload}: {times} × {name}"
        for report in results.workloads
        for name, times in report.errors.items()
    ]
    return _paragraphs(head, _rates(results.workloads), "\n".join([*errors, *results.notes]))


def _paragraphs(*texts: str) -> str:
    return "\n\n".join(text for text in texts if text)


def _short(name: str, most: int = 48) -> str:
    """The end of a name that is too long, as that of a path says more than its beginning."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


def _runs(repeats: int) -> str:
    return "one run" if repeats == 1 else f"medians of {repeats} runs"


def _rates(reports: Sequence[Report]) -> str:
    rows: list[Row] = [
        ("", "output", "total", "", "TTFT ms", "ITL ms", "", ""),
        ("workload", "tok/s", "tok/s", "seconds", "p50 / p95", "p50 / p95 / p99", "hits", "steps"),
    ]
    for one in reports:
        rows.append(
            (
                _short(one.workload, 13),
                f"{one.output_tokens_per_s:,.1f}",
                f"{one.total_tokens_per_s:,.1f}",
                f"{one.seconds:.2f}",
                _times(one.ttft, 2),
                _times(one.itl, 3),
                "–" if one.hit_rate is None else f"{one.hit_rate:.0%}",
                "–" if one.steps is None else f"{one.steps:g}",
            )
        )
    return table(rows)


def _times(latency: Latency, count: int) -> str:
    values = (latency.p50, latency.p95, latency.p99)[:count]
    return " / ".join("–" if value is None else _milliseconds(value) for value in values)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.{0 if seconds >= 0.1 else 1}f}"


def _phases(reports: Sequence[Report]) -> str:
    overlap = any(one.phases.get("ahead") for one in reports)
    names = [name for name in reports[0].phases if name != "ahead" or overlap]
    rows: list[Row] = [
        ("% of the time", *([""] * len(names)), "roof %", "", ""),
        ("workload", *(_LABELS.get(name, name) for name in names), "memory", "compute", "either"),
    ]
    for one in reports:
        shares = [f"{100 * one.phases[name] / one.seconds:.1f}" for name in names]
        roof = one.roof
        fractions = (roof.memory, roof.compute, roof.fraction) if roof else (None, None, None)
        shown = ["–" if value is None else f"{100 * value:.0f}" for value in fractions]
        rows.append((_short(one.workload, 13), *shares, *shown))
    return table(rows)


def _peers(results: "OfflineResults") -> str:
    peers = [cell for peer in results.peers for cell in (peer.name, "ratio")]
    rows: list[Row] = [("seconds", "minisgl-tui", *peers)]
    for index, ours in enumerate(results.workloads):
        cells = [_short(ours.workload, 13), f"{ours.seconds:.2f}"]
        for peer in results.peers:
            theirs = peer.workloads[index]
            cells += [f"{theirs.seconds:.2f}", f"{peer.ratios[ours.workload]:.2f}"]
        rows.append(cells)
    return (
        table(rows) + "\n\nratio: how many times faster minisgl-tui is, in output tokens a second"
    )


def table(rows: Sequence[Row]) -> str:
    """Columns two spaces apart: the first to the left, the others to the right.

    >>> print(table([("a", "bb"), ("ccc", "d")]))
    a    bb
    ccc   d
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)
