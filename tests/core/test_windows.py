"""The last seconds of a run, at any position of it: against a count of the events from scratch."""

import random
from bisect import bisect_left, insort
from collections import defaultdict
from math import ceil, floor, isnan

import pytest
from helpers import Bench
from minisgl_tui.engine import events as ev
from minisgl_tui.engine import samples as samples_module
from minisgl_tui.engine import slowest as slowest_module
from minisgl_tui.engine import windows as windows_module
from minisgl_tui.engine.events import StepRecord
from minisgl_tui.engine.history import History
from minisgl_tui.engine.ordered import Ordered
from minisgl_tui.engine.samples import Within
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.slowest import ORDERS, Slow
from minisgl_tui.engine.state import EngineState
from minisgl_tui.engine.windows import SLICE, TIMES, Window, Windows

# --- numbers in order ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_quantiles_are_exact_whatever_came_and_went(seed: int) -> None:
    rng = random.Random(seed)
    kinds = [rng.random() for _ in range(rng.choice((3, 100, 5000)))]
    wanted: list[float] = sorted(rng.choices(kinds, k=2000))
    found = Ordered((value, 1) for value in wanted)
    for _ in range(4000):
        if wanted and rng.random() < 0.55:
            value = rng.choice(wanted)
            del wanted[bisect_left(wanted, value)]
            found.remove(value)
        else:
            value, times = rng.choice(kinds), rng.randint(1, 3)
            found.add(value, times)
            for _ in range(times):
                insort(wanted, value)
        if rng.random() < 0.05 and wanted:
            for q in (0, 0.5, 0.95, 0.99, 1):
                assert found.quantile(q) == wanted[max(1, ceil(q * len(wanted))) - 1]
    assert found.count == len(wanted)
    for value in wanted:
        found.remove(value)
    assert found.count == 0 and isnan(found.quantile(0.5))


# --- windows over a run --------------------------------------------------------------------------


class Watched(Bench):
    """A random load on a pool that is too small, with pauses, and its windows."""

    def __init__(self, seed: int) -> None:
        super().__init__(block_size=2, num_blocks=14, max_batch_tokens=9)
        self.windows = Windows(self.state)
        self.past = History.live(self.state)
        self.engine.log.listen(lambda record: self.past.append(record, self.state))
        self.engine.log.listen(lambda record: self.windows.apply(record, self.state))
        self._rng = random.Random(seed)
        self.runner.clock.advance(self._rng.choice((0.0, 1234.567)))

    def run(self, steps: int = 150) -> None:
        rng, clock = self._rng, self.runner.clock
        for _ in range(steps):
            if rng.random() < 0.5:
                prompt = [rng.randrange(2) for _ in range(rng.randrange(1, 14))]
                self.engine.submit(prompt, SamplingParams(max_tokens=rng.randrange(1, 12)))
            if rng.random() < 0.05 and self.engine.requests:
                self.engine.abort(rng.choice(list(self.engine.requests)))
            clock.advance(rng.choice((0.0, 0.003, 0.05, 0.4)) if rng.random() < 0.9 else 3.0)
            self.engine.step()


