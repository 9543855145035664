"""Is there a terminal to draw on? Asked before anything slow begins."""

import shutil
import sys

from ..engine.errors import UserError
from .screens.layout import SMALLEST


def check_terminal(command: str) -> None:
    """Raise `UserError` if ``command`` has no terminal to draw on, or one that is too small."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError(f"{command} draws on a terminal, and this is none; start it in one")
    width, height = shutil.get_terminal_size()
    least_width, least_height = SMALLEST
    if width < least_width or height < least_height:
        raise UserError(
            f"the terminal is {width}×{height}; minisgl-tui needs {least_width}×{least_height}: "
            "enlarge it"
        )
