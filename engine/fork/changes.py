"""What is different in a fork: engine settings, and texts in prompts."""

from collections.abc import Iterable
from typing import Any

import msgspec

from ..config import EngineConfig
from ..errors import UserError
from ..policies import BY_SETTING, make_policies


class Changes(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Settings as `EngineConfig` names them; None leaves one as it was.

    ``replace`` holds pairs of a regular expression and the text that stands in its place, in every
    prompt that nothing has been computed of at the fork.
    """

    num_blocks: int | None = None
    max_batch_tokens: int | None = None
    max_running_requests: int | None = None
    schedule_policy: str | None = None
    admission_policy: str | None = None
    preemption_policy: str | None = None
    eviction_policy: str | None = None
    replace: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, words: Iterable[str]) -> "Changes":
        """From ``num_blocks=256`` and the like. Raises `UserError` for what is no such setting."""
        given: dict[str, str] = {}
        for word in words:
            name, equals, value = word.partition("=")
            name = name.replace("-", "_")
            if name not in SETTINGS or not equals or not value:
                raise UserError(
                    f"{word!r} is no change that a fork can make; give NAME=VALUE with one of "
                    f"{', '.join(SETTINGS)}"
                )
            given[name] = value
        try:
            return msgspec.convert(given, cls, strict=False)
        except msgspec.ValidationError:
            name = next(n for n in given if n in NUMBERS and not given[n].isdecimal())
            raise UserError(f"{name} is {given[name]!r}; it must be a whole number") from None

    @property
    def settings(self) -> dict[str, Any]:
        """The engine settings that are given, by name."""
        given = {name: getattr(self, name) for name in SETTINGS}
        return {name: value for name, value in given.items() if value is not None}

    def and_also(self, other: "Changes") -> "Changes":
        """Both; where both change the same, ``other`` wins."""
        return msgspec.structs.replace(
            self, **other.settings, replace=(*self.replace, *other.replace)
        )

    def apply(self, config: EngineConfig) -> EngineConfig:
        """``config`` with the changes. Raises `UserError` for a value that cannot be, and for a
        policy that only the recording names: a file is not to say which code is run."""
        for name in BY_SETTING:
            if ":" in getattr(config, name) and name not in self.settings:
                raise UserError(
                    f"the recorded run had {name} {getattr(config, name)}, which is not in the "
                    f"recording; give --{name.replace('_', '-')}, that one again or another"
                )
        changed = msgspec.structs.replace(config, **self.settings)
        make_policies(changed)
        return changed

    def plain(self) -> dict[str, Any]:
        """As it is written to the header of a recording."""
        return msgspec.to_builtins(self)

    def __str__(self) -> str:
        told = [f"{name}={value}" for name, value in self.settings.items()]
        told += [f"“{pattern}” → “{text}”" for pattern, text in self.replace]
        return " ".join(told) or "nothing changed"


NUMBERS = ("num_blocks", "max_batch_tokens", "max_running_requests")
SETTINGS = (*NUMBERS, *BY_SETTING)
