"""Themes of the user's own: a TOML file each, in a folder of the configuration directory.

    base = "dark"    # of ours, which what is not given here is taken from
    [screen]
    background = "#000000"
    [styles]
    decode = "bold #00ff00"

`minisgl-tui themes` prints where they go and the names of all that can be given.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.errors import StyleSyntaxError
from rich.style import Style
from textual.color import Color, ColorParseError
from textual.theme import Theme

from ..engine.errors import UserError
from . import own_files
from .palette import OWN, STYLE_NAMES, based_on

SCREEN = (
    "background", "surface", "panel", "foreground", "primary", "secondary", "accent", "warning",
    "error", "success",
)  # fmt: skip
_SECTIONS = {"screen": SCREEN, "styles": STYLE_NAMES}


def folder() -> Path:
    return own_files.folder() / "themes"


def load_all() -> list[Theme]:
    """All that are in the folder. Raises `UserError` with one line about what is wrong in one."""
    return [load(file) for file in sorted(folder().glob("*.toml"))]


def load(file: Path) -> Theme:
    """The theme in ``file``, which is called as the file is. Raises `UserError`."""
    found = own_files.read(file)
    try:
        return _theme(file.stem, found)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def _theme(name: str, found: Mapping[str, Any]) -> Theme:
    ours = {own.name: own for own in OWN}
    base = ours.get(found.get("base", OWN[0].name))
    if base is None:
        raise UserError(f"base is {found['base']!r}; give one of {', '.join(ours)}")
    if name in ours:
        raise UserError(f"there is a theme {name} already; give the file another name")
    if other := next((key for key in found if key not in ("base", *_SECTIONS)), None):
        raise UserError(f"{other!r} is not known; there are base, [screen] and [styles]")
    colours, styles = (dict(_given(found, section)) for section in _SECTIONS)
    return replace(base, name=name, variables=based_on(base, styles), **colours)


def _given(found: Mapping[str, Any], section: str) -> Iterator[tuple[str, str]]:
    """What is in a section, each with a value that can be drawn."""
    given = found.get(section, {})
    if not isinstance(given, dict):
        raise UserError(f"{section} is {given!r}; write [{section}], then a line a colour")
    for key, value in given.items():
        if key not in _SECTIONS[section]:
            known = ", ".join(_SECTIONS[section])
            raise UserError(f"there is no {key!r} in [{section}]; there are {known}")
        try:
            if section == "screen":
                Color.parse(value)
            else:
                Style.parse(value)
        except (ColorParseError, StyleSyntaxError, AttributeError, TypeError):
            raise UserError(f'{key} is {value!r}; give a colour, as in "#00ff00"') from None
        yield key, value


def lines() -> list[str]:
    """What `minisgl-tui themes` prints."""
    mine = load_all()
    rows = [f"your own themes go into {folder()}, a file each: mine.toml, for example:", ""]
    rows += ['base = "dark"', "[screen]", 'background = "#000000"']
    rows += ["[styles]", 'decode = "bold #00ff00"', ""]
    rows += [f"[{section}] takes {', '.join(names)}" for section, names in _SECTIONS.items()]
    return [*rows, "", f"there are: {', '.join(theme.name for theme in (*OWN, *mine))}"]
