"""``POST /tokenize`` and ``/detokenize``, as vLLM has them."""

from starlette.requests import Request
from starlette.responses import Response

from ..engine.errors import RequestRefused
from .chat import apply_template
from .errors import bad_request, refused
from .fields import check_ids
from .protocol import ChatRequest, DetokenizeRequest, Text, TokenizeRequest, Tokens
from .replies import json_reply
from .serving import Serving


async def tokenize(request: Request) -> Response:
    serving: Serving = request.app.state.serving
    asked = await serving.read(request, TokenizeRequest)
    if (asked.prompt is None) == (asked.messages is None):
        raise bad_request("give either prompt or messages", "prompt")
    if asked.messages is not None:
        tokens = await apply_template(serving, ChatRequest(messages=asked.messages))
    else:
        text = asked.prompt or ""
        try:
            tokens = await serving.encode(lambda: serving.tokenizer.encode(text))
        except RequestRefused as error:
            raise refused(error, "prompt") from None
    return json_reply(Tokens(tokens, len(tokens), serving.context))


async def detokenize(request: Request) -> Response:
    serving: Serving = request.app.state.serving
    asked = await serving.read(request, DetokenizeRequest)
    check_ids(asked.tokens, serving.vocab_size, "tokens")
    text = await serving.encode(lambda: serving.tokenizer.decode(asked.tokens))
    return json_reply(Text(text))
