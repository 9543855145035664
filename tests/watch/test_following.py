"""`Following` on a scripted server: it resumes, begins anew, counts what it does not know, and
never passes over a gap."""

import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec
from minisgl_tui.engine.config import EngineConfig
from minisgl_tui.engine.engine import Engine
from minisgl_tui.engine.events import StepRecord
from minisgl_tui.engine.feed import Joining
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.simulate import SimulatedRunner
from minisgl_tui.engine.state import EngineState
from minisgl_tui.engine.trace import Model, Vocab, new_header
from minisgl_tui.tui.sources.base import Origin
from minisgl_tui.tui.sources.following import Following, Joined, Lost, News
from minisgl_tui.tui.sources.server import Unreachable

CONFIG = EngineConfig(block_size=4, num_blocks=64, max_batch_tokens=32, max_model_len=256)


class Event:
    """As `httpx2.ServerSentEvent` is to be read."""

    def __init__(self, event: str, data: str) -> None:
        self.event, self.data = event, data


class Run:
    """A run of an engine, with the state after each record."""

    def __init__(self, tokens: int = 8) -> None:
        runner = SimulatedRunner(CONFIG.num_blocks, CONFIG.block_size, lambda row: row.end)
        engine = Engine(CONFIG, runner, runner.clock)
        self.header = new_header(CONFIG, Model("toy"), 0.0, None)
        self.records: list[StepRecord] = []
        self.joinings = [self._joining(EngineState(CONFIG), -1)]
        state = EngineState(CONFIG)

        def hear(record: StepRecord) -> None:
            state.apply(record)
            self.records.append(record)
            self.joinings.append(self._joining(state, record.seq))

        engine.log.listen(hear)
        engine.submit(list(range(10)), SamplingParams(max_tokens=tokens))
        while engine.has_work():
            engine.step()

    def _joining(self, state: EngineState, seq: int) -> Joining:
        return Joining(
            epoch=self.header.epoch,
            seq=seq,
            step=state.step,
            paused=False,
            header=self.header,
            vocab=Vocab([], []),
            state=state.snapshot(),
        )

    def step(self, number: int) -> Event:
        return Event("step", msgspec.json.encode(self.records[number]).decode())

    def reset(self, number: int) -> Event:
        return Event("reset", msgspec.json.encode(self.joinings[number + 1]).decode())

    def digest(self, number: int) -> str:
        return EngineState.restore(self.joinings[number + 1].state).digest()


class Script:
    """A server that answers each question for events with the next of ``streams``: an error there
    is where the connection breaks."""

    url = "http://script"

    def __init__(self, states: Iterable[Joining], streams: Iterable[list[Any]]) -> None:
        self._states, self._streams = iter(states), iter(streams)
        self.asked: list[tuple[int, str]] = []

    async def state(self) -> Joining:
        return next(self._states)

    def read_state(self, body: str) -> Joining:
        return msgspec.json.decode(body, type=Joining)

    async def events(self, seq: int, epoch: str) -> AsyncIterator[Event]:
        self.asked.append((seq, epoch))
        for one in next(self._streams):
            if isinstance(one, Exception):
                raise one
            yield one


class Over(Exception):
    """The script is at its end."""


async def follow(script: Any) -> tuple[list[News], list[float], Following]:
    """All news until the script ends, and how long was waited."""
    waits: list[float] = []

    async def pause(seconds: float) -> None:
        waits.append(seconds)

    following, heard = Following(script, pause), []
    try:
        async for news in following.news():
            heard.append(news)
    except (Over, RuntimeError):  # a generator's StopIteration
        pass
    return heard, waits, following


def kinds(heard: list[News]) -> str:
    return " ".join(
        f"step{one.seq}" if isinstance(one, StepRecord) else type(one).__name__.lower()
        for one in heard
    )


