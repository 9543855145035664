"""`Pane`: a window onto a `View`, drawn line by line.

The pane owns cursor, scroll position and marks; what the lines say is the view's business. It
formats the visible lines only, and repaints those that differ from what is on the screen.
"""

from typing import Any, Self

from textual import events
from textual.content import Content
from textual.geometry import Region
from textual.message import Message

from ..selection import Target
from ..store import Store
from ..text import cell_len, plain
from ..views.base import View
from ..views.blocks import BlocksView
from .lines import LineWidget, Row

SEARCH = 0.03  # seconds until a view that is busy gets its next turn


class Pane(LineWidget, can_focus=True):
    """A scrolling view with a cursor. ``number`` is its key, or 0 for a strip without one."""

    class Chosen(Message):
        """Something was clicked, to be selected."""

        def __init__(self, pane: "Pane", target: Target) -> None:
            super().__init__()
            self.pane = pane
            self.target = target

    class Clicked(Message):
        """The pane was clicked anywhere, which makes it the active one."""

        def __init__(self, pane: "Pane") -> None:
            super().__init__()
            self.pane = pane

    class Sized(Message):
        """A pane has come to its size, and only now shows what it is there for."""

    _subtitle = ""
    _sets_subtitle = False  # just now

    def __init__(self, view: View, store: Store, number: int = 0, id: str | None = None) -> None:
        super().__init__(id=id, classes="pane")
        self.view = view
        self.store = store
        self.number = number
        self.cursor = 0
        self.top = 0
        self._anchor: object = None
        self._body = 1
        self._first = 0  # the first item that is no heading
        self._reveal = False
        self._waits = False  # a timer is set, to go on with what takes long
        self._meant = False  # the user has moved the cursor to where it is, not just to the top
        self.pointed = False  # the user has moved the cursor since the last selection
        self.can_focus = bool(number)
        if number:
            self.border_title = f"{number} {view.name}"

    def show(self, view: View) -> None:
        """Look at ``view`` from now on."""
        self.view = view
        self.top = self.cursor = 0
        self._meant = self.pointed = False
        if self.number:
            self.border_title = f"{self.number} {view.name}"

    # --- drawing ---------------------------------------------------------------------------------

    def on_resize(self) -> None:  # beside that of `LineWidget`, which Textual calls too
        self.post_message(self.Sized())

    def rows(self, width: int, height: int) -> list[Row]:
        view = self.view
        view.cursor = self.cursor
        inner = width - 1 - view.gutter  # the last column is the scroll bar's
        view.update(self.store, inner, height)
        self._keep_cursor()
        header, footer = view.header, view.footer
        self._body = max(1, height - len(header) - len(footer))
        if self._reveal:
            self._scroll_to_links()
        self.top = max(0, min(self.top, view.body_lines - self._body))
        blank = " " * view.gutter
        rows: list[Row] = [((blank, "text", ""), *((t, s, "") for t, s in ln)) for ln in header]
        bar = self._scroll_bar(view.body_lines)
        for y in range(self._body):
            row = self._body_row(self.top + y)
            rows.append(self._with_bar(row, bar[y], width - 1) if bar else row)
        rows += [((blank, "text", ""), *((t, s, "") for t, s in ln)) for ln in footer]
        if self.number and view.subtitle != self._subtitle:
            self._set_subtitle(view.subtitle)
        if view.busy and not self._waits:
            self._waits = True
            self.set_timer(SEARCH, self._go_on)
        return rows[:height]

    def _set_subtitle(self, text: str) -> None:
        self._subtitle, self._sets_subtitle = text, True
        self.border_subtitle = Content(text)
        self._sets_subtitle = False

    def refresh(self, *regions: Region, **what: Any) -> Self:
        if self._sets_subtitle:  # Textual would have all of the pane painted anew for it
            if not self.styles.gutter.bottom:
                return self
            height, gutter = self.content_size.height, self.styles.gutter
            regions = (Region(-gutter.left, height, self.outer_size.width, 1),)
        return super().refresh(*regions, **what)

    def _go_on(self) -> None:
        self._waits = False
        self.sync()

    def _body_row(self, i: int) -> Row:
        view = self.view
        if i >= view.body_lines:
            return ()
        focused = self.has_focus
        if isinstance(view, BlocksView):
            return tuple(view.grounds(i, self.cursor if focused else -1))
        key = view.target(i)
        here = focused and i == self.cursor
        marked = key if view.marks else None
        linked = marked is not None and self.store.links.has(marked)
        mark = "◆" if marked and marked == self.store.selected else "◇" if linked else " "
        ground = "cursor" if here else "linked" if linked else ""
        lead = ("▸" if here else " ") + mark
        return ((lead, "accent", ground), *((t, s, ground) for t, s in view.line(i)))

    def _scroll_bar(self, lines: int) -> str:
        body = self._body
        if lines <= body:
            return ""
        size = max(1, body * body // lines)
        start = (body - size) * self.top // max(1, lines - body)
        return "".join("┃" if start <= y < start + size else "│" for y in range(body))

    def _with_bar(self, row: Row, glyph: str, width: int) -> Row:
        used = sum(cell_len(text) for text, _, _ in row)
        style = "dim" if glyph == "┃" else "faint"
        ground = row[-1][2] if row and row[-1][2] in ("cursor", "linked") else ""
        return (*row, (" " * max(0, width - used), "text", ground), (glyph, style, ""))

    # --- the cursor ------------------------------------------------------------------------------

    @property
    def target(self) -> Target | None:
        """What the cursor is on."""
        return self.view.target(self.cursor)

    @property
    def line_text(self) -> str:
        """What is shown about the thing under the cursor, as text."""
        view = self.view
        if view.per_line > 1:
            return " ".join(plain(line).strip() for line in view.footer if line)
        return plain(view.line(self.cursor)).strip() if self.cursor < view.items else ""

    def _keep_cursor(self) -> None:
        """Stay on the same thing when the lines move under the cursor; but at the very top, stay
        at the top, unless the user has put the cursor on what is there."""
        view = self.view
        at_top = self.top == 0 and self.cursor == self._first
        anchor = self._anchor
        meant = self._meant or (anchor is not None and anchor == self.store.selected)
        if meant and not view.newest_first:
            at_top = False
        self._first = self._off_heading(0, 1)
        if at_top:
            self.cursor = self._first
        elif anchor is not None and view.anchor(self.cursor) != anchor:
            item = view.find(anchor)
            if item is not None:
                if self.top:
                    self.top += item - self.cursor
                else:
                    self.top = max(0, item // view.per_line - self._body + 1)
                self.cursor = item
        self.cursor = self._off_heading(max(0, min(self.cursor, view.items - 1)), 1)
        self._anchor = view.anchor(self.cursor)

    def move(self, dx: int, dy: int) -> None:
        """Move the cursor by cells and lines."""
        self._meant = True
        self.go(self.cursor + dx + dy * self.view.per_line, stay_in_column=bool(dy))

    def sideways(self, by: int) -> None:
        """Left or right, which means something else in every view."""
        self._meant = True
        self.go(self.view.sideways(self.cursor, by))

    def scale(self, by: int) -> None:
        """Look closer or from farther away, the cursor staying on the same thing."""
        self._meant = True
        self.cursor = self.view.scale(self.cursor, by)
        self._rows = []  # nothing is where it was
        self.refresh()
        self.sync()
        self.go(self.cursor)

    def to_top(self) -> None:
        self._meant = False
        self.go(0)

    def half_page(self, direction: int) -> None:
        self._meant = True
        step = max(1, self._body // 2) * self.view.per_line
        self.go(self.cursor + direction * step, stay_in_column=True)

    def go(self, item: int, stay_in_column: bool = False) -> None:
        """Put the cursor on ``item`` and scroll until it shows."""
        last = self.view.items - 1
        per_line = self.view.per_line
        if stay_in_column and per_line > 1:
            if item < 0:
                item = self.cursor % per_line
            while item > last and item - per_line >= 0:
                item -= per_line
        item = max(0, min(item, last))
        self.cursor = self._off_heading(item, 1 if item >= self.cursor else -1)
        self._anchor = self.view.anchor(self.cursor)
        line = self.cursor // per_line
        self.top = max(line - self._body + 1, min(self.top, line))
        if self.cursor <= self._off_heading(0, 1):
            self.top = 0
        self.sync()

    def _off_heading(self, item: int, direction: int) -> int:
        """``item``, or where it is a heading the next line in ``direction`` that is none."""
        for way in (direction, -direction):
            at = item
            while 0 <= at < self.view.items:
                if self.view.rests(at):
                    return at
                at += way
        return max(0, item)

    def reveal(self) -> None:
        """When next drawn, scroll until something linked to the selection shows; the cursor stays,
        but where the selection itself has a line it goes there."""
        self._reveal = True

    def _scroll_to_links(self) -> None:
        self._reveal = False
        item = self.view.first_linked(self.store.links)
        if item is None:
            return
        if self.view.target(item) == self.store.selected:
            self.cursor, self._anchor = item, self.view.anchor(item)
        line = item // self.view.per_line
        if not self.top <= line < self.top + self._body:
            self.top = max(0, line - self._body // 3)

    def on_focus(self) -> None:
        self.sync()

    def on_blur(self) -> None:
        self.sync()

    # --- the mouse -------------------------------------------------------------------------------

    def on_click(self, event: events.Click) -> None:
        self.post_message(self.Clicked(self))
        at = event.get_content_offset(self)
        if at is None:
            return
        body_line = at.y - len(self.view.header) + self.top
        if not 0 <= at.y - len(self.view.header) < self._body or body_line >= self.view.body_lines:
            return
        item = self.view.item_at(body_line, at.x)
        if 0 <= item < self.view.items:
            self._meant = True
            self.go(item)
            if self.target is not None:
                self.post_message(self.Chosen(self, self.target))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.top += 3
        self.sync()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.top = max(0, self.top - 3)
        self.sync()
