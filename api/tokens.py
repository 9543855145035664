"""``POST /tokenize``, ``/detokenize`` and ``GET /tokenizer_info``, as vLLM has them."""

from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ..engine.errors import RequestRefused
from .chat import apply_template
from .errors import bad_request, refused
from .fields import check_ids
from .protocol import ChatRequest, DetokenizeRequest, Text, TokenizeRequest, TokenizerInfo, Tokens
from .replies import json_reply
from .serving import Serving
from .tools import read_tools

_ABOUT_TEMPLATE = ("chat_template_kwargs", "add_generation_prompt", "continue_final_message")
_ABOUT_CHAT = (*_ABOUT_TEMPLATE, "tools", "tool_choice")


async def tokenize(request: Request) -> Response:
    """The token ids of a text, or of a conversation through the chat template."""
    serving: Serving = request.app.state.serving
    asked = await serving.read(request, TokenizeRequest)
    if (asked.prompt is None) == (asked.messages is None):
        raise bad_request("give either prompt or messages", "prompt")
    tokens = await (_of_text if asked.messages is None else _of_chat)(serving, asked)
    reply = Tokens(tokens, len(tokens), serving.context)
    if asked.return_token_strs:
        reply.token_strs = [serving.tokenizer.token_spelling(token)[0] for token in tokens]
    return json_reply(reply)


async def _of_text(serving: Serving, asked: TokenizeRequest) -> list[int]:
    for name in _ABOUT_CHAT:
        if getattr(asked, name) is not None:
            raise bad_request(f"{name} needs messages; prompt has no template", name)
    text, special = asked.prompt or "", asked.add_special_tokens is not False
    encode = partial(serving.tokenizer.encode, text, special=special, most=serving.longest)
    try:
        tokens = await serving.encode(encode)
    except RequestRefused as error:
        raise refused(error, "prompt") from None
    serving.check_whole(tokens, "prompt")
    return tokens


async def _of_chat(serving: Serving, asked: TokenizeRequest) -> list[int]:
    if asked.add_special_tokens:
        raise bad_request(
            "add_special_tokens needs prompt: a chat template names its special tokens itself",
            "add_special_tokens",
        )
    about: dict[str, Any] = {name: getattr(asked, name) for name in _ABOUT_TEMPLATE}
    chat = ChatRequest(messages=asked.messages or [], **about)
    tools = read_tools(asked.tools, asked.tool_choice, None, serving.tools)
    return await apply_template(serving, chat, tools=tools, whole=True)


async def detokenize(request: Request) -> Response:
    """The text of token ids, without special tokens."""
    serving: Serving = request.app.state.serving
    asked = await serving.read(request, DetokenizeRequest)
    check_ids(asked.tokens, serving.vocab_size, "tokens")
    text = await serving.encode(lambda: serving.tokenizer.decode(asked.tokens))
    return json_reply(Text(text))


async def tokenizer_info(request: Request) -> Response:
    """What a client needs to make prompts of its own: special tokens and the chat template."""
    tokenizer = request.app.state.serving.tokenizer
    return json_reply(
        TokenizerInfo(
            tokenizer_class=tokenizer.kind,
            vocab_size=tokenizer.vocab_size,
            chat_template=tokenizer.chat_template,
            **tokenizer.named_tokens,
        )
    )
