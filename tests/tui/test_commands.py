"""The command line, breakpoints and watches, on a small terminal and on a large one."""

import pytest
from minisgl_tui.engine.debugger import Mode
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.events import Preempted
from minisgl_tui.engine.state import EngineState
from minisgl_tui.engine.stops import StopReason
from minisgl_tui.tui.actions import ACTIONS
from minisgl_tui.tui.commands import COMMANDS, action_command, find, speed, target
from minisgl_tui.tui.completion import split
from minisgl_tui.tui.screens.breakpoints import BreakpointsScreen
from minisgl_tui.tui.screens.command import CommandScreen
from minisgl_tui.tui.selection import Target
from minisgl_tui.tui.sources.local import LocalSource
from minisgl_tui.tui.stops import Stops
from minisgl_tui.tui.text import cell_len, plain
from minisgl_tui.tui.watches import Watch, Watches, shown, sparks, watch_lines
from textual import events
from textual.widgets import Input

from .pilot import MEDIUM, NARROW, TINY, WIDE, Driver, all_sizes, running
from .toy import CONFIG, ROOMY, make_source


async def command(on: Driver, line: str) -> None:
    """Type ``line`` on the command line."""
    await on.press("colon")
    on.app.screen.query_one(Input).value = line
    await on.press("enter")


def error_shown(on: Driver) -> str:
    assert isinstance(on.app.screen, CommandScreen)
    lines = on.lines()
    first = next(i for i, line in enumerate(lines) if "✗" in line)
    last = next(i for i, line in enumerate(lines) if line.startswith(" :"))
    return " ".join(line.strip() for line in lines[first:last])


# --- the line ------------------------------------------------------------------------------------


@all_sizes
async def test_a_command_is_typed_completed_and_carried_out(size: tuple[int, int]) -> None:
    async with running(size) as on:
        await on.press("colon")
        assert isinstance(on.app.screen, CommandScreen)
        assert "tab completes" in on.text() and "break" in on.text()
        await on.press(*"ste", "tab")
        line = on.app.screen.query_one(Input)
        assert line.value == "step "
        assert "step [N]" in on.text() and "take one step, or N" in on.text()
        await on.press("3", "enter")
        await on.until(lambda: on.store.state.step == 3)
        assert on.app.screen is on.main


async def test_tab_goes_through_what_fits_and_up_recalls_earlier_lines() -> None:
    async with running() as on:
        await command(on, "pane tree")
        assert on.main.active == 3
        await command(on, "pane blocks")
        await on.press("colon", "up")
        line = on.app.screen.query_one(Input)
        assert line.value == "pane blocks"
        await on.press("up", "up")
        assert line.value == "pane tree"
        await on.press("down", "down")
        assert line.value == ""
        await on.press(*"pane b", "tab")
        first = line.value
        await on.press("tab")
        assert {first, line.value} == {"pane batch", "pane blocks"}
        await on.press("shift+tab")
        assert line.value == first
        await on.press("escape")
        assert on.app.screen is on.main and on.main.active == 2


async def test_conditions_are_completed_with_quantities_events_and_examples() -> None:
    async with running() as on:
        await on.press("u")
        assert "free < 10 and waiting > 0" in on.text()
        line = on.app.screen.query_one(Input)
        await on.press(*"evi", "tab")
        assert line.value == "until evict"
        await on.press("tab")
        assert line.value in ("until evictable", "until evicted")
        line.value = "filter kind pre"
        await on.pilot.pause()
        await on.press("tab")
        assert line.value == "filter kind preempted"
        line.value = "until ev == pre"
        await on.pilot.pause()
        await on.press("tab")
        assert line.value == 'until ev == "preempted"'
        assert "kind of event" not in on.text() and "both hold" in on.text()


def test_a_word_reaches_back_to_a_blank_or_to_a_sign() -> None:
    choices = {"free": "", "finished": "", '"preempted"': "", "high-contrast": ""}
    assert split(choices, "step>1 and fr") == ("step>1 and ", {"free": ""})
    assert split(choices, "step<fi") == ("step<", {"finished": ""})
    assert split(choices, "ev==pre") == ("ev==", {'"preempted"': ""})
    assert split(choices, "high-c") == ("", {"high-contrast": ""})
    assert split(choices, "nonsense") == ("nonsense", {})


