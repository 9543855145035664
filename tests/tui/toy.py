"""A toy model for the screens: words as tokens, canned answers, a pool small enough to run out."""

import codecs
import re
from collections.abc import Callable, Sequence

from minisgl_tui.engine.config import EngineConfig
from minisgl_tui.engine.debugger import Arrival
from minisgl_tui.engine.engine import Engine
from minisgl_tui.engine.fork import Spelling
from minisgl_tui.engine.plan import Row
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.simulate import SimulatedRunner
from minisgl_tui.engine.trace import Piece
from minisgl_tui.tui.sources.base import ModelInfo
from minisgl_tui.tui.sources.local import LocalSource, ReportProgress, Session

SYSTEM = "You are a careful guide to inference engines. Answer in one short paragraph, please. "
ANSWER = (
    "A radix tree keeps the prefixes that requests have in common.\nEvery node holds a run of "
    "tokens and the blocks with their keys and values, so what two prompts share is computed once. "
)
QUESTIONS = (
    "What is a radix tree?",
    "What is a block table?",
    "Why are long prompts cut into chunks, and what would happen to the others if they were not?",
    "What is preemption?",
)


class Pieces:
    """A detokenizer that adds ``decode`` of each token, or of a character's bytes once complete."""

    def __init__(self, to_bytes: Callable[[int], bytes]) -> None:
        self._to_bytes = to_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")()

    def feed(self, *tokens: int) -> str:
        return "".join(self._utf8.decode(self._to_bytes(token)) for token in tokens)


class WordCodec:
    """One token a word with the blank before it; ids are given out as words come up."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self._ids: dict[str, int] = {}

    def encode(self, text: str) -> list[int]:
        ids = []
        for word in re.findall(r"\s?\w+|\W", text):
            if word not in self._ids:
                self._ids[word] = len(self.words)
                self.words.append(word)
            ids.append(self._ids[word])
        return ids

    def encode_chat(self, text: str, system: str | None = None) -> list[int]:
        return self.encode((SYSTEM if system is None else system) + text)

    def chat_frame(self) -> tuple[str, str]:
        return SYSTEM, ""

    def spelling(self) -> Spelling:
        pieces = {token: Piece(word, word.encode()) for token, word in enumerate(self.words)}
        return Spelling(pieces, self.encode)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.words[i] for i in ids)

    def detokenizer(self, prompt: Sequence[int]) -> Pieces:
        return Pieces(lambda token: self.words[token].encode())

    def token(self, token_id: int) -> str:
        return self.words[token_id]


class ByteCodec:
    """One token a byte: characters beyond ASCII come in pieces."""

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode(errors="replace")

    def detokenizer(self, prompt: Sequence[int]) -> Pieces:
        return Pieces(lambda token: bytes([token]))

    def token(self, token_id: int) -> str:
        return self.decode([token_id])

    def encode_chat(self, text: str, system: str | None = None) -> list[int]:
        return list(text.encode())

    def chat_frame(self) -> tuple[str, str]:
        return "", ""

    def spelling(self) -> Spelling:
        return Spelling({byte: Piece(chr(byte), bytes([byte])) for byte in range(256)})


CONFIG = EngineConfig(block_size=4, num_blocks=24, max_batch_tokens=20, max_model_len=256)
ROOMY = EngineConfig(block_size=4, num_blocks=200, max_batch_tokens=20, max_model_len=256)
INFO = ModelInfo("toy-135m", "llama", "float32", "cpu")


def make_session(config: EngineConfig = CONFIG) -> Session:
    """An engine over the simulated runner that answers with `ANSWER`, word by word."""
    codec = WordCodec()
    answer = codec.encode(ANSWER)

    def next_token(row: Row) -> int:
        return answer[(row.end - row.request.prompt_len) % len(answer)]

    runner = SimulatedRunner(config.num_blocks, config.block_size, next_token)
    return Session(Engine(config, runner, runner.clock), codec, INFO)


def make_source(
    config: EngineConfig = CONFIG,
    questions: Sequence[str] = QUESTIONS,
    prepare: Callable[[Session], None] = lambda session: None,
    tokens: int = 24,
) -> LocalSource:
    """A source that opens `make_session` and asks ``questions``."""

    params = SamplingParams(temperature=0, max_tokens=tokens)

    def open_session(progress: ReportProgress) -> Session:
        progress("loading the toy", 0.5)
        session = make_session(config)
        prepare(session)
        session.arrivals = [Arrival(0, session.codec.encode_chat(q), params) for q in questions]
        return session

    return LocalSource(open_session, params)
