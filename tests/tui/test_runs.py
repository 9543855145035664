"""A source that begins anew: another picture, and what was seen before stays to be read."""

from typing import Any

import pytest
from minisgl_tui.engine.debugger import Mode
from minisgl_tui.engine.engine import Engine
from minisgl_tui.engine.events import StepRecord
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.state import EngineState
from minisgl_tui.tui.runs import KEEP
from minisgl_tui.tui.sources.base import Link, ModeChanged, Origin, Ready, Sink

from .pilot import MEDIUM, NARROW, Driver, running
from .toy import QUESTIONS, ROOMY, WordCodec, make_session

URL = "http://127.0.0.1:30000"


class Told:
    """A source that says what the test has it say, of an engine of the test's own."""

    def __init__(self) -> None:
        self.sink: Sink | None = None
        self.engine: Engine
        self.codec: WordCodec
        self.state: EngineState
        self.anew()

    def anew(self) -> None:
        """Another engine, after two of its steps."""
        told, self.sink = self.sink, None  # nobody hears of these steps
        session = make_session(ROOMY)
        assert isinstance(session.codec, WordCodec)
        self.engine, self.codec = session.engine, session.codec
        self.state = EngineState(ROOMY)
        self.engine.log.listen(self._follow)
        params = SamplingParams(temperature=0, max_tokens=12)
        for question in QUESTIONS[:2]:
            self.engine.submit(self.codec.encode_chat(question), params)
        self.engine.step()
        self.engine.step()
        self.sink = told

    def _follow(self, record: StepRecord) -> None:
        self.state.apply(record)
        if self.sink:
            self.sink.put(record)

    def say(self, message: Ready | Link | ModeChanged) -> None:
        assert self.sink
        self.sink.put(message)

    def begin(self, origin: Origin) -> None:
        state = EngineState.restore(self.state.snapshot())
        info = make_session().info
        self.say(Ready(ROOMY, info, self.codec, state=state, origin=origin))
        self.say(ModeChanged(Mode.PLAYING, None, False))

    def start(self, sink: Sink) -> None:
        self.sink = sink
        self.begin(Origin("steps 1–2 were not seen"))
        self.say(Link(URL))

    def why_not(self, verb: str) -> str:
        return "this viewer only watches"

    def __getattr__(self, name: str) -> object:
        if name in ("close", "pause"):
            return lambda: None
        if name == "wait":
            return lambda seconds: True
        raise AttributeError(name)


async def joined(on: Driver, told: Told) -> None:
    await on.until(lambda: on.store.link is not None)
    told.engine.step()
    await on.until(lambda: on.store.state.step == 3)


@pytest.mark.parametrize("size", [NARROW, MEDIUM])
async def test_a_run_that_is_joined_under_way_begins_where_it_is_and_says_so(
    size: tuple[int, int],
) -> None:
    told: Any = Told()
    async with running(size, told) as on:
        await joined(on, told)
        assert on.lines()[0].startswith(" LIVE 127.0.0.1:30000 · toy-135m")
        assert "▶ playing at full speed" in on.lines()[0]
        assert "steps 1–2 were not seen" in on.text()
        assert on.store.state.digest() == told.state.digest()
        assert on.store.past.start == (2, -1)
        await on.press("S", "S")
        assert "this is the start" in on.toasts() or on.store.position == (2, -1)
        assert on.store.state.step == 2 and len(on.store.state.running) == 2
        await on.press("L")
        assert on.store.state.step == 3


async def test_tokens_from_before_the_start_have_no_step() -> None:
    told: Any = Told()
    while len(told.state.requests[0].output) < 2:
        told.engine.step()
    async with running(NARROW, told) as on:
        await on.until(lambda: on.store.link is not None)
        told.engine.step()
        await on.until(lambda: on.store.state.step == told.state.step)
        sampled = on.store.sampled
        outputs = len(told.state.requests[0].output)
        assert [sampled.step_of(0, i) for i in range(outputs)] == [
            *[None] * (outputs - 1),
            told.state.step,
        ]


async def test_an_earlier_run_can_be_read_beside_the_one_that_goes_on() -> None:
    told: Any = Told()
    async with running(NARROW, told) as on:
        await joined(on, told)
        await on.press("4")
        first = on.store
        seen = first.state.digest()
        told.anew()
        told.begin(Origin("steps 1–2 were not seen", "the server was restarted"))
        await on.until(lambda: on.store is not first and on.main.store is on.store)
        assert on.main.active == 4
        assert any("the server was restarted" in toast for toast in on.toasts())
        told.engine.step()
        await on.until(lambda: on.store.state.step == 3)
        await on.press("left_curly_bracket")
        await on.until(lambda: on.main.store is first)
        assert "■ the run ended" in on.lines()[0] and "LIVE" not in on.lines()[0]
        assert "this run is over: the server was restarted" in on.text()
        told.engine.step()
        await on.until(lambda: on.store.state.step == 4)
        assert first.state.digest() == seen
        await on.press("S")
        assert first.position.step == 2 and "■ the run ended" in on.lines()[0]
        await on.press("s", "s", "s")
        assert "this run is over: the server was restarted; } shows the next" in on.toasts()
        await on.press("left_curly_bracket")
        assert "this is the first run that is kept" in on.toasts()
        await on.press("right_curly_bracket")
        await on.until(lambda: on.main.store is on.store)
        assert "LIVE 127.0.0.1:30000" in on.lines()[0]
        assert on.store.state.digest() == told.state.digest()


async def test_who_looks_into_the_past_or_types_is_not_carried_off_to_the_new_run() -> None:
    told: Any = Told()
    async with running(NARROW, told) as on:
        await joined(on, told)
        first = on.store
        await on.press("colon", *"goto")
        told.anew()
        told.begin(Origin(ended="the server was restarted"))
        await on.until(lambda: on.store is not first)
        assert on.main.store is first and "goto" in on.text()
        await on.press("escape")
        await on.until(lambda: on.main.store is on.store)
        second = on.store
        told.engine.step()
        await on.until(lambda: second.state.step == 3)
        await on.press("S")
        told.begin(Origin(ended="the viewer fell behind"))
        await on.until(lambda: on.store is not second)
        assert on.main.store is second and second.position.step == 2
        await on.press("right_curly_bracket")
        await on.until(lambda: on.main.store is on.store)


async def test_only_the_last_runs_are_kept() -> None:
    told: Any = Told()
    async with running(NARROW, told) as on:
        await joined(on, told)
        first = on.store
        for _ in range(KEEP):
            last = on.store
            told.begin(Origin(ended="the server was restarted"))
            await on.until(lambda last=last: on.main.store not in (last, first))
        for _ in range(KEEP + 1):
            await on.press("left_curly_bracket")
        assert on.main.store is not first
        assert "this is the first run that is kept" in on.toasts()


async def test_a_link_in_trouble_is_told_on_the_screen() -> None:
    told: Any = Told()
    async with running(NARROW, told) as on:
        await joined(on, told)
        told.say(Link(URL, silent=5))
        await on.until(lambda: "◌ no heartbeat for 5 s" in on.lines()[0])
        told.say(Link(URL, lost="connection refused", attempt=2, next_in=4))
        await on.until(lambda: "◌ no connection, attempt 2" in on.lines()[0])
        assert "attempt 3 in 4 s; what was seen can be read · connection refused" in on.text()
        told.say(Link(URL, holder="anna@host", lease=23))
        await on.until(lambda: "held by anna@host, 23 s · step 3: " in on.text())
        assert "▶ playing" in on.lines()[0]
        await on.press("s")
        assert "this viewer only watches" in on.toasts()
