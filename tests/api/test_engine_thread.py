"""The hand-over between the event loop and the engine, on the oracle instead of a model."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from helpers import Bench
from minisgl_tui.api.engine_thread import EngineThread, Generation, Prompt
from minisgl_tui.api.errors import ApiError
from minisgl_tui.engine.audit import audit
from minisgl_tui.engine.errors import RequestRefused
from minisgl_tui.engine.plan import Row
from minisgl_tui.engine.sampling import SamplingParams

from .waiting import until

FOREVER = 200  # tokens, as many as the pool holds


@asynccontextmanager
async def serving(bench: Bench, max_queued: int = 100) -> AsyncIterator[EngineThread]:
    thread = EngineThread(bench.engine, max_queued)
    thread.start()
    try:
        yield thread
    finally:
        thread.stop()
    assert audit(bench.engine) == []


def prompt(first: int = 1, max_tokens: int = 5) -> Prompt:
    return Prompt([first, 2, 3, 4, 5], SamplingParams(max_tokens=max_tokens))


async def outcome(question: asyncio.Task[int]) -> int | str:
    try:
        return await question
    except ApiError as error:
        return str(error)


async def tokens(generation: Generation) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    async for batch in generation.updates():
        for update in batch:
            found.setdefault(update.choice, []).extend(update.tokens)
    return found


async def test_every_choice_of_every_prompt_gets_its_own_tokens():
    bench = Bench()
    async with serving(bench) as thread:
        found = await tokens(thread.generate([prompt(1), prompt(9)], n=2))
        # The oracle goes on with 1000 + 100 × request + position.
        assert found == {
            choice: [1000 + 100 * choice + position for position in range(5, 10)]
            for choice in range(4)
        }
        await until(lambda: thread.live == 0)


async def test_clients_are_batched_together():
    bench = Bench()
    async with serving(bench) as thread:
        await asyncio.gather(*(tokens(thread.generate([prompt(i)])) for i in range(20)))
    assert bench.engine.step_count < 20 * 5


async def test_a_client_that_never_reads_keeps_nobody_waiting():
    bench = Bench()
    async with serving(bench) as thread:
        silent = thread.generate([prompt(7, max_tokens=60)])
        await tokens(thread.generate([prompt(1, max_tokens=60)]))
        await until(lambda: not bench.engine.requests)
        assert len((await tokens(silent))[0]) == 60


async def test_the_event_loop_goes_on_while_a_step_takes_long():
    slow = asyncio.Event()
    loop = asyncio.get_running_loop()

    def next_token(row: Row) -> int:
        waiting = asyncio.run_coroutine_threadsafe(slow.wait(), loop)
        return 1 + waiting.result(5)

    async with serving(Bench(next_token)) as thread:
        generation = thread.generate([prompt(max_tokens=1)])
        await asyncio.sleep(0.05)  # while the engine stands in its step
        slow.set()
        assert await tokens(generation) == {0: [2]}


async def test_what_is_closed_has_freed_its_blocks_before_the_next_step():
    bench = Bench()
    async with serving(bench) as thread:
        generation = thread.generate([prompt(1, FOREVER), prompt(2, FOREVER)], n=2)
        await anext(generation.updates())
        generation.close()
        live, steps = await thread.ask(
            lambda: (len(bench.engine.requests), bench.engine.step_count)
        )
        assert live == 0
        assert await thread.ask(lambda: bench.engine.step_count) == steps
        await until(lambda: thread.live == 0)
    assert bench.engine.cache.free + bench.engine.cache.evictable == bench.config.num_blocks


async def test_what_is_closed_before_it_began_never_runs():
    bench = Bench()
    async with serving(bench) as thread:
        thread.debugger.pause()
        generation = thread.generate([prompt(1, FOREVER)])
        generation.close()
        thread.debugger.play()
        await until(lambda: thread.live == 0)
    assert bench.engine.step_count <= 1


async def test_one_choice_that_is_complete_leaves_the_others_running():
    async with serving(Bench()) as thread:
        generation = thread.generate([prompt(1, 30), prompt(2, 30)])
        found: list[int] = []
        async for batch in generation.updates():
            generation.stop(0)
            found += [token for update in batch if update.choice for token in update.tokens]
        assert len(found) == 30


async def test_a_prompt_that_can_never_run_is_refused_at_once():
    async with serving(Bench(max_model_len=16)) as thread:
        with pytest.raises(RequestRefused, match="the prompt has 16 tokens"):
            thread.generate([prompt(), Prompt([1] * 16, SamplingParams())])
        assert thread.live == 0


async def test_no_more_are_let_in_than_may_run_and_wait():
    async with serving(Bench(max_running_requests=2), max_queued=3) as thread:
        thread.debugger.pause()
        held = [thread.generate([prompt(i)]) for i in range(5)]
        with pytest.raises(ApiError) as raised:
            thread.generate([prompt(9)])
        assert raised.value.status == 429 and raised.value.headers["Retry-After"]
        held[0].close()
        await until(lambda: thread.live == 4)
        late = thread.generate([prompt(9)])
        thread.debugger.play()
        for generation in (*held[1:], late):
            assert len((await tokens(generation))[0]) == 5


async def test_what_could_never_be_let_in_is_a_bad_request_not_a_full_queue():
    async with serving(Bench(max_running_requests=2), max_queued=3) as thread:
        with pytest.raises(ApiError, match="6 answers are asked for at once") as raised:
            thread.generate([prompt()], n=6)
        assert raised.value.status == 400


async def test_a_step_that_fails_is_an_error_for_its_requests_and_for_nobody_else(
    caplog: pytest.LogCaptureFixture,
):
    def next_token(row: Row) -> int:
        if row.request.tokens[0] == 13:
            raise RuntimeError("no such kernel")
        return 1

    async with serving(Bench(next_token)) as thread:
        assert len((await tokens(thread.generate([prompt(1)])))[0]) == 5
        with pytest.raises(ApiError, match="the engine failed while it ran this request") as e:
            await tokens(thread.generate([prompt(13)]))
        assert e.value.status == 500
        assert "the step failed: RuntimeError: no such kernel" in caplog.text
        assert len((await tokens(thread.generate([prompt(2)])))[0]) == 5


async def test_draining_lets_them_finish_and_takes_nobody_in():
    async with serving(Bench()) as thread:
        generation = thread.generate([prompt(1, 40)])
        draining = asyncio.create_task(thread.drain(5))
        await asyncio.sleep(0)
        with pytest.raises(ApiError, match="shutting down") as raised:
            thread.generate([prompt(2)])
        assert raised.value.status == 503
        assert len((await tokens(generation))[0]) == 40
        await draining


async def test_who_is_not_done_when_draining_ends_gets_an_error():
    async with serving(Bench()) as thread:
        thread.debugger.pause()
        generation = thread.generate([prompt(1)])
        await thread.drain(0.05)
        with pytest.raises(ApiError, match="shutting down") as raised:
            await tokens(generation)
        assert raised.value.status == 503
        generation.close()
        await until(lambda: thread.live == 0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_an_engine_that_stops_altogether_is_an_error_for_all():
    bench = Bench()
    async with serving(bench) as thread:
        thread.debugger.pause()
        generation = thread.generate([prompt(1)])

        def fail() -> None:
            raise SystemExit("out of memory")

        thread.debugger.call(fail)
        question = asyncio.create_task(thread.ask(lambda: 1))
        with pytest.raises(ApiError, match="the engine has stopped"):
            await tokens(generation)
        with pytest.raises(ApiError, match="the engine has stopped"):
            thread.generate([prompt(2)])
        assert await outcome(question) == "the engine has stopped"
        assert thread.error == "SystemExit: out of memory"
