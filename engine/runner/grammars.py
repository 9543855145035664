"""Grammars, compiled for a model's tokenizer; the compiler and the parsers are llguidance's.

Owns what a grammar may be and what is told about one that is none. Which tokens a request may have
next is `constraints.py`.
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from ..errors import RequestRefused
from ..sampling import Grammar, SamplingParams
from ..tokenizer import Tokenizer

KEPT = 64  # compiled grammars
LONGEST = {"json_schema": 1 << 16, "lark": 1 << 16, "regex": 1 << 14}  # characters
_NAMES = {"json_schema": "JSON schema", "lark": "Lark grammar", "regex": "regular expression"}

# Between the parts of JSON comes nothing, one space, or a new line and its indentation. With any
# run of blanks allowed, as in JSON itself, small models go on with blanks for ever.
_WHITESPACE = r" |\r?\n(?: {0,40}|\t{0,20})"

# A lexer's states take about 2 kB each and are kept with the grammar. A parser has as many items at
# a place as there are ways to read what led to it: a schema of 800 optional members has 3,200; the
# steps of a grammar as ambiguous as `start: start start | /[a-z]/` take a second each at 2,000.
_MOST_ITEMS = {"json_schema": 5000, "lark": 1000, "regex": 1000}


def _limits(kind: str) -> LLParserLimits:
    return LLParserLimits(
        max_items_in_row=_MOST_ITEMS[kind], max_lexer_states=50_000, verbose_errors=False
    )


# The compiler recurses once for each rule in a chain of rules; the deepest chain that fits into
# LONGEST takes a fifth of this.
_STACK = 256 << 20
_stack_size = threading.Lock()


class Grammars:
    """Compiled grammars for one tokenizer, the latest used of them kept. Any thread may ask.

    ``vocab_size`` is the model's. Token ids that only one of the two has are in no grammar.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self.vocab_size = min(vocab_size, tokenizer.vocab_size)
        self.eos_ids = tokenizer.eos_ids
        self._text = tokenizer
        self._vocabulary: _Vocabulary | None = None  # made with the first grammar: 0.2 s
        self._compiled: OrderedDict[Grammar, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()  # on what is compiled; nobody waits for it
        self._compiling = threading.Lock()  # one at a time

    def check(self, params: SamplingParams) -> None:
        """Compile the grammar, if there is one. RequestRefused where it is none, or no answer could
        be an end of it."""
        if params.grammar is None:
            return
        if not self._text.has_token_bytes:
            raise RequestRefused(
                f"the tokenizer of {self._text.directory.name} ({self._text.algorithm}) has tokens "
                "that are no runs of bytes, and a grammar cannot be followed with those; it takes "
                "byte-level BPE, or sentencepiece with byte fallback"
            )
        if not self.silent({*self.eos_ids, *params.stop_token_ids}):
            raise RequestRefused(
                "with a grammar an answer ends by a token of its own, and this model names no "
                "end-of-sequence token; give a special token in stop_token_ids"
            )
        self._get(params.grammar)

    def start(self, grammar: Grammar) -> LLMatcher:
        """A parser at the beginning of ``grammar``."""
        return self._get(grammar).deep_copy()

    def silent(self, ends: set[int] | frozenset[int]) -> list[int]:
        """Those of ``ends`` that end an answer without adding text to it."""
        silent = self._text.special_ids.union(self.eos_ids)
        return [token for token in ends if token in silent and 0 <= token < self.vocab_size]

    def _get(self, grammar: Grammar) -> LLMatcher:
        found = self._find(grammar)
        if found is None:
            with self._compiling:
                found = self._find(grammar) or _in_deep_thread(lambda: self._compile(grammar))
                with self._lock:
                    self._compiled[grammar] = found
                    while len(self._compiled) > KEPT:
                        self._compiled.popitem(last=False)
        return found

    def _find(self, grammar: Grammar) -> LLMatcher | None:
        with self._lock:
            if grammar in self._compiled:
                self._compiled.move_to_end(grammar)
            return self._compiled.get(grammar)

    def _compile(self, grammar: Grammar) -> LLMatcher:
        kind, source = grammar.kind, grammar.source
        if len(source) > LONGEST[kind]:
            raise RequestRefused(
                f"the {_NAMES[kind]} has {len(source)} characters; it may have {LONGEST[kind]}"
            )
        if self._vocabulary is None:
            self._vocabulary = _Vocabulary(self._text, self.vocab_size)
        matcher = LLMatcher(
            self._vocabulary.tokenizer, _serialized(grammar), log_level=0, limits=_limits(kind)
        )
        if not matcher.is_error():
            matcher.compute_bitmask()  # finds a grammar that nothing satisfies
        if matcher.is_error():
            raise RequestRefused(f"the {_NAMES[kind]} cannot be used: {reason(matcher)}")
        return matcher


def reason(matcher: LLMatcher) -> str:
    """Why ``matcher`` is in error, in one line, with the place in words instead of drawn."""
    text = re.split(r"\s*<(?:state|grammar|backtrace|non-verbose/)>", matcher.get_error())[0]
    if text == "NoExtensionBias":
        return "no text satisfies it"
    if found := _REGEX_ERROR.search(text):
        drawn, indent, problem = found.groups()
        return (
            f"{problem}, at character {len(indent) - 3} of the regular expression {_short(drawn)}"
        )
    told = [line.strip() for line in text.splitlines() if not _DRAWN.fullmatch(line)]
    return _short(" ".join(filter(None, told)))


_REGEX_ERROR = re.compile(r"regex parse error:\n {4}(.*)\n( {4,})\^+\nerror: (.*)")
_DRAWN = re.compile(r"\s*\^+\s*|\s*\d+ \|.*")


def _short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:200]} … {text[-90:]}"