class Counted:
    """What happened from ``start`` on, up to the event ``upto`` of the last of ``records``, found
    out from the events without any help."""

    def __init__(self, records: list[StepRecord], upto: int, start: float) -> None:
        self.totals: dict[str, int] = defaultdict(int)
        self.times: dict[str, list[float]] = defaultdict(list)
        self.requests: dict[int, dict[str, float]] = {}
        self.ended: set[int] = set()
        self._lens: dict[int, int] = {}
        for record in records:
            events = record.events if record is not records[-1] else record.events[:upto]
            self._now, self._began = record.t + record.seconds, record.t
            self._counts = floor(self._now / SLICE) >= floor(start / SLICE + 1e-9)
            for event in events:
                self._take(event)
            if record.timings and len(events) == len(record.events):
                self._measure("step_time", record.seconds)

    def _count(self, name: str, count: int = 1) -> None:
        if self._counts:
            self.totals[name] += count

    def _measure(self, name: str, seconds: float) -> None:
        if self._counts:
            self.times[name].append(seconds)

    def _take(self, event: ev.AnyEvent) -> None:
        if isinstance(event, ev.Submitted):
            self._count("submitted")
            self.requests[event.req] = {"at": self._began}
            self._lens[event.req] = len(event.prompt)
        elif isinstance(event, ev.Admitted) and not event.recompute:
            request = self.requests[event.req]
            request["queue"] = self._began - request["at"]
            self._measure("queue", request["queue"])
            self._count("prompt", self._lens[event.req])
            self._count("hit", event.cached_tokens)
        elif isinstance(event, ev.Scheduled):
            self._count("prefill", event.count)
        elif isinstance(event, ev.Preempted):
            self._count("preempted")
        elif isinstance(event, ev.Evicted):
            self._count("evicted", len(event.blocks))
        elif isinstance(event, ev.Sampled):
            self._count("sampled", len(event.reqs))
            for req in event.reqs:
                self._sample(self.requests[req])
        elif isinstance(event, ev.Finished):
            request = self.requests[event.req]
            request["total"] = self._now - request["at"]
            self._count("ended")
            self._count("aborted", event.reason == "abort")
            if self._counts:
                self.ended.add(event.req)
            if event.reason in ("stop", "length"):
                self._measure("e2e", request["total"])

    def _sample(self, request: dict[str, float]) -> None:
        if "last" in request:
            gap = self._now - request["last"]
            self._measure("itl", gap)
            request["gap"] = max(gap, request.get("gap", gap))
        else:
            request["ttft"] = self._now - request["at"]
            self._measure("ttft", request["ttft"])
        request["last"] = self._now

    def slow(self, req: int) -> Slow:
        """As they are at the end."""
        request, live = self.requests[req], "total" not in self.requests[req]
        waited = self._now - request["at"]
        so_far = waited if live else -1.0
        gap = request.get("gap", -1.0)
        if live and "last" in request:
            gap = max(gap, self._now - request["last"])
        return Slow(
            req,
            live,
            request.get("ttft", so_far),
            gap,
            request.get("queue", so_far),
            request.get("total", waited),
        )


@pytest.mark.parametrize("seed", range(4))
def test_a_window_that_ends_anywhere_holds_what_happened_in_it(seed: int) -> None:
    run = Watched(seed)
    run.run()
    rng = random.Random(seed)
    spots = [(rng.randrange(len(run.records)), rng.random()) for _ in range(60)]
    for number, part in [(0, 1.0), *spots, (len(run.records) - 1, 1.0)]:
        record = run.records[number]
        upto = max(1, round(part * len(record.events)))
        state = run.past.state_at(record.position(upto - 1))
        for seconds in (0.5, 3.0, 10.0, None):
            window = run.windows.window(state.stats, seconds)
            assert window is not None
            if seconds and window.start > run.windows.began:
                assert seconds <= window.seconds < seconds + SLICE + 1e-6
            counted = Counted(run.records[: number + 1], upto, window.start)
            _compare(run.windows, window, state, counted)


def _compare(windows: Windows, window: Window, state: EngineState, counted: Counted) -> None:
    stats = state.stats
    for name in ("submitted", "ended", "aborted", "prompt", "hit", "prefill", "sampled"):
        assert windows.counted(window, stats, name) == counted.totals[name], name
    for name in ("preempted", "evicted"):
        assert windows.counted(window, stats, name) == counted.totals[name], name
    for name in TIMES:
        wanted, times = sorted(counted.times[name]), windows.times(window, stats, name)
        assert times is not None and times.samples == len(wanted)
        if not wanted:
            assert isnan(times.p50) and isnan(times.mean)
            continue
        assert times.mean == pytest.approx(sum(wanted) / len(wanted))
        assert times.most == wanted[-1]
        for q, found in ((0.5, times.p50), (0.95, times.p95), (0.99, times.p99)):
            exact = wanted[max(1, ceil(q * len(wanted))) - 1]
            assert found == pytest.approx(exact, rel=0.27 if window.whole else 0, abs=1e-4)
    there = [counted.slow(req) for req in counted.ended]
    there += [counted.slow(req) for req in (*state.running, *state.waiting)]
    for by in ORDERS:
        wanted = sorted((getattr(s, by) for s in there if getattr(s, by) >= 0), reverse=True)[:5]
        slowest = windows.slowest(window, stats, by, 5)
        assert [getattr(slow, by) for slow in slowest] == pytest.approx(wanted)
        assert all(slow == pytest.approx(counted.slow(slow.req)) for slow in slowest)
    assert all(windows.times_of(slow.req, stats) == pytest.approx(slow) for slow in there)