@all_sizes
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("brek free<3", "there is no command 'brek'; did you mean break?"),
        ("step x", "the number of steps is 'x'; give a whole number from 1 on"),
        ("play fast", "the rate is 'fast'; give steps a second"),
        ("break", "break needs to know more: break CONDITION"),
        ("pause now", "pause takes nothing, and 'now' was given"),
        ("break free <", "something is missing at the end"),
        ("break fre < 3", "'fre' is not known (did you mean free?)"),
        ("delete 4", "there is no breakpoint 4; there are: none"),
        ("watch ev == 'evicted'", "asks about events"),
        ("unwatch free", "'free' is not watched; watched are: none"),
        ("pane moon", "there is no pane 'moon'; there are batch"),
        ("select moon", "give req 7, node 3 or block 812"),
        ("select block 999999", "there is no block 999999 here"),
        ("abort 99", "#99 is not known"),
        ("theme moon", "there is no theme 'moon'"),
    ],
)
async def test_what_cannot_be_done_is_said_in_a_line_that_can_be_mended(
    size: tuple[int, int], line: str, says: str
) -> None:
    async with running(size) as on:
        await command(on, line)
        assert says in error_shown(on)
        assert on.app.screen.query_one(Input).value == line
        await on.press("escape")
        assert on.app.screen is on.main


def test_every_action_is_a_command_and_abbreviations_are_found() -> None:
    for action in ACTIONS:
        assert action_command(action) in COMMANDS, action.id
    assert find("zo")[0].name == "zoom"
    with pytest.raises(UserError, match="did you mean"):
        find("stepp 3")
    with pytest.raises(UserError):
        find("")


async def test_the_palette_has_every_command() -> None:
    async with running() as on:
        titles = {c.title for c in on.app.get_system_commands(on.main)}
        for name, one in COMMANDS.items():
            action = next((a for a in ACTIONS if action_command(a) == name), None)
            if action is None:
                assert f"{one.usage} (:)" in titles or not one.needs_words, name
        choose = {c.title: c for c in on.app.get_system_commands(on.main)}
        choose["watch EXPRESSION (:)"].callback()
        await on.pilot.pause()
        assert on.app.screen.query_one(Input).value == "watch "


def test_rates_and_targets_are_read() -> None:
    assert speed("max") is None and speed("0.5") == 0.5
    for bad in ("", "0", "-1", "nan", "inf"):
        with pytest.raises(UserError, match="the rate is"):
            speed(bad)
    assert target("req 7") == target("request #7") == Target("request", 7)
    assert target("node 3") == Target("node", 3)
    assert target("block 812") == Target("block", 812)


async def test_commands_do_what_their_keys_do() -> None:
    async with running(NARROW, make_source(ROOMY, tokens=200)) as on:
        await on.until(lambda: len(on.store.state.waiting) == 4)
        await command(on, "rate 3")
        assert "space will run 3 steps/s" in on.toasts()
        await on.press("greater_than_sign")
        assert on.main.rate == 4
        await command(on, "play 20")
        await on.until(lambda: on.store.mode is Mode.PLAYING and on.store.state.step > 2)
        assert on.main.rate == 20
        await command(on, "pause")
        await on.until(lambda: on.store.mode is Mode.PAUSED)
        await command(on, "select req 2")
        assert on.store.selected == Target("request", 2)
        await command(on, "zoom")
        assert on.main.zoomed
        await command(on, "theme light")
        assert on.app.theme == "light"
        await command(on, "abort 2")
        await on.until(lambda: on.store.state.requests[2].finish_reason == "abort")
        await command(on, "prompt what else?")
        await on.until(lambda: 4 in on.store.state.requests)
        await command(on, "help")
        assert "take one step, then pause" in on.text()
        await on.press("escape")
        await command(on, "quit")  # it asks: a prompt was typed
        await command(on, "quit")
        assert on.app.return_code == 0


