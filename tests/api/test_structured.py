"""Answers that have to be something: by every field that says so, streamed and whole."""

import asyncio
import json
import re
from threading import Event
from typing import Any

import httpx2
import jsonschema_rs
import pytest
from minisgl_tui.engine import Grammar
from minisgl_tui.engine.runner.grammars import Grammars
from pydantic import BaseModel

from .conftest import Live
from .waiting import until

TEXT, CHAT = "/v1/completions", "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "n": {"enum": [1, 2, 3]}},
    "required": ["ok", "n"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA, "strict": True}}
DATE = "(19|20)[0-9]{2}-[01][0-9]"
LARK = 'start: "<" WORD ">"\nWORD: /[ab]{2,3}/'


def is_date(text: str) -> bool:
    return bool(re.fullmatch(DATE, text))


def fits(text: str) -> bool:
    return jsonschema_rs.validator_for(SCHEMA).is_valid(json.loads(text))


def is_choice(text: str) -> bool:
    return text in ("yes", "no")


def is_word(text: str) -> bool:
    return bool(re.fullmatch("<[ab]{2,3}>", text))


CONSTRAINTS: list[tuple[dict[str, Any], Any]] = [
    ({"response_format": FORMAT}, fits),
    ({"structured_outputs": {"json": SCHEMA}}, fits),
    ({"structured_outputs": {"json": json.dumps(SCHEMA)}}, fits),
    ({"structured_outputs": {"regex": DATE, "json_object": False}}, is_date),
    ({"structured_outputs": {"choice": ["yes", "no"]}}, is_choice),
    ({"structured_outputs": {"grammar": LARK}}, is_word),
    ({"guided_json": SCHEMA}, fits),
    ({"guided_regex": DATE}, is_date),
    ({"guided_choice": ["yes", "no"]}, is_choice),
    ({"guided_grammar": LARK}, is_word),
    ({"json_schema": json.dumps(SCHEMA)}, fits),
    ({"regex": DATE}, is_date),
]


def said(answer: dict[str, Any]) -> list[str]:
    return [c["text"] if "text" in c else c["message"]["content"] for c in answer["choices"]]


@pytest.mark.parametrize("path", [TEXT, CHAT])
@pytest.mark.parametrize(("field", "holds"), CONSTRAINTS)
def test_every_field_that_constrains_does(tiny: Live, path: str, field: dict[str, Any], holds: Any):
    prompt = {"prompt": "hi"} if path == TEXT else {"messages": HI}
    answer = tiny.post(path, **prompt, **field, max_tokens=250, n=3, seed=1).json()
    assert {choice["finish_reason"] for choice in answer["choices"]} == {"stop"}
    assert all(holds(text) for text in said(answer))
    tiny.assert_nothing_left()


def test_a_json_object_is_one_if_it_is_not_cut(tiny: Live):
    for field in (
        {"response_format": {"type": "json_object"}},
        {"structured_outputs": {"json_object": True}},
    ):
        body = {"messages": HI, "n": 8, "seed": 5, "logit_bias": {"96": 20}, "max_tokens": 60}
        answer = tiny.post(CHAT, **body, **field).json()
        for choice in answer["choices"]:
            text = choice["message"]["content"]
            assert text.startswith("{")
            if choice["finish_reason"] == "stop":
                assert isinstance(json.loads(text), dict)


def test_an_answer_cut_by_max_tokens_says_so(tiny: Live):
    answer = tiny.post(CHAT, messages=HI, max_tokens=5, response_format=FORMAT).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    with pytest.raises(ValueError):
        json.loads(said(answer)[0])


def test_log_probabilities_come_with_a_constrained_answer(tiny: Live):
    body = {"messages": HI, "logprobs": True, "top_logprobs": 2, "guided_choice": ["yes"]}
    (choice,) = tiny.post(CHAT, **body).json()["choices"]
    content = choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in content[:3]) == "yes"
    assert any(entry["logprob"] < -1 for entry in content)  # by the model, not 0 by the grammar


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "is missing"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "s"}}},
        "response_format.json_schema.schema",
        "is missing",
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
        "response_format.json_schema.name",
        "is missing",
    ),
    (
        {"response_format": {"type": "json_object", "json_schema": {"name": "s", "schema": {}}}},
        "response_format.json_schema",
        "the type is json_object",
    ),
    ({"response_format": {"type": "json_object", "schema": {}}}, "response_format", "schema"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": 5}}},
        "response_format.json_schema.schema",
        "expected object",
    ),
    ({"structured_outputs": {}}, "structured_outputs", "is empty; send one of json, regex"),
    ({"structured_outputs": {"xml": "x"}}, "structured_outputs", "unknown field xml"),
    (
        {"structured_outputs": {"regex": "a", "choice": ["a"]}},
        "structured_outputs.choice",
        "each say what the answer has to be",
    ),
    ({"regex": "a", "response_format": FORMAT}, "response_format", "regex and response_format"),
    ({"guided_json": '{"type":'}, "guided_json", "EOF while parsing"),
    ({"guided_json": {"type": "objct"}}, "guided_json", "Invalid type: objct"),
    ({"guided_json": {"not": {}}}, "guided_json", 'Unimplemented keys: ["not"]'),
    ({"regex": "(a"}, "regex", "unclosed group, at character 1"),
    ({"guided_regex": "a(?=b)"}, "guided_regex", "look-ahead"),
    ({"guided_choice": []}, "guided_choice", "must have from 1 to"),
    ({"guided_choice": ["a", ""]}, "guided_choice[1]", "at least 1"),
    ({"guided_grammar": "start: foo"}, "guided_grammar", 'unknown name: "foo"'),
    ({"guided_grammar": 'root ::= "a"'}, "guided_grammar", "write it in Lark"),
    ({"ebnf": 'root ::= "a"'}, "ebnf", "write it in Lark"),
    ({"structural_tag": "{}"}, "structural_tag", "not supported"),
]


