"""Every key once: bindings, footer, palette and help are all made from this table."""

from typing import NamedTuple

from textual.binding import Binding, BindingType


class Action(NamedTuple):
    """``name`` is the binding's id and the ``action_…`` method; ``footer`` its word down there (""
    keeps it out), and footers too narrow for all drop those with the highest ``rank`` first."""

    name: str
    keys: str
    shown: str
    title: str
    about: str
    group: str
    footer: str = ""
    rank: int = 9
    argument: str = ""

    @property
    def id(self) -> str:
        return self.name + (f"-{self.argument}" if self.argument else "")

    @property
    def call(self) -> str:
        return f"{self.name}({self.argument})" if self.argument else self.name


RUN, TIME, LOOK, MOVE, CHOOSE, APP = "Run", "Time", "Look", "Move", "Choose", "Application"

ACTIONS: tuple[Action, ...] = (
    Action("step", "s", "s", "Step", "take one step, then pause", RUN, "step", 0),
    Action("play", "space", "space", "Play or pause", "run at the chosen speed", RUN, "play", 1),
    Action("go_on", "c", "c", "Continue", "run on to the next stop, at full speed", RUN, "cont", 7),
    Action(
        "until", "u", "u", "Run until…", "run until a condition comes true: free < 10", RUN,
        "until", 8,
    ),
    Action(
        "toggle_break", "b", "b", "Break here",
        "stop at the next event about what x would explain, or no longer", RUN, "break", 7,
    ),
    Action("breakpoints", "B", "B", "Breakpoints", "list them, switch or remove them", RUN),
    Action("watch", "w", "w", "Watch…", "keep a value in sight: free, running / batch", RUN),
    Action("back", "S", "S", "Step back", "look at the end of the step before", TIME, "back", 5),
    Action("event", "e", "e", "Event", "one event on, within the step", TIME, "event", 8),
    Action("event_back", "E", "E", "Event back", "one event back", TIME),
    Action(
        "go_back", "C", "C", "Continue backwards",
        "back to where a breakpoint would have stopped last, or to the start", TIME,
    ),
    Action("live", "L", "L", "To the end", "follow the run again", TIME, "live", 2),
    Action(
        "notable", "right_square_bracket", "]", "Next trouble",
        "the next preemption, eviction, refusal or failure", TIME, argument="1",
    ),
    Action(
        "notable", "left_square_bracket", "[", "Last trouble", "the one before this", TIME,
        argument="-1",
    ),
    Action(
        "change", "full_stop", ".", "Next change",
        "the next event that touches what is selected or under the cursor", TIME, argument="1",
    ),
    Action("change", "comma", ",", "Last change", "the one before this", TIME, argument="-1"),
    Action("mark", "m", "m", "Mark", "remember where in the run this is", TIME),
    Action("to_mark", "apostrophe", "'", "To the mark", "go there; again: come back", TIME),
    Action("diff", "d", "d", "Differences", "what has changed from the mark to here", TIME),
    Action(
        "fork", "F", "F", "Fork…",
        "run on from here under other settings, and see both runs: num_blocks=60", TIME,
    ),
    Action(
        "other_run", "left_curly_bracket", "{", "Earlier run",
        "what was seen before the server started anew, or before steps were missed", TIME,
        argument="-1",
    ),
    Action(
        "other_run", "right_curly_bracket", "}", "Later run", "the one that came after it", TIME,
        argument="1",
    ),
    Action(
        "why", "x", "x", "Why",
        "the causes of what is selected, or of where the cursor was moved since", LOOK, "why", 4,
    ),
    Action("slower", "less_than_sign", "<", "Slower", "lower the speed", RUN, "slower", 8),
    Action("faster", "greater_than_sign", ">", "Faster", "raise the speed", RUN, "faster", 8),
    Action("prompt", "i", "i", "New prompt", "type a prompt and send it", RUN, "prompt", 2),
    Action("pane", "1", "1", "Batch", "who is in this step, who waits", LOOK, argument="1"),
    Action("pane", "2", "2", "Blocks", "the map of all KV blocks", LOOK, argument="2"),
    Action("pane", "3", "3", "Tree", "the radix tree of cached prefixes", LOOK, argument="3"),
    Action("pane", "4", "4", "Requests", "all requests and their text", LOOK, argument="4"),
    Action("pane", "5", "5", "Why", "the decisions in words", LOOK, argument="5"),
    Action("pane", "6", "6", "Events", "everything that happened", LOOK, argument="6"),
    Action("pane", "7", "7", "Timeline", "each request from arrival to end", LOOK, argument="7"),
    Action("pane", "8", "8", "Statistics", "rates, latencies, step time", LOOK, argument="8"),
    Action("pane", "9", "9", "Lints", "what goes badly, and what to try", LOOK, argument="9"),
    Action("next_pane", "tab", "tab", "Next pane", "go to the next pane", LOOK),
    Action("previous_pane", "shift+tab", "⇧tab", "Previous pane", "go to the one before", LOOK),
    Action("zoom", "z", "z", "Zoom", "give this pane all the room, or end that", LOOK, "zoom", 3),
    Action(
        "scale", "plus,equals_sign", "+", "Closer",
        "fewer blocks in a cell, fewer steps in a column; the tree unfolded", LOOK, argument="1",
    ),
    Action(
        "scale", "minus", "-", "Farther",
        "more blocks in a cell, more steps in a column; the tree folded up", LOOK, argument="-1",
    ),
    Action(
        "pick_out", "f", "f", "Pick out a state",
        "in the block map, only blocks in one state stand out; again: the next state", LOOK,
    ),
    Action(
        "filter", "slash", "/", "Filter events", "show those that match, such as `req 7`", LOOK,
    ),
    Action(
        "match", "n", "n", "Next match", "the next older event that matches", LOOK, argument="1",
    ),
    Action(
        "match", "N", "N", "Previous match", "the next newer event that matches", LOOK,
        argument="-1",
    ),
    Action("up", "up,k", "↑ k", "Up", "move the cursor up", MOVE),
    Action("down", "down,j", "↓ j", "Down", "move the cursor down", MOVE),
    Action("left", "left,h", "← h", "Left", "move the cursor left", MOVE),
    Action("right", "right,l", "→ l", "Right", "move the cursor right", MOVE),
    Action("top", "g,home", "g", "Top", "go to the first line", MOVE),
    Action("bottom", "G,end", "G", "Bottom", "go to the last line", MOVE),
    Action("page_down", "ctrl+d,pagedown", "^d", "Half a page down", "move on faster", MOVE),
    Action("page_up", "ctrl+u,pageup", "^u", "Half a page up", "move back faster", MOVE),
    Action(
        "select", "enter", "enter", "Select", "light up what belongs to this, in all panes", CHOOSE,
        "select", 4,
    ),
    Action("tokens", "t", "t", "Tokens", "each token of an answer, and how likely it was", CHOOSE),
    Action("clear", "escape", "esc", "Clear", "end the selection", CHOOSE, "clear", 5),
    Action("copy", "y", "y", "Copy", "copy the line, or the prompt and answer it is about", CHOOSE),
    Action("jump", "ctrl+o", "^o", "Jump", "a letter for every pane", LOOK),
    Action("picture", "P", "P", "Picture", "write the screen to an SVG file", APP),
    Action("help", "question_mark", "?", "Help", "keys, glyphs and words", APP, "help", 2),
    Action("command", "colon", ":", "Command line", "type what to do, tab completes", LOOK,
        "command", 6,
    ),
    Action(
        "command_palette", "ctrl+p", "^p", "All actions", "find any of these by name", APP,
        "actions", 8,
    ),
    Action(
        "quit", "q,ctrl+q,ctrl+c", "q", "Quit", "stop the engine and leave; ctrl+c does too", APP,
        "quit", 1,
    ),
)  # fmt: skip

_table = ACTIONS


def use(table: tuple[Action, ...]) -> None:
    """Go by ``table`` from now on: the actions with the user's own keys."""
    global _table
    _table = table


def table() -> tuple[Action, ...]:
    """The actions with the keys that are in use."""
    return _table


def key(name: str) -> str:
    """The key of an action as it is shown, for sentences such as ``press i``."""
    return next(action.shown for action in _table if name in (action.id, action.name))


GROUPS = (RUN, TIME, LOOK, MOVE, CHOOSE, APP)


def bindings(*groups: str) -> list[BindingType]:
    """Textual's bindings for the actions of ``groups``."""
    return [
        Binding(
            action.keys,
            action.call,
            action.title,
            key_display=action.shown,
            tooltip=f"{action.title}: {action.about}",
            id=action.id,
            group=Binding.Group(action.group),
        )
        for action in ACTIONS
        if action.group in groups
    ]