# --- breakpoints ---------------------------------------------------------------------------------


@all_sizes
async def test_a_breakpoint_stops_and_the_screen_says_where_and_why(size: tuple[int, int]) -> None:
    async with running(size) as on:
        await command(on, 'break ev == "preempted"')
        await on.until(lambda: len(on.store.stops.breakpoints) == 1)
        await on.press("c")
        await on.until(lambda: on.store.stops.latest is not None)
        stop = on.store.stops.latest
        assert stop is not None and stop.reason is StopReason.BREAKPOINT
        assert any(isinstance(n, Preempted) for n in on.store.state.notes)
        await on.until(lambda: on.store.mode is Mode.PAUSED)
        hit = stop.hits[0]
        hint = next(line for line in on.lines() if line.startswith(" ◉"))
        assert f'◉ breakpoint 1: ev == "preempted" · at {hit.position}'[:50] in hint
        await on.press("5")
        assert f'◉ Breakpoint 1 (ev == "preempted") stopped at {hit.position}' in on.text()
        await on.press("6")
        marked = [line for line in on.lines() if f"{hit.position}◉" in line]
        assert len(marked) == 1 and "preempted" in marked[0]
        await on.step()
        assert not any(line.startswith(" ◉") for line in on.lines())


@pytest.mark.parametrize("typed", ["break", "until"])
async def test_a_stop_says_where_its_condition_held_if_it_does_no_longer(typed: str) -> None:
    async with running(MEDIUM) as on:
        await on.step()
        await command(on, f"{typed} batch == 1 < step")
        if typed == "break":
            await on.press("c")
        await on.until(lambda: on.store.stops.latest is not None and on.store.state.step == 2)
        await on.until(lambda: on.store.mode is Mode.PAUSED)
        assert len(on.store.state.rows) == 3
        whose = "breakpoint 1: " if typed == "break" else ""
        words = f"◉ at 2:2 scheduled #0, but no longer (:goto 2:2) · {whose}batch == 1 < step"
        await on.until(lambda: words in on.text())
        await command(on, "goto 2:2")
        assert len(on.store.state.rows) == 1


@all_sizes
async def test_b_sets_a_breakpoint_on_what_the_cursor_is_on_and_takes_it_away(
    size: tuple[int, int],
) -> None:
    async with running(size) as on:
        await on.step(2)
        for pane, words in (("1", "req == 0"), ("2", "0 in blocks"), ("3", "node == ")):
            await on.press(pane, "b")
            await on.until(lambda: len(on.store.stops.breakpoints) == 1)
            assert words in on.store.stops.breakpoints[0].condition
            await on.press("b")
            await on.until(lambda: not on.store.stops.breakpoints)


@all_sizes
async def test_the_list_switches_removes_and_jumps(size: tuple[int, int]) -> None:
    async with running(size) as on:
        await on.press("B")
        assert isinstance(on.app.screen, BreakpointsScreen)
        assert "No breakpoints yet" in on.text()
        await on.press("a")
        assert on.app.screen.query_one(Input).value == "break "
        await on.press(*"running>0 ignore 0", "enter")
        assert "ignore is '0'" in error_shown(on)
        on.app.screen.query_one(Input).value = "break ev=='sampled' ignore 1 log"
        await on.press("enter")
        await command(on, "break finished > 0")
        await on.until(lambda: len(on.store.stops.breakpoints) == 2)
        await on.press("c")
        await on.until(lambda: on.store.stops.latest is not None)
        first, second = on.store.stops.breakpoints
        assert first.hits > 2 and second.hits == 1
        logged = [hit for step in range(99) for hit in on.store.stops.hits(step) if hit.logged]
        assert len(logged) == first.hits - 1
        await command(on, "break list")
        row = next(line for line in on.lines() if "▸ ●" in line)
        assert "ev=='sample" in row and "notes" in row
        await on.press("space")
        await on.until(lambda: not on.store.stops.breakpoints[0].enabled)
        await on.until(lambda: "▸ ○" in on.text())
        await on.press("d")
        await on.until(lambda: len(on.store.stops.breakpoints) == 1)
        await on.press("enter")
        assert on.app.screen is on.main
        finished = second.last
        assert finished is not None
        assert on.store.selected == Target("request", finished.event.req)  # pyright: ignore
        assert on.main.active == 5


