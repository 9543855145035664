"""Reading a JSON object's values with their type and range checked. No torch.

Everything refused is named with its file and field, on one line.
"""

import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError


class Unsupported(UserError):
    """A sound config that asks for something the native decoder does not compute."""


# Far above any model, and so low that no product of two or three sizes overflows 64 bits.
MOST, MOST_HEADS, MOST_LAYERS, MOST_TOKENS = 10**7, 10**5, 10**5, 10**9
MOST_EXPERTS = 10**4


@dataclass(frozen=True, slots=True)
class Fields:
    """The values of a config object, read with their type and range checked."""

    values: dict[str, Any]
    source: Path

    def size(self, name: str, default: int | None = None, *, low: int = 1, high: int = MOST) -> int:
        """Integer ``name``; null counts as not given, as checkpoints write it so."""
        value = self.values.get(name)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            kind = "positive integer" if low == 1 else f"integer of {low} or more"
            raise UserError(
                f"{self.source}: {name} is {shown(value)}; it must be a {kind} (at most {high})"
            )
        return value

    def number(self, name: str, low: float, high: float, default: float | None = None) -> float:
        """Number ``name``, from ``low`` to ``high``; so NaN and infinity are refused."""
        value = self.values.get(name, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:
            raise UserError(
                f"{self.source}: {name} is {shown(value)}; it must be a number from {low:g} "
                f"to {high:g}"
            )
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false ``name``; null counts as not given."""
        value = self.values.get(name)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise UserError(f"{self.source}: {name} is {shown(value)}; it must be true or false")
        return value


def shown(value: object) -> str:
    """``value`` for an error: short and on one line, whatever it is."""
    return " ".join(_SHORT.repr(value).split())


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
