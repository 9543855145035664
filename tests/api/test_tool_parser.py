"""Tool calls are told from content wherever the text is cut, as they come, and nothing is lost."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from minisgl_tui.api.tool_parser import (
    HERMES,
    LLAMA3,
    CallDelta,
    CallParser,
    Format,
    Part,
    ToolCall,
    joined,
)

NAMES = ("now", "get_weather")
FORMATS = st.sampled_from([HERMES, LLAMA3])
FRAGMENTS = st.sampled_from(
    [
        *("<tool_call>", "</tool_call>", "<|python_tag|>", "<tool", "_call>", "</", "<", ">"),
        *('{"name": "now", "arguments": {}}', '{"name": "now", "parameters": {"a": [1]}}'),
        *('{"name": "', 'now"', "get_weather", ', "arguments": {', ', "parameters": {', '"a": "'),
        *("{", "}", "[", "]", '"', ":", ",", "\\", ";", " ", "\n", "x", "é", "1", "null", "; "),
    ]
)
TEXTS = st.lists(FRAGMENTS, max_size=20).map("".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(st.text(max_size=6), JSON, max_size=3)
Said = list[str | tuple[str, str]]


def feed(parser: CallParser, pieces: list[str]) -> list[Part]:
    parts = [part for piece in pieces for part in parser.feed(piece)]
    return parts if parser.complete else [*parts, *parser.end()]


def said(parts: list[Part]) -> Said:
    """Without the ids, which are random."""
    return [(p.name, p.arguments) if isinstance(p, ToolCall) else p for p in joined(parts)]


def read(format: Format, text: str, parallel: bool = True) -> Said:
    return said(feed(CallParser(format, NAMES, parallel), [text]))


def cut(text: str, places: list[int]) -> list[str]:
    ends = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[a:b] for a, b in pairwise(ends)]


@given(FORMATS, TEXTS, st.lists(st.integers(0, 400), max_size=12), st.booleans())
@example(HERMES, 'a \n<tool_call> {"name": "now", "arguments": {}} x', [2, 3, 9], True)
@example(LLAMA3, '{"name": "now", "parameters": {}} ; <|python_tag|>{', [34, 36], True)
def test_what_comes_out_does_not_depend_on_how_the_text_was_cut(
    format: Format, text: str, places: list[int], parallel: bool
):
    whole = read(format, text, parallel)
    parser = CallParser(format, NAMES, parallel)
    assert said(feed(parser, cut(text, places))) == whole
    assert said(feed(CallParser(format, NAMES, parallel), list(text))) == whole
    assert parser.calls == sum(isinstance(part, tuple) for part in whole)


@given(FORMATS, TEXTS)
def test_a_text_without_a_call_is_content_to_the_letter(format: Format, text: str):
    found = read(format, text)
    if not any(isinstance(part, tuple) for part in found):
        assert "".join(map(str, found)) == text


def spelled(format: Format, calls: list[tuple[str, dict[str, Any]]]) -> tuple[str, Said]:
    bodies, expected = [], []
    for name, arguments in calls:
        text = json.dumps(arguments, ensure_ascii=False)
        bodies.append(f'{{"name": "{name}", "{format.arguments[0]}": {text}}}')
        expected.append((name, text))
    if format is HERMES:
        return "\n".join(f"<tool_call>\n{body}\n</tool_call>" for body in bodies), expected
    return "; ".join(bodies), expected


CALLS = st.lists(st.tuples(st.sampled_from(NAMES), ARGUMENTS), min_size=1, max_size=3)


@given(FORMATS, CALLS, st.lists(st.integers(0, 400), max_size=12))
def test_calls_as_models_write_them_keep_their_arguments_to_the_letter(
    format: Format, calls: list[tuple[str, dict[str, Any]]], places: list[int]
):
    text, expected = spelled(format, calls)
    assert said(feed(CallParser(format, NAMES), cut(text, places))) == expected
    first = CallParser(format, NAMES, parallel=False)
    assert said(feed(first, cut(text, places))) == expected[:1] and first.complete


@given(CALLS, st.sampled_from(["Let me see.", "<think>\nHm {\n</think>", "a < b"]))
def test_text_around_calls_stays_content_without_the_white_space_between(
    calls: list[tuple[str, dict[str, Any]]], thought: str
):
    text, expected = spelled(HERMES, calls)
    assert read(HERMES, f"{thought}\n\n{text}\n") == [thought, *expected]
    assert read(HERMES, f"\n{text}\n\nThere.") == [*expected, "\n\nThere."]


@given(FORMATS, st.text(max_size=8), ARGUMENTS.filter(bool))
def test_arguments_come_out_as_they_come_in(
    format: Format, thought: str, arguments: dict[str, Any]
):
    body = json.dumps(arguments)
    head = f'{format.opening}{{"name": "now", "{format.arguments[0]}": '
    parser = CallParser(format, NAMES)
    parts = parser.feed(head)
    assert parts == []
    for index, character in enumerate(body):
        parts += parser.feed(character)
        *_, call = joined(parts)
        assert isinstance(call, ToolCall) and call.arguments == body[: index + 1]
    first, *others = parts
    assert isinstance(first, CallDelta) and first.id.startswith("call_") and first.name == "now"
    assert first.arguments == ""
    assert all(isinstance(p, CallDelta) and not p.id and not p.name for p in others)


@given(st.text("<tool_ca>x \n", max_size=30))
def test_only_what_could_begin_a_marker_is_held_back(text: str):
    """With the white space before it, which is no content if the marker comes."""
    if "<tool_call>" in text:
        return
    parser = CallParser(HERMES, NAMES)
    shown = "".join(str(part) for character in text for part in parser.feed(character))
    held = text[len(shown) :]
    assert text.startswith(shown) and "<tool_call>".startswith(held.lstrip())


@pytest.mark.parametrize(
    ("format", "text", "expected"),
    [
        # A name first or last; other members.
        (HERMES, '<tool_call>{"arguments": {"a": 1}, "name": "now"}</tool_call>', 0),
        (HERMES, '<tool_call>{"id": 5, "name": "now", "arguments": {"a": 1}, "x": []}', 0),
        (LLAMA3, '{"type": "function", "name": "now", "parameters": {"a": 1}}', 0),
        (LLAMA3, '{"name": "now", "arguments": {"a": 1}}', 0),
        (LLAMA3, ' <|python_tag|> {"name": "now", "parameters": {"a": 1}}\n', 0),
        # Ends that are missing.
        (HERMES, '<tool_call>{"name": "now", "arguments": {"a": 1}}', 0),
        (HERMES, '<tool_call>{"name": "now", "arguments": {"a": 1}</tool_call>', 0),
        (HERMES, '<tool_call>{"name": "now", "arguments": {"a": 1}}</tool', 0),
        # A marked call names what it likes; without a mark only what there is.
        (HERMES, '<tool_call>{"name": "f", "arguments": {}}</tool_call>', [("f", "{}")]),
        (LLAMA3, '<|python_tag|>{"name": "f", "parameters": {}}', [("f", "{}")]),
        (LLAMA3, '{"name": "f", "parameters": {}}', None),
        # In the text or in a string, a brace or a marker is no call.
        (LLAMA3, 'So: {"name": "now", "parameters": {}}', None),
        (LLAMA3, 'So:<|python_tag|>{"name": "f", "parameters": {}}', ["So:", ("f", "{}")]),
        (
            HERMES,
            '<tool_call>{"name": "now", "arguments": {"a": "</tool_call>\\""}}</tool_call>!',
            [("now", '{"a": "</tool_call>\\""}'), "!"],
        ),
        # No calls at all.
        (HERMES, "<tool_call>now()</tool_call>", None),
        (HERMES, '<tool_call>{"name": "now"}</tool_call>', None),
        (HERMES, '<tool_call>{"name": 5, "arguments": {}}</tool_call>', None),
        (HERMES, '<tool_call>{"name": "", "arguments": {}}</tool_call>', None),
        (HERMES, '<tool_call>{"name": "now", "arguments": "{}"}</tool_call>', None),
        (HERMES, '<tool_call>{"name": "now", "argum', None),
        (LLAMA3, "<|python_tag|>print(1)", None),
        (LLAMA3, '{"answer": 42}', None),
        # The second try is one.
        (
            HERMES,
            '<tool_call>oh <tool_call>{"name": "now", "arguments": {}}',
            ["<tool_call>oh", ("now", "{}")],
        ),
        (
            LLAMA3,
            '{"name": "now", "parameters": {}}\n{"name": "get_weather", "parameters": {}} So.',
            [("now", "{}"), ("get_weather", "{}"), " So."],
        ),
        # What follows an object and does not belong there is seen.
        (
            HERMES,
            '<tool_call>{"name": "now", "arguments": {}}}</tool_call>',
            [("now", "{}"), "}</tool_call>"],
        ),
        # Cut off.
        (
            HERMES,
            '<tool_call>{"name": "now", "arguments": {"a": 1</tool_call>!',
            [("now", '{"a": 1'), "!"],
        ),
        (HERMES, '<tool_call>{"name": "now", "arguments": {"a', [("now", '{"a')]),
        (HERMES, "Hm. <tool_c", None),
    ],
)
def test_examples(format: Format, text: str, expected: Said | int | None):
    """0 stands for the call of now with {"a": 1}, None for content alone."""
    if expected is None:
        expected = [text]
    elif isinstance(expected, int):
        expected = [("now", '{"a": 1}')]
    assert read(format, text) == expected


def test_a_long_text_of_broken_calls_is_read_once():
    """Were it read again from each marker on, this would take minutes."""
    text = '<tool_call>{"x": "' * 3000
    parser = CallParser(HERMES, NAMES)
    assert said(feed(parser, [text])) == [text]
    assert said(feed(CallParser(HERMES, NAMES), cut("<tool_call>x" * 3000, [7, 400]))) == [
        "<tool_call>x" * 3000
    ]
