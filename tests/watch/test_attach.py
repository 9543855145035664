"""`attach` on real servers: what happens to them and to the wire ends in a right view, or a gap
that is stated."""

from collections.abc import Iterator

import pytest
from minisgl_tui.api import feed as feed_module
from minisgl_tui.engine.debugger import Mode
from minisgl_tui.engine.tokenizer import Tokenizer
from minisgl_tui.tui.sources import following as following_module
from minisgl_tui.tui.sources import http as http_module
from minisgl_tui.tui.sources.http import HttpSource
from tui.pilot import NARROW, Driver, running

from .served import Watched, Wire, serve, served


@pytest.fixture
def server(tokenizer: Tokenizer) -> Iterator[Watched]:
    with served(tokenizer) as one:
        yield one


@pytest.fixture
def wire(server: Watched) -> Iterator[Wire]:
    one = Wire(server.port)
    yield one
    one.close()


async def attached(on: Driver) -> None:
    await on.until(lambda: on.store.link is not None and on.store.mode is Mode.PLAYING)


async def caught_up(on: Driver, server: Watched) -> None:
    """The engine rests, and the screens have come to where it is."""
    assert server.serving.feed
    await on.until(lambda: not server.serving.thread.engine.has_work())
    await on.until(lambda: on.store.now.step == server.serving.thread.engine.step_count)
    await on.until(lambda: on.store.now.digest() == server.digest())


async def test_what_a_server_does_is_on_the_screens(server: Watched) -> None:
    async with running(NARROW, HttpSource(server.url)) as on:
        await attached(on)
        assert "the server has no requests" in on.text()
        answer = server.ask(8).json()
        await caught_up(on, server)
        assert on.lines()[0].startswith(f" LIVE {server.url[7:]} · simu")  # cut if drawing is slow
        assert "▶ playing at full speed" in on.lines()[0]
        assert answer["choices"][0]["text"] in on.store.texts.answer(on.store.now.requests[0])
        await on.press("space")
        assert any("this viewer only watches" in toast for toast in on.toasts())
        await on.press("S")
        assert on.store.state.step == on.store.last_step - 1


async def test_who_joins_late_sees_the_state_and_where_it_begins(server: Watched) -> None:
    server.ask(20)
    steps = server.serving.thread.engine.step_count
    async with running(NARROW, HttpSource(server.url)) as on:
        await attached(on)
        assert on.store.now.digest() == server.digest()
        assert on.store.texts.prompt(on.store.now.requests[0]) == "Hello, this is a prompt"
        server.ask(8)
        await caught_up(on, server)
        assert f"steps 1–{steps} were not seen" in on.text()


async def test_a_connection_that_is_cut_in_a_message_goes_on_without_a_gap(
    server: Watched, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following_module, "FIRST_WAIT", 3.0)  # so that it is seen to be lost
    async with running(NARROW, HttpSource(wire.url)) as on:
        await attached(on)
        first, asking = on.store, server.ask_on(400)
        await on.until(lambda: on.store.now.step > 20)
        wire.cut(after=777)
        await on.until(lambda: "◌ no connection, attempt 1" in on.lines()[0])
        assert "what was seen can be read · the connection to" in on.text()
        await on.until(lambda: on.store.link is not None and not on.store.link.lost)
        asking.join(30)
        await caught_up(on, server)
        assert on.store is first
        assert len(on.store.past) == 401  # the submission, and a step for each token


async def test_a_restarted_server_is_another_run_beside_the_first(tokenizer: Tokenizer) -> None:
    before = serve(tokenizer)
    try:
        async with running(NARROW, HttpSource(before.url)) as on:
            await attached(on)
            before.ask(8)
            await caught_up(on, before)
            first, seen = on.store, on.store.now.digest()
            before.stop()
            await on.until(lambda: first.link is not None and bool(first.link.lost))
            assert "no connection" in on.lines()[0]
            with served(tokenizer, before.port) as after:
                await on.until(lambda: on.main.store is not first, 30)
                assert any("the server was restarted" in toast for toast in on.toasts())
                after.ask(5)
                await caught_up(on, after)
                await on.press("left_curly_bracket")
                await on.until(lambda: on.main.store is first)
                assert "■ the run ended" in on.lines()[0]
                assert "this run is over: the server was restarted" in on.text()
                assert first.state.digest() == seen
                await on.press("S", "x")
                assert first.position.step == first.last_step - 1
    finally:
        before.stop()


async def test_a_viewer_that_falls_behind_begins_anew_and_says_what_it_missed(
    server: Watched, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "MOST_RECORDS", 30)
    monkeypatch.setattr(http_module, "SILENT", 1.0)
    async with running(NARROW, HttpSource(wire.url)) as on:
        await attached(on)
        server.ask(4)
        await caught_up(on, server)
        first = on.store
        wire.flows.clear()
        server.ask(100)
        await on.until(lambda: first.link is not None and first.link.silent > 0)
        assert "◌ no heartbeat for" in on.lines()[0]
        wire.cut()
        wire.flows.set()
        await on.until(lambda: on.main.store is not first)
        await caught_up(on, server)
        missed = f"steps {first.now.step + 1}–{on.store.past.start.step} were not seen"
        assert missed in on.text()
        assert first.over == "this viewer fell behind"
        assert server.serving.feed and server.serving.feed.dropped > 50


async def test_one_viewer_holds_the_server_and_the_other_sees_who(server: Watched) -> None:
    async with running(NARROW, HttpSource(server.url, holder="bert@there")) as other:
        await attached(other)
        server.ask_on(3000)
        async with running(NARROW, HttpSource(server.url, holder="anna@here")) as one:
            await attached(one)
            await one.until(lambda: one.store.now.step > 5)
            await one.press("space")
            await one.until(lambda: one.store.mode is Mode.PAUSED)
            await one.until(lambda: "you hold the server, " in one.text())
            await other.until(lambda: "held by anna@here, " in other.text())
            assert "⏸ paused" in other.lines()[0]
            await other.press("s")
            assert any("the server is held by anna@here, " in toast for toast in other.toasts())
            await one.step(2)
            assert server.serving.thread.engine.step_count == one.store.now.step
            goal = one.store.now.step + 50
            await one.press("colon", *f"until step >= {goal}", "enter")
            await one.until(lambda: one.store.now.step == goal and f"◉ {goal}:0" in one.text())
            await one.press("q")
        await other.until(lambda: other.store.mode is Mode.PLAYING)
        await other.press("space")
        await other.until(lambda: "you hold the server, " in other.text())
        await other.press("space")
        await other.until(lambda: other.store.mode is Mode.PLAYING)
        assert server.serving.controls and server.serving.controls.lease() is None


async def test_a_server_plays_on_when_the_viewer_who_stopped_it_is_gone(server: Watched) -> None:
    async with running(NARROW, HttpSource(server.url)) as on:
        await attached(on)
        asking = server.ask_on(900)
        await on.until(lambda: on.store.now.step > 5)
        server.control("break", "ghost", condition="step == 890", lease_seconds=2.0)
        assert server.control("pause", "ghost", lease_seconds=2.0).status_code == 200
        await on.until(lambda: "held by ghost" in on.text() and "⏸ paused" in on.lines()[0])
        await on.until(lambda: on.store.mode is Mode.PLAYING)
        asking.join(30)
        assert not asking.is_alive()
        await caught_up(on, server)
        assert "held by" not in on.text() and not on.store.stops.breakpoints
