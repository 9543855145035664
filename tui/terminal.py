"""Is there a terminal to draw on? Asked before anything slow begins."""

import shutil
import sys

from ..engine.errors import UserError
from .screens.layout import SMALLEST


def check_terminal(command: str) -> None:
    """Raise `UserError` if ``command`` has no terminal to draw on, or one that is too small."""
    names = ("stdin", "stdout", "stderr")  # the last is what Textual draws on
    others = [name for name in names if not getattr(sys, name).isatty()]
    if others:
        raise UserError(
            f"{command} draws on a terminal, and {others[0]} is none; start it in one, with "
            "nothing redirected"
        )
    width, height = shutil.get_terminal_size()
    least_width, least_height = SMALLEST
    if width < least_width or height < least_height:
        raise UserError(
            f"the terminal is {width}×{height}; minisgl-tui needs {least_width}×{least_height}: "
            "enlarge it"
        )