@pytest.mark.parametrize(("field", "param", "says"), REFUSED)
def test_what_is_no_constraint_is_refused_by_name(
    tiny: Live, field: dict[str, Any], param: str, says: str
):
    steps = tiny.engine.step_count
    for path, prompt in ((TEXT, {"prompt": "hi"}), (CHAT, {"messages": HI})):
        for stream in (False, True):
            answer = tiny.post(path, **prompt, **field, stream=stream)
            assert answer.status_code == 400, answer.text
            error = answer.json()["error"]
            assert error["param"] == param and says in error["message"]
            assert "\n" not in error["message"]
    assert tiny.engine.step_count == steps
    tiny.assert_nothing_left()


def test_responses_take_one_constraint(tiny: Live):
    wanted = {"type": "json_schema", "name": "s", "schema": SCHEMA}
    body = {"input": "hi", "text": {"format": wanted}}
    answer = tiny.post("/v1/responses", **body).json()
    assert fits(answer["output"][0]["content"][0]["text"])
    assert answer["text"]["format"] == wanted
    assert tiny.post("/v1/responses", **body, regex="a").json()["error"]["param"] == "text.format"
    date = tiny.post("/v1/responses", input="hi", regex=DATE).json()
    assert is_date(date["output"][0]["content"][0]["text"])


def test_a_text_format_asks_for_nothing(tiny: Live):
    body = {"messages": HI, "max_tokens": 4, "temperature": 0}
    plain = tiny.post(CHAT, **body).json()
    assert said(tiny.post(CHAT, **body, response_format={"type": "text"}).json()) == said(plain)


async def test_clients_with_and_without_a_grammar_run_together(tiny: Live):
    """Twenty at once, some of which leave in mid-answer; the others get what they get alone."""
    alone = {
        seed: said(tiny.post(TEXT, prompt="hi", seed=seed, guided_regex="[a-z]{40}").json())
        for seed in range(3)
    }
    async with httpx2.AsyncClient(base_url=tiny.url, timeout=60) as client:

        async def ask(seed: int) -> Any:
            body = {"prompt": "hi", "seed": seed % 3, "guided_regex": "[a-z]{40}"}
            return (await client.post(TEXT, json=body)).json()

        async def leave() -> None:
            body = {"prompt": "hi", "max_tokens": 250, "guided_regex": "[a-z]*", "stream": True}
            body |= {"ignore_eos": True}
            async with client.stream("POST", TEXT, json=body) as answer:
                async for _ in answer.aiter_lines():
                    return

        async def free() -> None:
            await client.post(TEXT, json={"prompt": "hi", "max_tokens": 30})

        work = [ask(i) for i in range(10)] + [leave() for _ in range(5)] + [free() for _ in "12345"]
        answers = await asyncio.gather(*work)
    for seed in range(10):
        assert said(answers[seed]) == alone[seed % 3]
    await until(lambda: not tiny.engine.requests)
    tiny.assert_nothing_left()


async def test_a_grammar_that_takes_long_to_compile_keeps_nobody_waiting(
    tiny: Live, monkeypatch: pytest.MonkeyPatch
):
    compiling, go_on, compile_one = Event(), Event(), Grammars._compile

    def slowly(self: Grammars, grammar: Grammar) -> Any:
        if grammar.source == "slow":
            compiling.set()
            go_on.wait(30)
        return compile_one(self, grammar)

    monkeypatch.setattr(Grammars, "_compile", slowly)
    async with httpx2.AsyncClient(base_url=tiny.url, timeout=60) as client:
        await client.post(TEXT, json={"prompt": "hi", "regex": "known"})
        waiting = asyncio.create_task(client.post(TEXT, json={"prompt": "hi", "regex": "slow"}))
        await until(compiling.is_set)
        for body in ({"max_tokens": 2}, {"regex": "known"}):
            answer = await client.post(TEXT, json={"prompt": "hi", **body})
            assert answer.status_code == 200
        assert not waiting.done()
        go_on.set()
        assert said((await waiting).json()) == ["slow"]


class Capital(BaseModel):
    city: str
    in_europe: bool


QUESTION = [{"role": "user", "content": "Name the capital of France, as JSON."}]
ASK: dict[str, Any] = {
    "model": "smollm2-135m",
    "messages": QUESTION,
    "temperature": 0,
    "max_tokens": 48,
}


def test_openais_package_parses_an_answer_into_a_model(smollm: Live):
    answer = smollm.client().chat.completions.parse(**ASK, response_format=Capital)
    parsed = answer.choices[0].message.parsed
    assert parsed == Capital(city="Paris", in_europe=parsed.in_europe)


def test_openais_package_parses_a_stream_into_a_model(smollm: Live):
    with smollm.client().chat.completions.stream(**ASK, response_format=Capital) as stream:
        texts = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed.city == "Paris"
    assert "".join(texts) == final.choices[0].message.content


async def test_a_client_who_leaves_in_the_middle_leaves_nothing(smollm: Live):
    body = {**ASK, "max_tokens": 400, "stream": True, "guided_regex": "[a-z ]{1000}"}
    del body["model"]
    with httpx2.stream("POST", smollm.url + CHAT, json=body, timeout=60) as answer:
        lines = answer.iter_lines()
        assert [next(lines) for _ in range(6)]
    await until(lambda: not smollm.engine.requests)
    smollm.assert_nothing_left()
