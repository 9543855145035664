"""The commands of the command line: what each is called, takes, and does.

A line is the name of a command and what it takes: `find` tells them apart, ``run`` does it. Every
key's action is a command too, by its name, so that whatever can be done can be typed. What a word
may be completed to is in `completion.py`; the box in which lines are typed is
`screens/command.py`.
"""

from collections.abc import Callable
from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple, cast

from ..engine.errors import UserError
from .actions import ACTIONS, Action
from .completion import (
    Completer,
    breakpoint_ids,
    conditions,
    expressions,
    filters,
    forks,
    marks,
    nothing,
    one_of,
    panes,
    positions,
    requests,
    targets,
    themes,
    watched,
)
from .event_filter import read as read_filter
from .forking import SUBSTITUTE
from .selection import Target
from .views.status import rate_text

if TYPE_CHECKING:
    from .app import DebuggerApp
    from .screens.main import MainScreen

Run = Callable[["MainScreen", str], None]


class Command(NamedTuple):
    """``takes`` is how its arguments are written; optional ones stand in [brackets]."""

    name: str
    takes: str
    about: str
    run: Run
    complete: Completer = nothing

    @property
    def usage(self) -> str:
        return f"{self.name} {self.takes}".rstrip()

    @property
    def needs_words(self) -> bool:
        """Whether it can do nothing without an argument."""
        return bool(self.takes) and not self.takes.startswith("[")


