"""From a model and a workload to a running session: what `LocalSource` opens in its thread.

The only part of the screens that knows there is a model; it imports torch when it is called.
"""

import gc
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from ..engine.debugger import Arrival
from ..engine.engine import Engine
from ..engine.errors import RequestRefused, UserError
from ..engine.fork import Spelling
from ..engine.workload import Workload, WorkloadRequest
from .sources.base import ModelInfo
from .sources.local import OpenSession, ReportProgress, Session

if TYPE_CHECKING:
    from ..engine.tokenizer import Detokenizer, Tokenizer


class ModelCodec:
    """The model's tokenizer as the screens want it; ``system`` goes before typed prompts too, so
    that they share its blocks."""

    def __init__(self, tokenizer: "Tokenizer", system: str | None) -> None:
        self.tokenizer = tokenizer
        self.system = system

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids)

    def detokenizer(self, prompt: Sequence[int]) -> "Detokenizer":
        return self.tokenizer.detokenizer(prompt)

    def token(self, token_id: int) -> str:
        return self.tokenizer.token_text(token_id)

    def chat_frame(self) -> tuple[str, str]:
        if self.system and not self.tokenizer.has_chat_template:
            return f"{self.system}\n\n", ""
        return self.tokenizer.chat_frame()

    def spelling(self) -> Spelling:
        """Takes some tenths of a second. Raises `UserError` if tokens are no runs of bytes."""
        tokenizer = self.tokenizer
        if not tokenizer.has_token_bytes:
            raise UserError("this tokenizer does not spell its tokens, so no text can be replaced")
        pieces = {token: tokenizer.piece(token) for token in range(tokenizer.vocab_size)}
        return Spelling(pieces, tokenizer.encode_within)

    def encode_chat(self, text: str, system: str | None = None) -> list[int]:
        """A chat turn where the model has a template, plain text where it has none."""
        system = self.system if system is None else system
        if not self.tokenizer.has_chat_template:
            return self.tokenizer.encode(f"{system}\n\n{text}" if system else text)
        messages = [{"role": "system", "content": system}] if system else []
        return self.tokenizer.apply_chat([*messages, {"role": "user", "content": text}])

    def encode(self, request: WorkloadRequest) -> list[int]:
        if request.tokens is not None:
            return request.tokens
        if request.prompt is not None:
            return self.tokenizer.encode(request.prompt)
        return self.encode_chat(request.user or "", request.system)


def model_session(
    model: str, workload: Workload, settings: dict[str, Any], logprobs: int | None = None
) -> OpenSession:
    """Loads ``model`` with the engine ``settings`` (as `LLM` names them).

    The workload's requests record ``logprobs`` as `SamplingParams` has them.
    """

    def open_session(progress: ReportProgress) -> Session:
        progress("starting PyTorch", None)
        # Its threads would spin while they wait for each other. Beside a screen that wants a core,
        # or any other work, a step then takes many times as long; asleep they cost a little.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        from ..engine.llm import LLM

        llm = LLM(model, progress=progress, **settings)
        if llm.tokenizer is None:
            raise UserError(f"{model} has no tokenizer, so the screens could show no text")
        codec = ModelCodec(llm.tokenizer, workload.system)
        arrivals = _encode_all(workload, codec, llm.engine, logprobs)
        # What a model leaves behind in objects lives as long as the program: a full collection
        # that walks it again and again would be seen as a stutter.
        gc.collect()
        gc.freeze()
        made = llm.model_info
        info = ModelInfo(made.name, made.architecture, made.dtype, made.device)
        return Session(llm.engine, codec, info, arrivals, llm.tokenizer, str(made.path))

    return open_session


def _encode_all(
    workload: Workload, codec: ModelCodec, engine: Engine, logprobs: int | None
) -> list[Arrival]:
    """The workload's requests as token ids. Raises `UserError` if one of them can never run."""
    arrivals: list[Arrival] = []
    for number, request in enumerate(workload.expanded(), start=1):
        prompt = codec.encode(request)
        params = replace(request.params(), logprobs=logprobs)
        try:
            engine.check(prompt, params)
        except RequestRefused as error:
            raise UserError(f"request {number}: {error}") from error
        arrivals.append(Arrival(request.at_step, prompt, params, request.priority))
    return arrivals
