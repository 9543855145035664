"""Text in and out: encoding, chat templates, and turning tokens into text as they come.

Wraps the checkpoint's own tokenizer through transformers, which is imported only when a Tokenizer
is made; nothing here ever runs code from a checkpoint.
"""

import codecs
import json
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache, cached_property
from inspect import signature
from pathlib import Path
from typing import Any

from .errors import RequestRefused, UserError
from .generation_config import eos_token_ids
from .models.files import read_json
from .trace import Piece

Message = dict[str, Any]
"""One turn of a chat: ``{"role": "user", "content": "..."}``, as chat templates know it.

An assistant's may have ``tool_calls``, with their arguments as an object; a ``tool``'s answers one.
"""


def has_tokenizer(directory: Path) -> bool:
    """Whether texts can be had; random weights made for measuring often come without."""
    names = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")
    return any((directory / name).exists() for name in names)


class Tokenizer:
    """The tokenizer in a model directory.

    ``eos_ids`` are the checkpoint's end-of-sequence ids, from all three places that may name some.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            # A local path and local files only: loading never asks the network anything.
            self._hf: Any = _loader(directory).from_pretrained(
                directory, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # whatever a broken tokenizer file makes the library raise
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(
                f"{directory} has no usable tokenizer ({reason}); a model directory needs "
                "tokenizer.json, or use token ids alone"
            ) from error
        own = self._hf.eos_token_id
        eos = dict.fromkeys(eos_token_ids(directory))
        if isinstance(own, int):
            eos[own] = None
        self.eos_ids: tuple[int, ...] = tuple(eos)
        self._scheme, self._drops_first_space = _byte_scheme(self._hf)
        added = self._hf.added_tokens_decoder.items()
        self._special = frozenset(token for token, entry in added if entry.special)
        self._bytes: dict[int, bytes] = {}

    def encode(self, text: str, *, special: bool = True, most: int | None = None) -> list[int]:
        """Token ids of ``text``, with the special tokens the model expects in front.

        Where they are more than ``most`` anyway, those of its beginning do, more than ``most``
        still: of a book only the first pages are read. Raises RequestRefused for half a surrogate
        pair, which Python allows and UTF-8 does not.
        """
        return self._encode(text, special, most)

    def _encode(self, text: str, special: bool, most: int | None) -> list[int]:
        _check_text(text)
        if most is not None:
            length = _CHARACTERS * (most + 1)
            while length < len(text):
                ids = self._hf.encode(text[:length], add_special_tokens=special)
                if len(ids) > most + most // 4 + _CUT:
                    return ids
                length *= 2
        return self._hf.encode(text, add_special_tokens=special)

    def encode_within(self, text: str) -> list[int]:
        """Token ids that spell ``text`` inside a longer one, none of them special; none at all
        where the tokenizer writes it otherwise. For the tokenizers of `token_bytes` only."""
        mark = _MARK if self._scheme == "sentencepiece" else ""  # it puts a space in front of all
        ids = self._hf.backend_tokenizer.encode(mark + text, add_special_tokens=False).ids
        start, before = 0, b""
        while mark and start < len(ids) and not before.endswith(mark.encode()):
            before += self.token_bytes(ids[start])
            start += 1
        spelled = b"".join(map(self.token_bytes, ids[start:]))
        return ids[start:] if spelled == text.encode() else []

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids`` without special tokens; U+FFFD where bytes form no character."""
        return self._hf.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def token_text(self, token: int) -> str:
        """One token on its own, special tokens by name: for screens, not for joining."""
        return self._hf.decode([token], clean_up_tokenization_spaces=False)

    def token_spelling(self, token: int) -> tuple[str, bytes]:
        """One token for a list of them, and its bytes; half a character is ``bytes:\\xf0\\x9f``."""
        raw = self.token_bytes(token) if self.has_token_bytes else b""
        if not raw:
            text = self.token_text(token)
            return text, text.encode()
        try:
            return raw.decode(), raw
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw), raw

    def piece(self, token: int) -> Piece:
        """One token for a recording, from which texts are to be had again without this tokenizer.

        Where tokens are no runs of bytes its text on its own has to do.
        """
        text = self.token_text(token)
        if self.has_token_bytes:
            return Piece(text, self.token_bytes(token))
        return Piece(text, b"" if token in self._special else text.encode(errors="replace"))

    @property
    def drops_first_space(self) -> bool:
        """A text does not begin with the space that its first token begins with."""
        return self._drops_first_space

    def chat_frame(self) -> tuple[str, str]:
        """What the chat template puts before and after a question; nothing where there is none."""
        if not self.has_chat_template:
            return "", ""
        chat = self.decode(self.apply_chat([{"role": "user", "content": _ASKED}]))
        before, found, after = chat.rpartition(_ASKED)
        return (before, after) if found else ("", "")

    @property
    def vocab_size(self) -> int:
        return len(self._hf)

    @property
    def has_token_bytes(self) -> bool:
        return self._scheme != "other"

    @property
    def algorithm(self) -> str:
        """What cuts text into tokens: ``BPE``, ``Unigram``, ``WordPiece``."""
        backend = getattr(self._hf, "backend_tokenizer", None)
        return type(backend.model if backend else self._hf).__name__

    @property
    def special_ids(self) -> frozenset[int]:
        """Tokens that mark something instead of being text."""
        return self._special

    @cached_property
    def special_texts(self) -> dict[int, str]:
        """What every special token is written as, where texts do not leave it out."""
        return {token: self.token_text(token) for token in self._special}

    @property
    def kind(self) -> str:
        """The class that transformers reads it with."""
        return type(self._hf).__name__

    @property
    def named_tokens(self) -> dict[str, str | None]:
        """The special tokens that have a part to play, by part; None where the model has none."""
        names = ("bos_token", "eos_token", "pad_token", "unk_token")
        return {name: getattr(self._hf, name) for name in names}

    @property
    def chat_template(self) -> str | None:
        """The Jinja source; of several templates the one called ``default``."""
        template = self._hf.chat_template
        return template.get("default") if isinstance(template, dict) else template

    @property
    def has_chat_template(self) -> bool:
        return bool(self._hf.chat_template)

    def apply_chat(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        template_kwargs: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        most: int | None = None,
    ) -> list[int]:
        """Token ids of a conversation, ready for the assistant's turn.

        ``continue_final_message`` leaves the last message open, to be gone on with.
        ``template_kwargs`` are variables of the model's own template. ``tools`` are for it to show
        as it does; not all templates do. ``most`` is as in `encode`. Raises UserError for a model
        without a chat template, and where the template refuses.
        """
        text = self._apply_chat(
            messages,
            template_kwargs,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            tools=list(tools) if tools else None,
        )
        return self._encode(text, False, most)

    def chat_text(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """What `apply_chat` would have the model read, as text."""
        return self._apply_chat(
            messages,
            None,
            add_generation_prompt=add_generation_prompt,
            tools=list(tools) if tools else None,
        )

    def _apply_chat(
        self, messages: Sequence[Message], template_kwargs: Mapping[str, Any] | None, **how: Any
    ) -> str:
        if not self.has_chat_template:
            raise UserError(
                f"{self.directory.name} has no chat template: it is a base model, or "
                "chat_template.jinja is missing; send plain text instead of messages"
            )
        from jinja2 import TemplateError

        for message in messages:
            _check_text(message.get("content"))
        variables = dict(template_kwargs or {})
        own = signature(self._hf.apply_chat_template).parameters
        if taken := [name for name in variables if name in own]:
            raise UserError(f"{taken[0]} is no variable of a chat template; leave it out")
        try:
            return self._hf.apply_chat_template(list(messages), tokenize=False, **how, **variables)
        except (TemplateError, TypeError, KeyError, ValueError, RecursionError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(
                f"the model's chat template refuses these messages: {reason}"
            ) from error

    def special_tokens(self, texts: Collection[str]) -> dict[int, str]:
        """By id, those of ``texts`` that are special tokens, which have no text in an answer."""
        added = self._hf.added_tokens_decoder.items()
        return {
            token: entry.content
            for token, entry in added
            if token in self._special and entry.content in texts
        }

    def detokenizer(self, prompt: Sequence[int] = ()) -> "Detokenizer":
        """A fresh Detokenizer for the tokens that follow ``prompt``."""
        if not self.has_token_bytes:
            return WindowDetokenizer(self, prompt)
        return ByteDetokenizer(self, prompt, drops_first_space=self.drops_first_space)

    def token_bytes(self, token: int) -> bytes:
        """Bytes that ``token`` adds to a text; special tokens none.

        Only for tokenizers whose tokens are runs of bytes: byte-level BPE, and sentencepiece with
        byte fallback.
        """
        known = self._bytes.get(token)
        if known is None:
            known = self._bytes[token] = self._read_bytes(token)
        return known

    def _read_bytes(self, token: int) -> bytes:
        known = token not in self._special and 0 <= token < self.vocab_size
        piece = self._hf.convert_ids_to_tokens(token) if known else None
        if piece is None:
            return b""
        if self._scheme == "sentencepiece":
            if _BYTE_PIECE.fullmatch(piece):
                return bytes([int(piece[3:5], 16)])
            return piece.replace("\u2581", " ").encode()
        table = byte_of_character()
        if all(character in table for character in piece):
            return bytes(table[character] for character in piece)
        return piece.encode()  # an added token, which is stored as plain text


class Detokenizer:
    """Turns tokens into text as they come: ``feed`` each, then ``flush``.

    The pieces joined are the text of all the tokens. No piece ends inside a character: its bytes
    wait until they are complete, or until ``flush``. More may follow a flush.
    """

    def feed(self, *tokens: int) -> str:
        """The text that ``tokens`` complete, perhaps none yet."""
        raise NotImplementedError

    def flush(self) -> str:
        """What still waits, with U+FFFD for the bytes of a character that never came."""
        raise NotImplementedError


class ByteDetokenizer(Detokenizer):
    """For tokenizers whose tokens are runs of bytes of UTF-8.

    Given tokens whose bytes are ``f0 9f``, ``98``, ``80``, then ``21``: ``""``, ``""``, ``"😀"``,
    ``"!"``. A prompt that ends inside a character has it completed by the first token.
    """

    def __init__(
        self, tokenizer: Tokenizer, prompt: Sequence[int] = (), *, drops_first_space: bool = False
    ) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        tail = b"".join(map(tokenizer.token_bytes, prompt[-_TAIL_TOKENS:]))
        # Beginning in mid-character would only garble what is thrown away here.
        self._decoder.decode(tail[-_TAIL_BYTES:])
        self._drops_space = drops_first_space and not any(map(tokenizer.token_bytes, prompt))

    def feed(self, *tokens: int) -> str:
        raw = b"".join(map(self._tokenizer.token_bytes, tokens))
        if self._drops_space and raw:
            self._drops_space = False
            raw = raw.removeprefix(b" ")
        return self._decoder.decode(raw)

    def flush(self) -> str:
        return self._decoder.decode(b"", final=True)


class WindowDetokenizer(Detokenizer):
    """For every other tokenizer, by decoding a short window with and without the new tokens.

    What a token adds can depend on those before it: a leading space, say, is dropped at the start
    of a text only. So each piece is what the window's text gains.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._window = list(prompt[-_TAIL_TOKENS:])
        self._settled = len(self._window)  # tokens of the window whose text is out
        # A prompt that ends in mid-character: its last bytes come out with their completion. Where
        # that does not come, what looks like half a character was the prompt's to the end.
        self._prompt = tokenizer.decode(self._window)
        self._waiting = 0  # tokens whose text is not out
        while self._settled and tokenizer.decode(self._window[: self._settled]).endswith("\ufffd"):
            self._settled -= 1

    def feed(self, *tokens: int) -> str:
        return "".join(map(self._feed, tokens))

    def flush(self) -> str:
        return self._emit(self._tokenizer.decode(self._window))

    def _feed(self, token: int) -> str:
        self._window.append(token)
        text = self._tokenizer.decode(self._window)
        self._waiting += 1
        if text.endswith("\ufffd") and self._waiting < _TAIL_BYTES:
            return ""  # were it longer than any character, it would be no character at all
        return self._emit(text)

    def _emit(self, text: str) -> str:
        before = self._tokenizer.decode(self._window[: self._settled])
        if len(self._prompt) > len(before) and text.startswith(self._prompt):
            before = self._prompt
        self._prompt, self._waiting = "", 0
        self._window = self._window[-_TAIL_TOKENS:]
        self._settled = len(self._window)
        return text[len(before) :]


def _loader(directory: Path) -> Any:
    """``AutoTokenizer``, or the class that it would pick, where that is plain to see.

    The class alone is ready a second sooner: AutoTokenizer imports and reads the model's config.
    """
    settings = _json_if_there(directory / "tokenizer_config.json")
    named = settings.get("tokenizer_class") in ("TokenizersBackend", "PreTrainedTokenizerFast")
    model = _json_if_there(directory / "config.json").get("model_type")
    if named and model in ("llama", "smollm3") and "auto_map" not in settings:
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast
    from transformers import AutoTokenizer

    return AutoTokenizer


def _json_if_there(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _check_text(text: Any) -> None:
    try:
        text.encode() if isinstance(text, str) else None
    except UnicodeEncodeError as error:
        raise RequestRefused(
            f"the text has U+{ord(text[error.start]):04X} at index {error.start}, half of a "
            "surrogate pair and no character; remove it"
        ) from None


_ASKED = "what is asked"  # any text, to see what the chat template puts around it
_BYTE_PIECE = re.compile("<0x[0-9A-Fa-f]{2}>")
_MARK = "\x02"  # no vocabulary joins it to what follows
_CHARACTERS = 8  # more than most tokens have
_CUT = 64  # far more tokens than may be others where a text is cut
_TAIL_TOKENS = 6  # enough context for any leading space, and for any character of one-byte tokens
_TAIL_BYTES = 8  # twice the longest UTF-8 sequence


@cache
def byte_of_character() -> dict[str, int]:
    """GPT-2's alphabet backwards: printable bytes stand for themselves, others from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in plain]
    table = {chr(byte): byte for byte in plain}
    table.update((chr(0x100 + index), byte) for index, byte in enumerate(rest))
    return table


def _byte_scheme(hf: Any) -> tuple[str, bool]:
    """How tokens spell bytes: ``byte-level``, ``sentencepiece`` (with byte fallback) or ``other``;
    and whether a text loses its first space, as Llama 2's does and Gemma's does not.

    Read from the decoder that the tokenizer itself would use.
    """
    decoder = getattr(getattr(hf, "backend_tokenizer", None), "decoder", None)
    if decoder is None:
        return "other", False
    steps = json.loads(decoder.__getstate__())
    steps = steps["decoders"] if steps["type"] == "Sequence" else [steps]
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        return "byte-level", False
    if kinds == ["Replace", "ByteFallback", "Fuse"]:
        return "sentencepiece", False
    if kinds == ["Replace", "ByteFallback", "Fuse", "Strip"] and steps[3]["start"] == 1:
        return "sentencepiece", True
    return "other", False