def find(line: str) -> tuple[Command, str]:
    """The command that ``line`` begins with, and the rest. Raises `UserError` if there is none."""
    name, _, rest = line.strip().partition(" ")
    command = COMMANDS.get(name) or _abbreviated(name)
    if command is None:
        near = get_close_matches(name, COMMANDS, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else ":help lists them all"
        raise UserError(f"there is no command {name!r}; {hint}")
    rest = rest.strip()
    if not rest and command.needs_words:
        raise UserError(f"{command.name} needs to know more: {command.usage}")
    if rest and not command.takes:
        raise UserError(f"{command.name} takes nothing, and {rest!r} was given")
    return command, rest


def _abbreviated(name: str) -> Command | None:
    """The only command that begins so."""
    found = [command for full, command in COMMANDS.items() if name and full.startswith(name)]
    return found[0] if len(found) == 1 else None


def execute(screen: "MainScreen", line: str) -> None:
    """Do what ``line`` says. Raises `UserError` if it cannot be done."""
    command, rest = find(line)
    command.run(screen, rest)


# --- reading arguments ---------------------------------------------------------------------------


def whole(text: str, what: str) -> int:
    """``text`` as a number from 1 on."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise UserError(f"{what} is {text!r}; give a whole number from 1 on")
    return int(text)


def speed(text: str) -> float | None:
    """Steps a second; ``max`` is as fast as it goes."""
    if text == "max":
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0.001 <= rate < float("inf"):
        raise UserError(f"the rate is {text!r}; give steps a second, as in 2 or 0.5, or max")
    return rate


def target(text: str) -> Target:
    """``req 7``, ``node 3`` or ``block 812``."""
    match text.replace("#", " ").split():
        case [("req" | "request"), id] if id.isdigit():
            return Target("request", int(id))
        case ["node", id] if id.isdigit():
            return Target("node", int(id))
        case ["block", id] if id.isdigit():
            return Target("block", int(id))
    raise UserError(f"{text!r} is nothing to select; give req 7, node 3 or block 812")


def request_id(text: str) -> int:
    """``7``, ``#7`` or ``req 7``."""
    word = text.removeprefix("req").strip().removeprefix("#")
    if not word.isdigit():
        raise UserError(f"{text!r} is no request; give its number, as in req 7")
    return int(word)


# --- what they do --------------------------------------------------------------------------------


def _step(screen: "MainScreen", text: str) -> None:
    count = whole(text, "the number of steps") if text else 1
    screen.check("step")
    screen.step(count)


def _play(screen: "MainScreen", text: str) -> None:
    rate = speed(text) if text else screen.rate
    screen.check("play")
    screen.rate = rate
    screen.play()


def _pause(screen: "MainScreen", text: str) -> None:
    if screen.plays_past:
        screen.stay()
    else:
        screen.check("pause")
        screen.source.pause()


def _rate(screen: "MainScreen", text: str) -> None:
    screen.set_rate(speed(text))


def _until(screen: "MainScreen", text: str) -> None:
    screen.check("until")
    screen.until(text)


def _break(screen: "MainScreen", text: str) -> None:
    words = text.split()
    if words == ["list"]:
        screen.action_breakpoints()
        return
    log = words[-1] == "log"
    words = words[:-1] if log else words
    ignore = 0
    if len(words) > 2 and words[-2] == "ignore":
        ignore = whole(words[-1], "ignore")
        words = words[:-2]
    screen.check("toggle_break")
    condition = " ".join(words)
    screen.add_breakpoint(condition, ignore, log)


def _known(screen: "MainScreen", text: str) -> int:
    id = whole(text, "the breakpoint")
    ids = [b.id for b in screen.store.stops.breakpoints]
    if id not in ids:
        known = ", ".join(map(str, ids)) or "none"
        raise UserError(f"there is no breakpoint {id}; there are: {known}")
    return id


def _delete(screen: "MainScreen", text: str) -> None:
    ids = [b.id for b in screen.store.stops.breakpoints] if text == "all" else []
    for id in ids if text == "all" else [_known(screen, text)]:
        screen.source.remove_breakpoint(id)


def _enable(screen: "MainScreen", text: str) -> None:
    screen.source.enable_breakpoint(_known(screen, text), True)


def _disable(screen: "MainScreen", text: str) -> None:
    screen.source.enable_breakpoint(_known(screen, text), False)


def _watch(screen: "MainScreen", text: str) -> None:
    screen.store.watches.add(text, screen.store.state)
    screen.rearrange()


def _unwatch(screen: "MainScreen", text: str) -> None:
    watches = screen.store.watches
    if text == "all":
        watches.all.clear()
    else:
        watches.remove(text)
    screen.rearrange()


def _pane(screen: "MainScreen", text: str) -> None:
    for number, pane in screen.panes.items():
        if text.lower() in (str(number), pane.view.name.lower()):
            screen.action_pane(number)
            return
    names = ", ".join(pane.view.name.lower() for pane in screen.panes.values())
    raise UserError(f"there is no pane {text!r}; there are {names}")


def _select(screen: "MainScreen", text: str) -> None:
    wanted, state = target(text), screen.store.state
    there = {
        "request": wanted.id in state.requests,
        "node": wanted.id in state.nodes,
        "block": wanted.id < state.config.num_blocks,
    }
    if not there[wanted.kind]:
        raise UserError(f"there is no {wanted.kind} {wanted.id} here")
    screen.select(wanted)


def _abort(screen: "MainScreen", text: str) -> None:
    id = request_id(text)
    screen.check("abort")
    request = screen.store.state.requests.get(id)
    if request is None or not request.live:
        ended = "has ended already" if request else "is not known"
        raise UserError(f"#{id} {ended}, so it cannot be aborted")
    screen.source.abort(id)


def _prompt(screen: "MainScreen", text: str) -> None:
    if text:
        screen.check("prompt")
        screen.submit(text)
    else:
        screen.action_prompt()


def _theme(screen: "MainScreen", text: str) -> None:
    known = themes(screen, "")
    if text not in known:
        raise UserError(f"there is no theme {text!r}; there are {', '.join(known)}")
    screen.app.theme = text


def _filter(screen: "MainScreen", text: str) -> None:
    if text:
        screen.set_filter(read_filter(text))
    else:
        screen.action_filter()


def _screenshot(screen: "MainScreen", text: str) -> None:
    screen.call_after_refresh(_app(screen).screenshot, text)


def _copy(screen: "MainScreen", text: str) -> None:
    if text and text not in COPIED:
        raise UserError(f"{text!r} is nothing to copy; give {', '.join(COPIED)}")
    screen.copy(text) if text else screen.action_copy()


def _set(screen: "MainScreen", text: str) -> None:
    match text.split():
        case ["ascii", "on" | "off" as value]:
            _app(screen).set_ascii(value == "on")
        case _:
            raise UserError(f"{text!r} cannot be set; there is: set ascii on, set ascii off")


def _app(screen: "MainScreen") -> "DebuggerApp":
    return cast("DebuggerApp", screen.app)


def _goto(screen: "MainScreen", text: str) -> None:
    screen.go_to(text)


def _mark(screen: "MainScreen", text: str) -> None:
    screen.mark(text or "mark")


def _diff(screen: "MainScreen", text: str) -> None:
    screen.diff(text or "mark")


def _why(screen: "MainScreen", text: str) -> None:
    if text:
        screen.explain(target(text))
    else:
        screen.action_why()


def _fork(screen: "MainScreen", text: str) -> None:
    screen.fork(text)


def _ask_for(action: str) -> Run:
    def run(screen: "MainScreen", text: str) -> None:
        screen.do(action)

    return run


COPIED = ("line", "prompt", "answer", "whole", "command")

OWN = (
    Command("step", "[N]", "take one step, or N", _step),
    Command("play", "[RATE]", "run, at RATE steps a second or max", _play, one_of("max")),
    Command("pause", "", "stop after the step in progress", _pause),
    Command("rate", "RATE", "how fast play runs: steps a second, or max", _rate, one_of("max")),
    Command("until", "CONDITION", "run to the step in which it comes true", _until, conditions),
    Command(
        "break",
        "CONDITION [ignore N] [log]",
        "stop when it comes true, but not the first N times; log only notes it. break list",
        _break,
        conditions,
    ),
    Command("delete", "ID", "remove a breakpoint, or all", _delete, breakpoint_ids),
    Command("enable", "ID", "let a breakpoint stop again", _enable, breakpoint_ids),
    Command("disable", "ID", "keep a breakpoint, but do not stop there", _disable, breakpoint_ids),
    Command("goto", "POSITION", "120:7, 120, 50%, req 7 first-token, or a mark", _goto, positions),
    Command("mark", "[NAME]", "remember where in the run this is", _mark),
    Command("diff", "[MARK]", "what has changed from the mark to here", _diff, marks),
    Command(
        "fork",
        "CHANGE…",
        f"run on from here with num_blocks=60, say, or {SUBSTITUTE} in prompts; see both runs",
        _fork,
        forks,
    ),
    Command("why", "[TARGET]", "the causes of req 7, node 3 or block 812", _why, targets),
    Command("watch", "EXPRESSION", "keep a value in sight", _watch, expressions),
    Command("unwatch", "EXPRESSION", "let it go, or all", _unwatch, watched),
    Command("pane", "NAME", "go to a pane", _pane, panes),
    Command("select", "TARGET", "req 7, node 3 or block 812, in all panes", _select, targets),
    Command(
        "filter", "[TEXT]", "show the events that match: req 7, kind preempted", _filter, filters
    ),
    Command("abort", "REQUEST", "end a request", _abort, requests),
    Command("prompt", "[TEXT]", "send a prompt", _prompt),
    Command(
        "copy", "[WHAT]", "copy line, prompt, answer, whole or command", _copy, one_of(*COPIED)
    ),
    Command("screenshot", "[FILE]", "write the screen to an SVG file", _screenshot),
    Command("set", "OPTION VALUE", "set ascii on, or off", _set, one_of("ascii", "on", "off")),
    Command("theme", "NAME", "choose other colours", _theme, themes),
)


def action_command(action: Action) -> str:
    """What the key's action is called as a command; of those for several keys, by its title."""
    if action.argument and action.name not in _TAKEN:
        return action.title.lower().replace(" ", "-")
    return action.name.replace("_", "-")


_TAKEN = {command.name for command in OWN}

COMMANDS: dict[str, Command] = {command.name: command for command in OWN}
for _action in ACTIONS:
    _name = action_command(_action)
    if _name not in _TAKEN:
        COMMANDS[_name] = Command(_name, "", _action.about, _ask_for(_action.call))


def rate_words(rate: float | None) -> str:
    return f"space will run {rate_text(rate)}"
