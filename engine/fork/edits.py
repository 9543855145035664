"""Other texts in prompts that are known as tokens alone.

What a pattern finds is cut out at the tokens that spell it, and what is to stand there is spelled
anew; all other tokens stay. A tokenizer might have drawn the border elsewhere, by a token or two.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

from ..errors import UserError
from ..trace import Piece

Encode = Callable[[str], list[int]]


class Spelling:
    """The bytes of tokens, and tokens for a text: by ``encode``, which gives none where it cannot,
    or as few of those in ``vocabulary`` as taking the longest that fits each time gives."""

    def __init__(self, vocabulary: Mapping[int, Piece], encode: Encode | None = None) -> None:
        self._raw = {id: piece.raw for id, piece in vocabulary.items()}
        self._encode = encode
        self._ids = {raw: id for id, raw in sorted(self._raw.items(), reverse=True) if raw}
        self._longest = max(map(len, self._ids), default=0)

    def raw(self, token: int) -> bytes:
        """The bytes that a token adds to a text; a special one adds none."""
        if token not in self._raw:
            raise UserError(
                "the recording does not hold the texts of its tokens, so none can be replaced"
            )
        return self._raw[token]

    def encode(self, text: str) -> list[int]:
        """Token ids that spell ``text``. Raises `UserError` if there are none."""
        found = self._encode(text) if self._encode else []
        return found or self._longest_first(text)

    def _longest_first(self, text: str) -> list[int]:
        data, at, ids = text.encode(), 0, []
        while at < len(data):
            lengths = range(min(self._longest, len(data) - at), 0, -1)
            fits = (n for n in lengths if data[at : at + n] in self._ids)
            length = next(fits, 0)
            if not length:
                raise UserError(
                    f"{text!r} cannot be spelled with the tokens in the recording, and its model's "
                    "tokenizer is not here"
                )
            ids.append(self._ids[data[at : at + length]])
            at += length
        return ids


class Editor:
    """Replaces texts in prompts. ``edited`` are the requests that it was done for; their prompts
    have ``more`` tokens than before.

    >>> Editor([(r"\\d\\d:\\d\\d", "noon")], spelling).edit(prompt, [7])
    """

    def __init__(self, replace: Sequence[tuple[str, str]], spelling: Spelling) -> None:
        self.edited: set[int] = set()
        self.more = 0
        self._spelling = spelling
        self._patterns: list[tuple[re.Pattern[str], str]] = []
        for pattern, text in replace:
            try:
                self._patterns.append((re.compile(pattern), text))
            except re.error as error:
                raise UserError(
                    f"{pattern!r} is no regular expression: {error}; a text as it stands needs \\ "
                    "before each of . ^ $ * + ? { } [ ] \\ | ( )"
                ) from error

    def edit(self, prompt: list[int], requests: Sequence[int]) -> list[int]:
        """The ``prompt`` of ``requests`` with every pattern replaced; the same list if there is
        none in it."""
        edited = prompt
        for pattern, text in self._patterns:
            edited = self._replace(edited, pattern, text)
        if not edited:
            raise UserError("a prompt would be empty with its text replaced; leave some of it")
        if edited != prompt:
            self.edited.update(requests)
            self.more += (len(edited) - len(prompt)) * len(requests)
        return edited

    def _replace(self, prompt: list[int], pattern: re.Pattern[str], text: str) -> list[int]:
        raws = [self._spelling.raw(token) for token in prompt]
        data = b"".join(raws)
        ends = list(accumulate(map(len, raws)))
        whole = data.decode(errors="surrogateescape")
        edited: list[int] = []
        done = 0  # tokens of the prompt
        spans = self._spans(pattern, text, whole)
        while spans:
            first, last = _tokens(spans[0][0], spans[0][1], ends, data)
            group = [spans.pop(0)]
            while spans and spans[0][0] < ends[last]:  # ends within a token that goes anyway
                last = max(last, _tokens(spans[0][0], spans[0][1], ends, data)[1])
                group.append(spans.pop(0))
            begin = ends[first] - len(raws[first])
            new, at = b"", begin
            for start, end, put in group:
                new += data[at:start] + put.encode(errors="surrogateescape")
                at = end
            new += data[at : ends[last]]
            edited += prompt[done:first]
            if new:
                edited += self._spelling.encode(new.decode(errors="replace"))
            done = last + 1
        return [*edited, *prompt[done:]] if done else prompt

    def _spans(self, pattern: re.Pattern[str], text: str, whole: str) -> list[tuple[int, int, str]]:
        """Where the pattern is, in bytes, and what is to be there."""
        spans, chars, at = [], 0, 0
        for match in pattern.finditer(whole):
            if not match[0]:
                continue
            try:
                put = match.expand(text)
            except (re.error, IndexError) as error:
                raise UserError(f"{text!r} cannot stand in for a match: {error}") from error
            at += len(whole[chars : match.start()].encode(errors="surrogateescape"))
            length = len(match[0].encode(errors="surrogateescape"))
            spans.append((at, at + length, put))
            chars, at = match.end(), at + length
        return spans


def _tokens(start: int, end: int, ends: Sequence[int], data: bytes) -> tuple[int, int]:
    """The first and the last token that bytes ``start`` to ``end`` are spelled with, and the rest
    of a character that begins or ends within them."""
    first, last = bisect_right(ends, start), bisect_right(ends, end - 1)
    while first and _within_character(data, ends[first - 1]):
        first -= 1
    while last + 1 < len(ends) and _within_character(data, ends[last]):
        last += 1
    return first, last


def _within_character(data: bytes, at: int) -> bool:
    return at < len(data) and data[at] & 0xC0 == 0x80
