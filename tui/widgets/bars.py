"""The one-line widgets around the panes: status, tabs, hint, failure and keys."""

from collections.abc import Callable

from textual import events

from ..text import Line, Links, cell_len, plain
from .lines import LineWidget, Row

Lines = Callable[[int], list[Line]]


class Bar(LineWidget):
    """Shows what ``lines(width)`` returns, as many lines as the style sheet gives it."""

    def __init__(self, lines: Lines, id: str) -> None:
        super().__init__(id=id)
        self._lines = lines

    def rows(self, width: int, height: int) -> list[Row]:
        lines = self._lines(width)[:height]
        lines += [[]] * (height - len(lines))
        return [tuple((text, style, "") for text, style in line) for line in lines]


class LinkBar(Bar):
    """A bar of words that can be clicked. ``links`` gives (words, action) in reading order."""

    def __init__(self, links: Callable[[int], Links], id: str, gap: str = "  ") -> None:
        super().__init__(self._one_line, id)
        self._links = links
        self._gap = gap

    def _one_line(self, width: int) -> list[Line]:
        line: Line = [(" ", "text")]
        for words, _ in self._links(width):
            line += [*words, (self._gap, "text")]
        return [line]

    async def on_click(self, event: events.Click) -> None:
        x = 1
        for words, action in self._links(self.content_size.width):
            end = x + cell_len(plain(words))
            if x <= event.x < end:
                await self.screen.run_action(action)
                return
            x = end + len(self._gap)
