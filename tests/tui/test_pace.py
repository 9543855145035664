"""While a drawing takes too long the screen is drawn less often, and says so."""

import time

import pytest
from minisgl_tui.tui.pace import LONG, SHORT, SLOW_TICK, TICK, Pace

from .pilot import running
from .toy import ROOMY, make_source


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def drawn(pace: Pace, seconds: float, times: int) -> None:
    for _ in range(times):
        pace.begin()
        pace.end(seconds)


def test_a_single_slow_drawing_changes_nothing_and_many_do() -> None:
    clock = Clock()
    pace = Pace(clock)
    drawn(pace, 1.5 * LONG, 1)
    assert not pace.slow
    drawn(pace, 1.5 * LONG, 10)
    assert pace.slow
    clock.now += 1.05 * TICK
    assert not pace.due()
    clock.now += SLOW_TICK - TICK
    assert pace.due()


def test_it_comes_back_when_drawing_is_quick_again_and_does_not_flicker() -> None:
    clock = Clock()
    pace = Pace(clock)
    drawn(pace, 1.5 * LONG, 10)
    drawn(pace, (LONG + SHORT) / 2, 20)
    assert pace.slow
    drawn(pace, SHORT / 2, 20)
    assert not pace.slow
    pace.begin()
    assert not pace.due()
    clock.now += TICK
    assert pace.due()


async def test_the_status_line_says_that_the_screen_is_drawn_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(source=make_source(ROOMY, tokens=20_000)) as on:
        await on.until(lambda: bool(on.store.state.waiting))
        sync = on.main.steps.sync

        def slow() -> None:
            until = time.thread_time() + 2 * LONG
            while time.thread_time() < until:
                pass
            sync()

        monkeypatch.setattr(on.main.steps, "sync", slow)
        await on.press("space")
        await on.until(lambda: "drawn at 5 Hz" in on.lines()[0], 20)
        assert on.app.pace.slow
        monkeypatch.setattr(on.main.steps, "sync", sync)
        await on.until(lambda: "drawn at" not in on.lines()[0], 20)
