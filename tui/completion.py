"""What a word of the command line may be completed to, and what each choice means.

A completer looks at what was typed after the command's name and gives the choices for its last
word, each with a word or two about it.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..engine.fork.changes import SETTINGS
from ..engine.policies import BY_SETTING
from ..engine.quantities import EVENT_FIELDS, EVENT_KINDS, QUANTITIES
from ..engine.state import ROOT
from .forking import SUBSTITUTE
from .palette import OWN_THEMES
from .watches import shown

if TYPE_CHECKING:
    from .screens.main import MainScreen

Choices = dict[str, str]
Completer = Callable[["MainScreen", str], Choices]

EXAMPLES = {
    "free < 10 and waiting > 0": "few blocks left, and somebody wants them",
    'ev == "preempted"': "anybody loses his blocks",
    'ev == "finished" and req == 0': "request 0 ends",
    "812 in blocks": "anything happens to block 812",
    "step >= 100": "",
}
_KIND = re.compile(r"""\bev\s*(?:==|!=|(?:not )?in)\s*\(?["'\w, ]*$""")
_CLOSED = re.compile(r"""(?:"\w+"|'\w+')\s*$""")
_OPEN_QUOTE = re.compile(r"""["']\w*$""")
_JOINERS = {"and": "both hold", "or": "either holds", "not": "does not hold", "in": "is one of"}


def split(choices: Choices, text: str) -> tuple[str, Choices]:
    """What stays of ``text`` when its last word is completed, and the ``choices`` that begin so.

    A word reaches back to a blank; where nothing begins so, to a sign such as ( or <.
    """
    for pattern in (r"\S*$", r"\w*$"):
        found = re.search(pattern, text)
        word = found[0] if found else ""
        fits = {c: a for c, a in choices.items() if c.lstrip('"').startswith(word) and c != word}
        if fits:
            return text[: len(text) - len(word)], fits
    return text, {}


def nothing(screen: "MainScreen", text: str) -> Choices:
    return {}


def one_of(*words: str) -> Completer:
    return lambda screen, text: dict.fromkeys(words, "")


def expressions(screen: "MainScreen", text: str) -> Choices:
    """Quantities of the state."""
    return {name: quantity.meaning for name, quantity in QUANTITIES.items()}


def conditions(screen: "MainScreen", text: str) -> Choices:
    """Quantities and, of events, their kinds and fields; whole examples while nothing is typed."""
    if not text.strip():
        return EXAMPLES | expressions(screen, text) | {"ev": "kind of the event looked at"}
    if _CLOSED.search(text):
        return _JOINERS
    if _KIND.search(text):
        quote = "" if _OPEN_QUOTE.search(text) else '"'
        return dict.fromkeys((f'{quote}{kind}"' for kind in EVENT_KINDS), "kind of event")
    fields = dict.fromkeys(EVENT_FIELDS, "of the event looked at")
    return expressions(screen, text) | {"ev": "kind of the event looked at"} | fields | _JOINERS


def breakpoint_ids(screen: "MainScreen", text: str) -> Choices:
    return {str(b.id): b.condition for b in screen.store.stops.breakpoints}


def watched(screen: "MainScreen", text: str) -> Choices:
    store = screen.store
    return {w.text: shown(w.value(store.state)) for w in store.watches.all} | {"all": ""}


def marks(screen: "MainScreen", text: str) -> Choices:
    return {name: str(position) for name, position in screen.store.marks.items()}


def positions(screen: "MainScreen", text: str) -> Choices:
    if text.startswith("req "):
        words = text.split()
        if len(words) > 2 or (len(words) == 2 and text.endswith(" ")):
            return dict.fromkeys(("submitted", "first-token", "finished"), "")
        return dict.fromkeys(map(str, screen.store.state.requests), "")
    forms = {"start": "", "end": "", "50%": "halfway", "req": "first-token of a request, say"}
    return {**marks(screen, text), **forms}


def forks(screen: "MainScreen", text: str) -> Choices:
    """Settings with their values in this run; of a policy, the names there are."""
    config = screen.store.config
    word = text.split(" ")[-1]
    for name, policies in BY_SETTING.items():
        if word.startswith(f"{name}="):
            return dict.fromkeys((f"{name}={policy}" for policy in policies), "")
    now = {f"{name}=": f"now {getattr(config, name)}" for name in SETTINGS}
    return {**now, SUBSTITUTE: "another text in prompts"}


def panes(screen: "MainScreen", text: str) -> Choices:
    return {pane.view.name.lower(): pane.view.about for pane in screen.panes.values()}


def requests(screen: "MainScreen", text: str) -> Choices:
    state = screen.store.state
    live = [*state.running, *state.waiting]
    return {str(r): str(state.requests[r].status) for r in live}


def filters(screen: "MainScreen", text: str) -> Choices:
    words = text.split(" ")
    if len(words) > 1 and words[-2] == "kind":
        return dict.fromkeys(EVENT_KINDS, "kind of event")
    return {
        "kind": "events of a kind, by its name or its beginning",
        "req": "events about a request",
        "node": "events about a tree node",
        "block": "events about a block",
        "step": "events of a step",
    }


def targets(screen: "MainScreen", text: str) -> Choices:
    if text.startswith("req"):
        known = screen.store.state.requests.values()
        return {str(r.id): r.finish_reason or str(r.status) for r in known}
    if text.startswith("node"):
        return {str(node): "" for node in screen.store.state.nodes if node != ROOT}
    if text.startswith("block"):
        return {}
    return {"req": "a request", "node": "a tree node", "block": "a block"}


def themes(screen: "MainScreen", text: str) -> Choices:
    return {name: OWN_THEMES.get(name, "") for name in screen.app.available_themes}
