"""Answers that are one JSON object."""

import msgspec
from starlette.responses import Response


def json_reply(value: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
