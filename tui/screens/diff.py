"""The overlay that shows what differs between two positions."""

from ..text import Line
from .help import HelpScreen


class DiffScreen(HelpScreen):
    """Scrolls and closes as the help does."""

    def __init__(self, title: str, lines: list[Line]) -> None:
        super().__init__()
        self.title = title
        self._differences = lines

    def lines(self) -> list[Line]:
        return self._differences or [[("nothing differs", "dim")]]
