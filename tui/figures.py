"""Times as figures, and series of numbers as sparklines."""

from collections.abc import Sequence
from math import isnan

BARS = " ▁▂▃▄▅▆▇█"


def span(seconds: float) -> str:
    """
    >>> span(9.96), span(75), span(7300)
    ('10.0 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left} min"
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def duration(seconds: float) -> str:
    """
    >>> duration(0.00042), duration(0.0315), duration(12.3456)
    ('0.42 ms', '31.5 ms', '12.3 s')
    """
    if isnan(seconds):
        return "–"
    if seconds < 1:
        ms = seconds * 1e3
        return f"{ms:.2f} ms" if ms < 10 else f"{ms:.1f} ms" if ms < 100 else f"{ms:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 1000 else f"{seconds:.0f} s"


def sparkline(values: Sequence[float], most: float = 0) -> str:
    """One cell a value, as high as it is beside the largest, or beside ``most``.

    Nothing, and -1 where there is no value, are blanks; what is not zero is never drawn as if it
    were.

    >>> sparkline([0, 1, 2, 4, 8])
    ' ▁▂▄█'
    """
    top = max(most, max(values, default=0))
    if top <= 0:
        return " " * len(values)
    return "".join(
        " " if value <= 0 else BARS[max(1, min(8, round(8 * value / top)))] for value in values
    )
