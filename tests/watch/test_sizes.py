"""Screens on a server, at every size: watched, not answering, gone, and started anew."""

from minisgl_tui.engine.tokenizer import Tokenizer
from minisgl_tui.tui.sources.http import HttpSource
from tui.pilot import SIZES, Driver, running

from .served import serve, served
from .test_attach import attached, caught_up


async def at_every_size(on: Driver, *essential: str) -> None:
    """Each of ``essential`` is shown however large the terminal is."""
    for size in SIZES:
        await on.pilot.resize_terminal(*size)
        await on.until(lambda size=size: len(on.lines()) == size[1] and on.main.shape != "")
        await on.pilot.pause()
        on.shows("[1 Batch]", *essential)


async def test_attached_disconnected_and_restarted(tokenizer: Tokenizer) -> None:
    before = serve(tokenizer)
    where = f" LIVE {before.url[7:]}"
    try:
        async with running(SIZES[0], HttpSource(before.url)) as on:
            await attached(on)
            await at_every_size(on, where, "▶ playing", "the server has no requests")
            before.ask(8)
            await caught_up(on, before)
            first, steps = on.store, on.store.last_step
            before.stop()
            await on.until(lambda: first.link is not None and bool(first.link.lost))
            await at_every_size(on, where, "◌ no connection", "what was seen can be read", "#0")
            await on.press("S")
            await at_every_size(on, f"◂ {steps - 1}:", f" of {steps}  ◌ no connection")
            await on.press("L")
            with served(tokenizer, before.port) as after:
                await on.until(lambda: on.main.store is not first, 30)
                on.app.clear_notifications()
                await at_every_size(on, where, "▶ playing", "the server has no requests")
                after.ask(5)
                await caught_up(on, after)
                await on.press("left_curly_bracket")
                await on.until(lambda: on.main.store is first and on.main.is_current)
                await at_every_size(
                    on, "■ the run ended", "this run is over: the server was restarted", "#0"
                )
    finally:
        before.stop()
