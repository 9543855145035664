"""Tracebacks go to a file whose name is shown; the screen gets one line."""

import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path

import platformdirs


def write_log(error: BaseException) -> str:
    """Write the traceback of ``error`` to the user's log directory; returns the path.

    If that directory cannot be written to, a temporary file will do.
    """
    now = datetime.now(UTC)
    text = f"{now:%Y-%m-%d %H:%M:%S} UTC\n" + "".join(traceback.format_exception(error))
    name = f"crash-{now:%Y%m%d-%H%M%S-%f}.log"
    for folder in (platformdirs.user_log_dir("minisgl-tui"), tempfile.gettempdir()):
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            path = Path(folder) / name
            path.write_text(text, encoding="utf-8")
        except OSError:
            continue
        return str(path)
    return "(no log: neither the log directory nor the temporary one can be written to)"