def test_the_course_of_a_window_adds_up_to_it() -> None:
    run = Watched(1)
    run.run()
    windows, state = run.windows, run.state
    for seconds in (2.0, 10.0, None):
        window = windows.window(state.stats, seconds)
        assert window is not None
        for cells in (8, 30, 1000):
            course = windows.course(window, state, cells)
            assert course is not None
            sampled = course.counted("sampled")
            assert 1 < len(sampled) <= cells
            assert sum(sampled) == windows.counted(window, state.stats, "sampled")
            assert course.gauge("held")[-1] == 14 - state.free - state.evictable
            means = [mean for mean in course.mean("itl") if mean >= 0]
            times = windows.times(window, state.stats, "itl")
            assert times is not None and max(means) <= times.most
            assert len(course.mean("itl")) == len(course.gauge("running")) == len(sampled)


def test_the_past_of_a_course_stays_as_it_is_while_the_window_moves_on() -> None:
    run = Watched(2)
    courses: list[list[float]] = []
    for steps in (80, 20):
        run.run(steps)
        window = run.windows.window(run.state.stats, 300.0)
        course = window and run.windows.course(window, run.state, 1000)
        assert course
        courses.append(course.counted("sampled"))
    before, after = courses
    assert len(before) > 20 and after[: len(before) - 1] == before[:-1]


def test_windows_that_begin_in_the_middle_know_nothing_from_before() -> None:
    run = Watched(3)
    run.run(60)
    late = Windows(run.state)
    cut, then = len(run.records), run.state.stats.copy()
    assert late.window(then, 10.0) is None
    run.engine.log.listen(lambda record: late.apply(record, run.state))
    run.run(60)
    stats = run.state.stats
    window, whole = late.window(stats, 1e6), late.window(stats, None)
    assert window is not None and whole is not None
    assert window.start == run.records[cut].t and late.window(then, 10.0) is None
    assert late.counted(window, stats, "sampled") == stats.sampled_tokens - then.sampled_tokens
    assert late.counted(whole, stats, "sampled") == stats.sampled_tokens
    assert late.times_of(0, stats) is None and run.windows.times_of(0, stats) is not None
    assert run.windows.times_of(max(run.state.requests), run.past.state_after(1).stats) is None
    times = late.times(window, stats, "itl")
    assert times is not None and times.samples == stats.itl.count - then.itl.count


def test_what_is_too_old_is_forgotten_and_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows_module, "KEEP", 40)
    monkeypatch.setattr(samples_module, "KEEP", 40)
    monkeypatch.setattr(slowest_module, "KEEP", 16)
    monkeypatch.setattr(slowest_module, "_BLOCK", 4)
    run = Watched(1)
    run.run(400)
    windows, stats = run.windows, run.state.stats
    assert len(windows._slices) <= 45 and len(windows._ended._reqs) < 18
    assert all(len(samples.seconds) <= 45 for samples in windows._samples.values())
    old = run.past.state_at(run.records[50].position(0))
    assert windows.window(old.stats, 10.0) is None
    whole = windows.window(old.stats, None)
    assert whole is not None and windows.course(whole, old, 30) is None
    assert windows.counted(whole, old.stats, "sampled") == old.stats.sampled_tokens
    window = windows.window(stats, 1e6)
    assert window is not None and window.start == windows.began > run.records[50].t
    assert windows.times(window, stats, "itl") is None
    last = windows.window(stats, 1.0)
    assert last is not None
    counted = Counted(run.records, 10**6, last.start)
    _compare(windows, last, run.state, counted)


def test_a_window_that_jumps_far_equals_one_that_moved_there() -> None:
    run = Watched(0)
    run.run()
    numbers = [*range(len(run.records)), *reversed(range(len(run.records)))]
    random.Random(5).shuffle(numbers)
    for number in [*range(len(run.records)), *numbers[:100]]:
        stats = run.past.state_after(number + 1).stats
        fresh = Windows(EngineState(run.config))
        window = run.windows.window(stats, 3.0)
        assert window is not None
        fresh._samples = run.windows._samples
        fresh._counts, fresh._sums = run.windows._counts, run.windows._sums
        fresh._within = {n: Within(s) for n, s in fresh._samples.items()}
        for name in TIMES:
            assert str(fresh.times(window, stats, name)) == str(
                run.windows.times(window, stats, name)
            )