async def test_a_lost_connection_is_resumed_after_the_last_record() -> None:
    run = Run()
    script = Script(
        [run.joinings[0]],
        [
            [run.step(0), run.step(1), Unreachable("cut")],
            [Unreachable("refused")],
            [Unreachable("refused")],
            [run.step(1), run.step(2), run.step(3)],
            [Over()],
        ],
    )
    heard, waits, following = await follow(script)
    assert kinds(heard) == "joined step0 step1 lost lost lost step2 step3 lost"
    epoch = run.header.epoch
    assert script.asked == [(-1, epoch), (1, epoch), (1, epoch), (1, epoch), (3, epoch)]
    assert [news.attempt for news in heard if isinstance(news, Lost)] == [1, 2, 3, 1]
    assert waits == [0.5, 1.0, 2.0, 0.5]
    assert following.state.digest() == run.digest(3)


async def test_the_wait_between_attempts_has_an_end() -> None:
    run = Run()
    script = Script([run.joinings[0]], [[Unreachable("refused")]] * 8 + [[Over()]])
    _, waits, _ = await follow(script)
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]


async def test_a_reset_in_the_same_run_states_the_gap() -> None:
    run = Run()
    script = Script([run.joinings[0]], [[run.step(0), run.reset(5), run.step(6), Over()]])
    heard, _, following = await follow(script)
    assert kinds(heard) == "joined step0 joined step6"
    assert heard[2] == Joined(Origin("steps 1–5 were not seen", "this viewer fell behind"))
    assert following.state.digest() == run.digest(6)


async def test_a_reset_in_another_run_is_a_restart() -> None:
    run, other = Run(), Run(12)
    script = Script(
        [run.joinings[3]], [[run.step(2), Unreachable("cut")], [other.reset(4), Over()]]
    )
    heard, _, following = await follow(script)
    assert heard[0] == Joined(Origin("steps 1–2 were not seen"))
    assert heard[-1] == Joined(Origin("steps 1–4 were not seen", "the server was restarted"))
    assert following.state.digest() == other.digest(4)


async def test_a_record_that_is_missing_is_never_passed_over() -> None:
    run = Run()
    script = Script(
        [run.joinings[0], run.joinings[7]], [[run.step(0), run.step(3)], [run.step(7), Over()]]
    )
    heard, _, following = await follow(script)
    assert kinds(heard) == "joined step0 lost joined step7"
    assert isinstance(heard[2], Lost) and heard[2].reason == "the records from 1 to 2 did not come"
    assert heard[3] == Joined(Origin("steps 1–6 were not seen", heard[2].reason))
    assert following.state.digest() == run.digest(7)


async def test_what_a_newer_server_tells_is_counted_and_passed_over() -> None:
    run = Run()
    record = json.loads(msgspec.json.encode(run.records[1]))
    record["events"].append({"k": "teleported", "req": 0})
    record["flavour"] = "new"
    script = Script(
        [run.joinings[0]],
        [[run.step(0), Event("weather", "{}"), Event("step", json.dumps(record)), Over()]],
    )
    heard, _, following = await follow(script)
    assert kinds(heard) == "joined step0 step1"
    assert following.unknown == {"teleported": 1, "weather": 1}
    assert following.state.digest() == run.digest(1)


async def test_records_that_contradict_the_state_lead_to_a_new_one() -> None:
    run = Run()
    record = json.loads(msgspec.json.encode(run.records[1]))
    record["events"] = [
        {"k": "teleported", "req": 0},
        {"k": "finished", "req": 9, "reason": "stop"},
    ]
    script = Script(
        [run.joinings[0], run.joinings[4]],
        [[run.step(0), Event("step", json.dumps(record))], [run.step(4), Over()]],
    )
    heard, _, following = await follow(script)
    assert kinds(heard) == "joined step0 lost joined step4"
    assert isinstance(heard[2], Lost)
    assert heard[2].reason == (
        "step 1 contradicts what came before; it told of 'teleported', which this program does not "
        "know"
    )
    assert following.state.digest() == run.digest(4)


async def test_what_is_no_message_at_all_is_a_reason_to_connect_anew() -> None:
    run = Run()
    script = Script(
        [run.joinings[0]], [[Event("step", '{"seq": [}')], [run.step(0), run.step(1), Over()]]
    )
    heard, _, following = await follow(script)
    assert kinds(heard) == "joined lost step0 step1"
    assert following.state.digest() == run.digest(1)
