"""What everybody needs who asks a server over HTTP: its address, the key, and what errors say."""

import json
from urllib.parse import urlsplit

from .errors import UserError

_SHOWN = 160  # characters of a server's answer in an error


def base_url(url: str, what: str) -> str:
    """``url`` without a path; UserError, which calls it ``what``, where it is none."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number
        good = False
    if not good:
        raise UserError(f"{what} is {url!r}; give http://HOST:PORT")
    return url.rstrip("/").removesuffix("/v1")


def bearer(api_key: str | None) -> dict[str, str]:
    """The header that brings ``api_key``, where there is one; UserError where none can hold it."""
    if not api_key:
        return {}
    if not (api_key.isascii() and api_key.isprintable()):
        raise UserError(
            "the API key has characters other than printable ASCII, which no header can hold; "
            "use a key without them"
        )
    return {"Authorization": f"Bearer {api_key}"}


def error_message(body: bytes) -> str:
    """What an error body says: OpenAI's ``error.message``, FastAPI's ``detail``, or its text."""
    text = body.decode(errors="replace")
    try:
        data = json.loads(text)
        found = data.get("error") or data.get("message") or data.get("detail") or data
        text = str(found["message"] if isinstance(found, dict) and "message" in found else found)
    except (ValueError, AttributeError, RecursionError):
        pass
    return shortened(text)


def shortened(text: str) -> str:
    """The beginning of ``text`` on one line."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"
