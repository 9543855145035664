"""Errors a person can act on.

Every message is one line that says what was given, what was expected and what to do. The command
line prints it and exits with 2; the screens show it in a panel. Anything else that escapes is a
bug.
"""


class UserError(Exception):
    """Bad input or an unusable environment; ``str(error)`` is the whole story, on one line.

    Names from files may hold anything: what cannot be printed is escaped, so that no checkpoint
    writes to the terminal.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_printable(message))


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class RequestRefused(UserError):
    """A request that can never run here: too long for the pool or the context, or malformed."""