def _serialized(grammar: Grammar) -> str:
    """As llguidance takes them."""
    if grammar.kind == "regex":
        return LLMatcher.grammar_from_regex(grammar.source)
    if grammar.kind == "lark":
        return LLMatcher.grammar_from_lark(grammar.source)
    schema = grammar.source.strip()
    schema = {"true": "{}", "false": '{"enum": []}'}.get(schema, schema)  # options need an object
    try:
        return LLMatcher.grammar_from_json_schema(
            schema, defaults={"whitespace_pattern": _WHITESPACE}
        )
    except ValueError as error:
        raise RequestRefused(f"the JSON schema cannot be used: {error}") from None


class _Vocabulary:
    """The tokens of a model as llguidance wants them, and text cut into them.

    Text that a grammar leaves no choice about is forced to be cut as the model's own tokenizer
    would cut it.
    """

    def __init__(self, text: Tokenizer, size: int) -> None:
        self._text = text
        special = sorted(text.special_ids.union(text.eos_ids))
        self.tokens: Sequence[bytes] = [
            text.token_text(token).encode() if token in special else text.token_bytes(token)
            for token in range(size)
        ]
        self.eos_ids = [token for token in text.eos_ids if token < len(self.tokens)]
        self.eos_token_id = self.eos_ids[0] if self.eos_ids else None
        self.bos_token_id = None
        self.special_token_ids = [token for token in special if token < len(self.tokens)]
        self._own: LLTokenizer | None = None  # the wrapper tries the call below at once
        self._own = LLTokenizer(TokenizerWrapper(self), eos_token=self.eos_ids or None)

    @property
    def tokenizer(self) -> LLTokenizer:
        assert self._own
        return self._own

    def __call__(self, text: bytes) -> list[int]:
        # Of a long forced text only the next token is used.
        forced = text[:_FORCED].decode(errors="ignore")
        ids = self._text.encode_within(forced)
        if ids and max(ids) < len(self.tokens):
            return ids
        return self._own.greedy_tokenize(forced) if self._own else []


_FORCED = 256


def _in_deep_thread(work: Callable[[], Any]) -> Any:
    """What ``work`` returns or raises, in a thread with a deep stack."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append((work(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, name="grammar")
    with _stack_size:
        before = threading.stack_size(_STACK)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
    thread.join()
    ((value, error),) = outcome
    if error is not None:
        raise error
    return value