async def test_a_log_only_breakpoint_notes_and_does_not_stop() -> None:
    async with running(WIDE) as on:
        await command(on, "break ev=='admitted' and req==1 log")
        await on.until(lambda: len(on.store.stops.breakpoints) == 1)
        await on.step(4)
        assert "◌ Breakpoint 1" in on.text().replace("\n", " ")
        assert on.store.stops.latest is not None
        assert on.store.stops.latest.reason is StopReason.STEP


async def test_enable_disable_and_delete_are_commands() -> None:
    async with running() as on:
        await command(on, "break free<3")
        await on.until(lambda: len(on.store.stops.breakpoints) == 1)
        await command(on, "disable 1")
        await on.until(lambda: not on.store.stops.breakpoints[0].enabled)
        await command(on, "enable 1")
        await on.until(lambda: on.store.stops.breakpoints[0].enabled)
        await command(on, "break free<2")
        await on.until(lambda: len(on.store.stops.breakpoints) == 2)
        await command(on, "delete all")
        await on.until(lambda: not on.store.stops.breakpoints)


@all_sizes
async def test_until_runs_to_its_condition_or_says_that_it_was_not_reached(
    size: tuple[int, int],
) -> None:
    async with running(size) as on:
        await command(on, "until step == 5")
        await on.until(lambda: on.store.state.step == 5 and on.store.mode is Mode.PAUSED)
        await on.press("5")
        assert "◉ The condition run to (step == 5) came true at 5:0" in on.text()
        assert "step == 5" in next(line for line in on.lines() if line.startswith(" ◉"))
        await command(on, "until step == 9999")
        await on.until(lambda: on.store.done)
        assert on.store.stops.latest is not None
        assert "not reached: step == 9999" in on.store.stops.why(on.store.state)


async def test_commands_in_the_past_leave_the_present_alone() -> None:
    async with running() as on:
        await on.step(8)
        live = on.store.newest
        await command(on, "goto 1")
        await command(on, "step 2")
        assert on.store.position.step == 3
        await command(on, "until step == 5")
        await on.until(lambda: str(on.store.position) == "5:0")
        assert any("· step == 5" in toast for toast in on.toasts())
        await command(on, "goto 1")
        await command(on, "play 1")  # seconds from the end, however slow the machine
        await on.until(lambda: on.store.position.step > 1)
        await command(on, "pause")
        assert not on.main.plays_past and not on.store.follows
        await command(on, "until step == 9999")
        await on.until(lambda: on.store.follows)
        assert "step == 9999 does not come true after this: this is the end" in on.toasts()
        assert on.store.newest == live and on.store.mode is Mode.PAUSED


class _Recording(LocalSource):
    """As a recording does, it says that it takes no prompts and has no breakpoints."""

    def why_not(self, verb: str) -> str:
        if verb in ("submit", "add_breakpoint", "until", "abort"):
            return "this is a recording: nothing can be changed in it"
        return ""


async def test_a_source_that_cannot_says_so_instead_of_ignoring() -> None:
    toy = make_source()
    async with running(NARROW, _Recording(toy._open)) as on:
        await on.until(lambda: bool(on.store.state.waiting))
        await on.press("i", "b")
        assert on.toasts() == ["this is a recording: nothing can be changed in it"]
        for line in ("break free<3", "until free<3", "abort 0", "prompt hello"):
            await command(on, line)
            assert "this is a recording" in error_shown(on)
            await on.press("escape")
        assert "prompt" not in on.lines()[-1]
        await on.step()


# --- watches -------------------------------------------------------------------------------------


