"""Every mode of the screens at every size: whole, and with what it is there to say."""

from collections.abc import Sequence
from pathlib import Path

from minisgl_tui.engine.debugger import Mode
from minisgl_tui.tui.screens.fork import ForkingScreen
from minisgl_tui.tui.sources.recorded import RecordedSource

from .pilot import MEDIUM, NARROW, Driver, all_sizes, running
from .test_replay import record_toy

# The keys that open a box over the screen, and what has to stand in it.
BOXES: tuple[tuple[Sequence[str], Sequence[str]], ...] = (
    ("4x", ("why #0 was so at 14:", "decode")),
    ("4t", ("Tokens", "“A”", "#0 · ", "esc")),
    ("mSd", (" → 13:", "step 14 → 13 (−1)")),
    ("LB", ("Breakpoints", "req == 0", "stops", "esc · a add")),
    ("?", ("Help", "esc closes", "Requests")),
    (":why req 1\r", ("why #1 was so at 14:", "[5 Why]")),
    (("ctrl+o",), ("jump to:", "esc stays")),
    (("ctrl+p",), ("Search", "Batch (1)")),
    (":", ("tab completes", "step", "take one step, or N", " :")),
    ("/", ("Filter events", "which events?")),
    ("i", ("New prompt", "ask the model something", "enter sends it, esc cancels")),
)
SIGNS = {" ": "space", "\r": "enter", ":": "colon", "?": "question_mark", "/": "slash"}


def frame(on: Driver) -> tuple[str, ...]:
    """What stands around the panes at this size, whatever the mode."""
    wide = on.app.size[0] >= MEDIUM[0]
    active = f"[{on.main.active} {on.main.pane.view.name}]"
    return active, " used", " free", "q quit", *(("─ 2 Blocks ─", "─ 3 Tree ─") if wide else ())


@all_sizes
async def test_paused_playing_and_rewound(size: tuple[int, int]) -> None:
    async with running(size) as on:
        on.shows(*frame(on), "⏸ paused   step 0", "press s to take the first step", "○ waiting")
        await on.step(12)
        on.shows(*frame(on), "⏸ paused   step 12", "budget 20", "decode", "wait 1")
        on.main.rate = 0.5
        await on.press("space")
        await on.until(lambda: on.store.mode is Mode.PLAYING)
        on.shows(*frame(on), "▶ playing 0.5 steps/s", "space pause")
        await on.press("space")
        await on.until(lambda: on.store.mode is Mode.PAUSED)
        end = on.store.last_step
        await on.press("S", "S")
        back = f"◂ {end - 2}:"
        on.shows(
            *frame(on), back, f" of {end}  paused +2", f"this was so after {back[2:]}", "L live"
        )


@all_sizes
async def test_each_pane_in_a_narrow_terminal_or_beside_others(size: tuple[int, int]) -> None:
    async with running(size) as on:
        await on.step(12)
        for number, pane in on.main.panes.items():
            await on.press("colon", *f"pane {pane.view.name.lower()}", "enter")
            on.shows(*frame(on), "step 12")
            for_pane = {2: "block 0", 3: "prefix", 4: "prompt", 6: " 12:", 7: "┴", 8: "TTFT"}
            on.shows(for_pane.get(number, "12"))


async def test_the_rule_above_a_pane_that_is_seen_first_says_what_it_shows() -> None:
    async with running(NARROW) as on:
        await on.step(3)
        for line, says in (("why req 0", "#0 at 3:"), ("pane events", " events ─")):
            await on.press("colon", *line, "enter")
            await on.until(lambda says=says: says in on.lines()[4])


@all_sizes
async def test_boxes_over_the_screen(size: tuple[int, int]) -> None:
    async with running(size) as on:
        await on.step(14)
        await on.press("4", "down", "up", "b")
        await on.until(lambda: bool(on.store.stops.breakpoints))
        for keys, essential in BOXES:
            await on.press(*(SIGNS.get(key, key) for key in keys))
            await on.pilot.pause(0.05)
            on.app.clear_notifications()
            await on.pilot.pause()
            on.shows(*essential)
            await on.press("escape")


@all_sizes
async def test_a_recording_from_its_start_to_its_end_and_a_fork_of_it(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    total = record_toy(tmp_path / "run.mtrace").now.step
    async with running(size, RecordedSource(tmp_path / "run.mtrace")) as on:
        await on.until(lambda: len(on.store.state.waiting) == 4)
        on.shows(*frame(on), " REPLAY run.mtrace", f"⏸ paused   step 0 of {total}")
        await on.press("c")
        await on.until(lambda: on.store.played_out)
        on.shows(*frame(on), f"■ end of the recording   step {total} of {total}")
        on.shows("the recording ends here, all requests finished")
        await on.press("colon", *"goto 4", "enter", "F", *"num_blocks=200", "enter")
        await on.until(lambda: not isinstance(on.app.screen, ForkingScreen))
        on.shows("Timelines from 4:", "num_blocks=", "#3   run ", "fork ", "esc")
        await on.press("enter")
        await on.until(lambda: on.main.is_current and on.main.store.over != "")
        on.shows(*frame(on), "fork from 4:", "this run is over: a fork with num_blocks=200")
