"""What the routes share: the model's name and tokenizer, the engine's thread, and the limits."""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.requests import Request

from ..engine.sampling import SamplingParams
from ..engine.tokenizer import Tokenizer
from .access import note
from .connection import read_body
from .control import Controls
from .engine_thread import EngineThread
from .errors import ApiError, bad_request, no_such_model
from .feed import Feed
from .fields import R, decode
from .protocol import GenerateRequest
from .tool_template import tool_template

T = TypeVar("T")

MAX_BODY = 16 << 20  # bytes
LARGE_BODY = 1 << 18  # bytes that take the event loop a millisecond or more
READ_TOKENS = 1 << 17  # of one text, where it may be longer than the context


@dataclass
class Serving:
    """One model, as its clients see it. ``model`` is the name they ask for, ``cors`` the origins of
    the web pages that may, ``tool_parser`` what reads the model's calls."""

    model: str
    tokenizer: Tokenizer
    defaults: SamplingParams
    thread: EngineThread
    api_key: str | None = None
    cors: tuple[str, ...] = ()
    max_body: int = MAX_BODY
    tool_parser: str = "auto"
    feed: Feed | None = None  # for viewers, with --debug
    controls: Controls | None = None  # and with --debug-control
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        # One thread: long texts are tokenized in turn and out of the event loop's way.
        self._encoder = ThreadPoolExecutor(1, "tokenizer")
        self.tools = tool_template(self.tokenizer, self.tool_parser)

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together that a request may have."""
        config = self.thread.engine.config
        return min(config.max_model_len, config.capacity)

    @property
    def longest(self) -> int:
        """Tokens that a text may have which is only counted, or of which only the end is used."""
        return max(self.context, READ_TOKENS)

    def check_whole(self, tokens: list[int], param: str) -> None:
        """400 for more tokens than `longest`: there may have been more text."""
        if len(tokens) > self.longest:
            raise bad_request(
                f"the {param} has more than {self.longest} tokens, as many as are read at a time; "
                "send less",
                param,
            )

    @property
    def vocab_size(self) -> int:
        return self.thread.engine.config.vocab_size

    def markers(self, asked: GenerateRequest) -> Mapping[int, str]:
        """The special tokens that ``asked`` wants to see in texts."""
        return self.tokenizer.special_texts if asked.skip_special_tokens is False else {}

    async def encode(self, work: Callable[[], T]) -> T:
        """``work`` with the tokenizer, outside of the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._encoder, work)

    async def read(self, request: Request, kind: type[R]) -> R:
        """The request's body as a ``kind``, for the model that is served."""
        body = await read_body(request.scope, request.receive, self.max_body)
        if len(body) > LARGE_BODY:
            asked, unknown = await self.encode(lambda: decode(body, kind))
        else:
            asked, unknown = decode(body, kind)
        if unknown:
            note(request.scope, ignored=" ".join(ascii(name[:40])[1:-1] for name in unknown[:8]))
        name = getattr(asked, "model", None)
        if name is not None and name != self.model:
            raise no_such_model(name, self.model)
        return asked

    def room(self, prompt: list[int], asked: int | None, default: int | None, param: str) -> int:
        """How many tokens may follow ``prompt``: as many as asked for, or 400 if that is too many;
        ``default``, or all there is room for, where nothing was."""
        left = self.context - len(prompt)
        if left < max(1, asked or 0):
            raise self._too_long(len(prompt), asked or 0, param)
        return min(left, left if default is None else default) if asked is None else asked

    def _too_long(self, prompt: int, asked: int, param: str) -> ApiError:
        code = "context_length_exceeded"  # in the text too: LangChain looks for it there
        least = "at least " if prompt > self.context else ""  # its rest need not have been read
        wanted = f"{prompt + asked} tokens ({prompt} in the {param}, {asked} in the completion)"
        return bad_request(
            f"This model's maximum context length is {self.context} tokens. However, you requested "
            f"{least}{wanted}. Please reduce the length of the {param} or completion ({code}).",
            param,
            code,
        )