@all_sizes
async def test_a_watch_shows_value_change_since_the_last_stop_and_course(
    size: tuple[int, int],
) -> None:
    async with running(size) as on:
        await on.press("w")
        assert on.app.screen.query_one(Input).value == "watch "
        await on.press(*"free", "enter")
        assert "◈ free 24" in on.text()
        await on.step()
        free = on.store.state.free
        assert f"◈ free {free} −{24 - free} █▁" in on.text()
        await command(on, "watch running / batch")
        assert "◈ running / batch 1" in on.text()
        assert len(on.lines()) == size[1] and "quit" in on.lines()[-1]
        await command(on, "watch free")
        assert "free is watched already" in error_shown(on)
        await on.press("escape")
        await command(on, "unwatch 1")
        assert "◈ free" not in on.text()
        await command(on, "unwatch all")
        assert "◈" not in on.text()


@all_sizes
async def test_watches_that_have_no_room_are_counted_and_listed_with_their_values(
    size: tuple[int, int],
) -> None:
    async with running(size) as on:
        names = ("free", "evictable", "scheduled", "preemptions", "finished", "sampled", "step + 1")
        names += tuple(f"preemptions + {n}" for n in range(30))
        for name in names:
            on.store.watches.add(name, on.store.state)
        on.main.rearrange()
        await on.step(2)
        if size == TINY:  # which has no room for any
            return
        drawn = [line for line in on.lines() if "◈" in line]
        shown = sum(line.count("◈") for line in drawn)
        assert len(drawn) == {NARROW: 1, MEDIUM: 2}.get(size, 4)
        assert shown >= 2
        assert f"… {len(names) - shown} more: see :unwatch" in drawn[-1]
        await on.press("colon", *"unwatch ")
        assert "step + 1" in on.text() and f"… {len(names) + 1 - 8} more" in on.text()
        line = next(line for line in on.lines() if line.strip().startswith("free "))
        assert line.split()[-1] == str(on.store.state.free)


def test_a_watch_wider_than_the_line_leaves_room_for_the_count_of_the_others() -> None:
    watches, state = Watches(), EngineState(CONFIG)
    for text in ("free" + " + 0" * 30, "free"):
        watches.add(text, state)
    (line,) = watch_lines(watches, Stops(), state, 60, 1)
    assert plain(line).endswith("… 24 … 1 more: see :unwatch")
    assert cell_len(plain(line)) <= 60


async def test_a_watch_is_asked_of_the_state_shown() -> None:
    """Also of one in the past: the change is against the stop before that."""
    async with running(NARROW) as on:
        await on.step()
        await command(on, "watch step")
        await on.step(4)
        watch = on.store.watches.all[0]
        assert watch.course(5, 3) == [3, 4, 5] and watch.course(4, 3) == [2, 3, 4]
        assert on.store.stops.before(4) == 3


def test_values_are_short_and_what_is_not_there_is_a_dash() -> None:
    assert [shown(v) for v in (1234, 0.12345, True, None, "a")] == [
        "1,234",
        "0.123",
        "true",
        "–",
        "a",
    ]
    assert sparks([0, 5, 10]) == "▁▅█" and sparks([3, 3]) == "▁▁"
    with pytest.raises(UserError, match="asks about events"):
        Watch("ev == 'evicted'")


@pytest.mark.parametrize("keys", [":goto 2:1\r", ":goto 2:1"])
async def test_what_is_typed_before_the_line_is_open_is_not_lost(keys: str) -> None:
    async with running() as on:
        await on.step(4)
        for key in keys:  # all at once, as a fast hand or a paste does
            name = {":": "colon", "\r": "enter", " ": "space"}.get(key, key)
            on.app.post_message(events.Key(name, key))
        if keys.endswith("\r"):
            await on.until(lambda: str(on.store.position) == "2:1")
        else:
            await on.until(lambda: on.text().endswith("\n :goto 2:1"))
        assert on.store.state.step == (2 if keys.endswith("\r") else 4)


async def test_a_short_message_does_not_lie_over_the_command_line() -> None:
    async with running() as on:
        on.app.notify("said a moment ago")
        await on.press("colon", *"goto 99", "enter")
        await on.until(lambda: "there is no step 99" in on.text())
        assert "said a moment ago" in "\n".join(on.lines()[:4])
        assert "✗ there is no step 99; the recording goes to" in on.lines()[-2]
