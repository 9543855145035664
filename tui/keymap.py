"""The user's own keys: a TOML file in the configuration directory.

    [keys]
    step = "n"
    play = ["space", "p"]
    pane-1 = "f1"

`minisgl-tui keys` prints where the file is, and the names and keys of all actions.
"""

import unicodedata
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from textual.keys import KEY_ALIASES, Keys

from ..engine.errors import UserError
from . import own_files
from .actions import ACTIONS, Action, table

MODIFIERS = ("ctrl+", "alt+", "shift+")
ALWAYS = "ctrl+c"  # quits, whatever else does
_NAMED = {key.value for key in Keys} | set(KEY_ALIASES)
_SHORT = {"ctrl+": "^", "shift+": "⇧", "alt+": "alt-"}


def path() -> Path:
    return own_files.folder() / "keys.toml"


def load(file: Path) -> tuple[Action, ...]:
    """The actions with the keys of ``file``, or as they are if there is none.

    Raises `UserError` with one line about what is wrong in it.
    """
    try:
        found = own_files.read(file)
    except FileNotFoundError:
        return ACTIONS
    other = next((name for name in found if name != "keys"), None)
    if other is not None:
        raise UserError(f"{file}: {other!r} is not known; there is [keys] alone")
    keys = found.get("keys", {})
    if not isinstance(keys, dict):
        raise UserError(f"{file}: keys is {keys!r}; write [keys], then a line an action")
    try:
        return remapped(keys)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def remapped(keys: Mapping[str, Any]) -> tuple[Action, ...]:
    """The actions, those in ``keys`` with their keys from there. Raises `UserError`."""
    known = {action.id: action for action in ACTIONS}
    for name in keys:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else "`minisgl-tui keys` lists them"
            raise UserError(f"there is no action {name!r}; {hint}")
    actions = tuple(
        _with_keys(action, keys[action.id]) if action.id in keys else action for action in ACTIONS
    )
    taken: dict[str, Action] = {}
    for action in actions:
        for key in action.keys.split(","):
            if (other := taken.setdefault(key, action)) is not action:
                raise UserError(
                    f"{shown(key)} is both {other.id} and {action.id}; give one another key"
                )
    return actions


def _with_keys(action: Action, value: object) -> Action:
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not given or not all(isinstance(k, str) for k in given):
        raise UserError(f'{action.id} is {value!r}; give a key, as in "n", or a list of them')
    keys = [_name(action, key) for key in given]
    if action.name == "quit" and ALWAYS not in keys:
        keys.append(ALWAYS)
    words = " ".join(shown(key) for key in keys if key != ALWAYS)
    return action._replace(keys=",".join(keys), shown=words or shown(ALWAYS))


def _name(action: Action, key: str) -> str:
    """The key as Textual calls it: ``question_mark`` for ``?``."""
    bare, before = key, ""
    while modifier := next((m for m in MODIFIERS if bare.startswith(m)), ""):
        bare, before = bare[len(modifier) :], before + modifier
    if len(bare) == 1 and bare.isprintable() and not bare.isspace():
        name = bare if bare.isalnum() else unicodedata.name(bare).lower()
        return before + _NAMES.get(bare, name.replace("-", "_").replace(" ", "_"))
    if bare in _NAMED or key in _NAMED or bare in _NAMES.values() or shown(bare) != bare:
        return key
    raise UserError(
        f"{action.id} has the key {key!r}, which is none; keys are such as n, N, ?, f5, ctrl+n, "
        "space, enter"
    )


_NAMES = {
    "-": "minus", "/": "slash", "\\": "backslash", "<": "less_than_sign", "_": "underscore",
    ">": "greater_than_sign", "+": "plus", "=": "equals_sign", ".": "full_stop",
}  # fmt: skip


def shown(key: str) -> str:
    """A short way to write a key.

    >>> shown("ctrl+n"), shown("question_mark")
    ('^n', '?')
    """
    bare, before = key, ""
    while modifier := next((m for m in MODIFIERS if bare.startswith(m)), ""):
        bare, before = bare[len(modifier) :], before + _SHORT[modifier]
    sign = next((sign for sign, name in _NAMES.items() if name == bare), None)
    if sign is None:
        try:
            sign = unicodedata.lookup(bare.replace("_", " ")) if len(bare) > 1 else bare
        except KeyError:
            sign = bare
    return before + (sign if sign.isprintable() and not sign.isspace() else bare)


def lines() -> list[str]:
    """The table that `minisgl-tui keys` prints."""
    file = path()
    there = "" if file.exists() else " (not there yet)"
    rows = [f"your own keys go into {file}{there}, for example:", "", "[keys]", 'step = "n"', ""]
    rows.append(f"{'action':<20} {'keys':<24} does")
    for action in table():
        rows.append(f"{action.id:<20} {action.keys.replace(',', ' '):<24} {action.about}")
    return rows
