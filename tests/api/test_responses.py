"""``/v1/responses`` as OpenAI's own package asks for it, and each event checked by its types."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import openai
import pytest
from minisgl_tui.api.responses_input import conversation
from minisgl_tui.api.responses_output import Growing
from minisgl_tui.api.responses_protocol import ResponseObject, ResponsesRequest, TextConfig
from minisgl_tui.api.responses_tools import Function
from minisgl_tui.api.tool_parser import HERMES, CallParser
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from .conftest import Live, break_down, live, tiny_llm
from .test_bad_requests import assert_refused
from .test_streams import SEEDS
from .waiting import until

PATH = "/v1/responses"
QUESTION = "What is the capital of France?"
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
# What we send beyond the fields that the package knows.
MORE = {"store", "bytes"}

TEXT_EVENTS = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Paris"]}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER: dict[str, Any] = {"type": "function", "name": "get_weather", "parameters": CITY}
FIND: dict[str, Any] = {"type": "function", "name": "find", "description": "Finds customers."}
CRM: dict[str, Any] = {
    "type": "namespace",
    "name": "crm",
    "description": "About customers.",
    "tools": [FIND],
}
CALL: dict[str, Any] = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "call_1",
    "name": "get_weather",
    "arguments": '{"city": "Rome"}',
}
RESULT: dict[str, Any] = {"type": "function_call_output", "call_id": "call_1", "output": "Sunny."}


def ask(server: Live, **changes: Any) -> Any:
    settings = {"model": "smollm2-135m", "input": QUESTION, "temperature": 0, **changes}
    return server.client().responses.create(**{"max_output_tokens": 24, **settings})


def check_known(value: Any) -> None:
    """Nothing in it, however deep, is a field that OpenAI's package does not know."""
    if isinstance(value, list):
        for one in value:
            check_known(one)
    if isinstance(value, BaseModel):
        for name in value.model_fields_set:
            assert name in type(value).model_fields or name in MORE, (type(value), name)
            check_known(getattr(value, name))


def events_of(raw: str) -> list[dict[str, Any]]:
    """The events of a stream, each checked against its type and its name."""
    *events, rest = raw.split("\n\n")
    assert rest == ""
    found: list[dict[str, Any]] = []
    for event in events:
        name, data = event.split("\n")
        value = json.loads(data.removeprefix("data: "))
        assert name == f"event: {value['type']}"
        parsed = EVENT.validate_python(value)
        assert parsed.type == value["type"]
        check_known(parsed)
        found.append(value)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    for event in found[:2]:
        begun = event["response"]
        assert (begun["status"], begun["output"], begun["usage"]) == ("in_progress", [], None)
    return found


async def streamed(http: httpx2.AsyncClient, body: dict[str, Any]) -> list[dict[str, Any]]:
    async with http.stream("POST", PATH, json={**body, "stream": True}) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        return events_of((await answer.aread()).decode())


def without_ids(response: dict[str, Any]) -> dict[str, Any]:
    """Without what differs from run to run: ids, times, cache hits and the last bits of floats."""
    items = []
    for item in response["output"]:
        parts = [
            {**part, "logprobs": [one["token"] for one in part["logprobs"]]}
            for part in item.get("content", ())
        ]
        items.append({**item, "id": "", "call_id": "", "content": parts})
    usage = {**response["usage"], "input_tokens_details": None}
    times = {"id": "", "created_at": 0, "completed_at": 0}
    return {**response, **times, "output": items, "usage": usage}


# --- answers -------------------------------------------------------------------------------------


def test_a_text_is_answered_with_a_message_and_counted(smollm: Live):
    answer = ask(smollm)
    assert "Paris" in answer.output_text
    (item,) = answer.output
    assert (item.type, item.role, item.status) == ("message", "assistant", "completed")
    assert answer.status == "completed" and answer.completed_at >= answer.created_at
    assert answer.error is None and answer.incomplete_details is None
    usage = answer.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert 0 < usage.output_tokens < 24 and usage.output_tokens_details.reasoning_tokens == 0


def test_every_field_that_the_package_requires_is_there(smollm: Live):
    body = {"input": QUESTION, "max_output_tokens": 8, "top_logprobs": 2}
    include = ["message.output_text.logprobs"]
    for more in ({}, {"include": include, "metadata": {"a": "b"}, "instructions": "Be kind."}):
        body = {"input": QUESTION, "max_output_tokens": 8, **more}
        response = Response.model_validate(smollm.post(PATH, **body).json())
        check_known(response)


def test_a_prompt_is_the_same_as_that_of_a_chat(smollm: Live):
    """Instructions are its system message; parts and items are its messages."""
    chat = [
        {"role": "system", "content": "Answer in one word."},
        {"role": "user", "content": "What is the capital of Italy?"},
        {"role": "assistant", "content": "Rome"},
        {"role": "user", "content": "And of France?\nThe city."},
    ]
    items = [
        {"role": "user", "content": "What is the capital of Italy?"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Rome", "annotations": []}],
        },
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "And of France?"},
                {"type": "input_text", "text": "The city."},
            ],
        },
    ]
    said = smollm.client().chat.completions.create(
        model="smollm2-135m", messages=chat, temperature=0, max_tokens=12
    )
    answers = [
        ask(smollm, instructions="Answer in one word.", input=items, max_output_tokens=12),
        ask(smollm, input=[{**chat[0], "role": "developer"}, *items], max_output_tokens=12),
    ]
    for answer in answers:
        assert answer.output_text == said.choices[0].message.content
        assert answer.usage.input_tokens == said.usage.prompt_tokens


def test_instructions_and_leading_system_messages_are_one_message(tiny: Live):
    system = {"role": "developer", "content": [{"type": "input_text", "text": "b"}]}
    user, late = {"role": "user", "content": "hi"}, {"role": "system", "content": "c"}
    asked = ResponsesRequest(instructions="a", input=[system, system, user, late])
    first, *others = conversation(asked)
    assert first.role == "system" and isinstance(first.content, list)
    assert [part.text for part in first.content] == ["a", "b", "b"]
    assert [(one.role, one.content) for one in others] == [("user", "hi"), ("system", "c")]


def test_an_answer_that_is_cut_is_incomplete(smollm: Live):
    answer = ask(smollm, max_output_tokens=3)
    assert answer.status == "incomplete" and answer.completed_at is None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.output[0].status == "incomplete" and answer.usage.output_tokens == 3
    *_, last = ask(smollm, max_output_tokens=3, stream=True)
    assert last.type == "response.incomplete"
    assert last.response.output_text == answer.output_text


def test_settings_come_back_as_they_were_applied(smollm: Live):
    settings = {
        "instructions": "Be short.",
        "max_output_tokens": 5,
        "metadata": {"run": "7"},
        "parallel_tool_calls": False,
        "top_p": 0.5,
    }
    answer = ask(smollm, store=True, **settings)
    assert {name: getattr(answer, name) for name in settings} == settings
    assert answer.temperature == 0 and answer.truncation == "disabled"
    assert answer.text.format.type == "text" and answer.tools == [] and answer.store is False


def test_a_prompt_that_comes_again_is_found_in_the_cache(smollm: Live):
    first, again = (ask(smollm, input="Count the moons of Jupiter, slowly.") for _ in range(2))
    details, prompt = again.usage.input_tokens_details, again.usage.input_tokens
    assert details.cached_tokens == (prompt - 1) // 16 * 16
    assert details.cache_write_tokens == prompt // 16 * 16 - details.cached_tokens
    assert first.usage.input_tokens_details.cache_write_tokens > details.cache_write_tokens
    assert first.output_text == again.output_text


def test_log_probabilities_are_included_when_asked_for(smollm: Live):
    include = ["message.output_text.logprobs"]
    chat = smollm.client().chat.completions.create(
        model="smollm2-135m",
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        logprobs=True,
        top_logprobs=2,
    )
    wanted = [one.model_dump() for one in chat.choices[0].logprobs.content]
    answer = ask(smollm, include=include, top_logprobs=2)
    (part,) = answer.output[0].content
    tokens = [(one.token, one.bytes, len(one.top_logprobs)) for one in part.logprobs]
    assert tokens == [(one["token"], one["bytes"], 2) for one in wanted]
    for one, other in zip(part.logprobs, wanted, strict=True):
        assert one.logprob == pytest.approx(other["logprob"], abs=1e-4)
    streamed = list(ask(smollm, include=include, top_logprobs=2, stream=True))
    deltas = [one for e in streamed if e.type.endswith("text.delta") for one in e.logprobs]
    assert [one.token for one in deltas] == [one.token for one in part.logprobs]
    assert all(event.logprobs == [] for event in ask(smollm, stream=True) if "text.d" in event.type)


def test_extensions_are_those_of_chat(tiny: Live):
    body = {"input": "hi", "max_output_tokens": 12, "ignore_eos": True, "temperature": 1}
    seeded = [tiny.post(PATH, seed=seed, **body).json()["output"] for seed in (5, 5, 6)]
    texts = [items[0]["content"][0]["text"] for items in seeded]
    assert texts[0] == texts[1] != texts[2]
    assert (
        tiny.post(PATH, top_k=1, seed=1, **body).json()["output"][0]["content"]
        == (tiny.post(PATH, **{**body, "temperature": 0}).json()["output"][0]["content"])
    )
    biased = tiny.post(PATH, logit_bias={"40": 100}, **body).json()["output"][0]["content"]
    assert len(set(biased[0]["text"])) == 1


# --- streams -------------------------------------------------------------------------------------


def test_the_stream_helper_ends_with_the_plain_answer(smollm: Live):
    plain = ask(smollm)
    settings = {"model": "smollm2-135m", "input": QUESTION, "temperature": 0}
    with smollm.client().responses.stream(max_output_tokens=24, **settings) as stream:
        events = list(stream)
        final = stream.get_final_response().to_dict()
    final["output"][0]["content"][0].pop("parsed")  # the helper's own
    assert without_ids(final) == without_ids(plain.to_dict())
    kinds = [event.type for event in events]
    assert list(dict.fromkeys(kinds)) == TEXT_EVENTS
    assert kinds.count("response.output_text.delta") > 3
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert deltas[-1].snapshot == plain.output_text


async def test_streams_say_what_the_plain_answers_say(http: httpx2.AsyncClient):
    """Over half characters, stop strings and log-probabilities."""

    async def one(index: int) -> None:
        rng = random.Random(index)
        body: dict[str, Any] = {
            "input": SEEDS[index % len(SEEDS)] + str(index // 8),
            "temperature": 0,
            "max_output_tokens": rng.randint(1, 40),
            "stop": [chr(rng.randrange(33, 127)) for _ in range(2)],
        }
        if index % 3 == 0:
            body |= {"include": ["message.output_text.logprobs"], "top_logprobs": 1}
        events = await streamed(http, body)
        plain = (await http.post(PATH, json=body)).json()
        last = events[-1]
        assert last["type"] == f"response.{plain['status']}"
        assert without_ids(last["response"]) == without_ids(plain)
        (item,) = last["response"]["output"]
        (part,) = item["content"]
        deltas = [e for e in events if e["type"] == "response.output_text.delta"]
        assert "".join(e["delta"] for e in deltas) == part["text"]
        assert [one for e in deltas for one in e["logprobs"]] == part["logprobs"]
        of_kind = {event["type"]: event for event in events}
        assert of_kind["response.output_text.done"]["text"] == part["text"]
        assert of_kind["response.content_part.done"]["part"] == part
        assert of_kind["response.output_item.done"]["item"] == item
        assert {e["item_id"] for e in events if "item_id" in e} == {item["id"]}
        assert len({e["response"]["id"] for e in events if "response" in e}) == 1

    await asyncio.gather(*(one(index) for index in range(32)))


def test_an_answer_without_a_word_is_an_empty_message(tiny: Live):
    eos = tiny.serving.tokenizer.eos_ids[0]
    body = {"input": "hi", "logit_bias": {str(eos): 100}, "temperature": 0}
    plain = tiny.post(PATH, **body).json()
    assert plain["output"][0]["content"][0]["text"] == "" and plain["status"] == "completed"
    events = events_of(tiny.post(PATH, stream=True, **body).text)
    kinds = [event["type"] for event in events]
    assert kinds == [kind for kind in TEXT_EVENTS if not kind.endswith(".delta")]


async def test_clients_that_leave_leave_nothing_behind(tiny: Live):
    rng = random.Random(3)
    async with httpx2.AsyncClient(base_url=tiny.url, timeout=60) as http:

        async def leave(index: int) -> None:
            asked = {"input": SEEDS[index % 8], "max_output_tokens": 300, "ignore_eos": True}
            try:
                async with asyncio.timeout(rng.random() * 0.4):
                    body = {**asked, "stream": index % 2 == 0}
                    async with http.stream("POST", PATH, json=body) as answer:
                        async for _ in answer.aiter_raw():
                            if rng.random() < 0.02:
                                break
            except TimeoutError:
                pass

        await asyncio.gather(*(leave(index) for index in range(40)))
    await until(lambda: not tiny.serving.thread.live)
    tiny.assert_nothing_left()


async def test_a_failure_after_the_first_token_is_a_failed_response(tiny_model: Path):
    llm = tiny_llm(tiny_model)
    body = {"input": "hi", "max_output_tokens": 20, "ignore_eos": True, "stream": True}
    with live(llm) as server, pytest.MonkeyPatch.context() as patch:
        heard = break_down(llm, patch)
        async with httpx2.AsyncClient(base_url=server.url) as http:
            raw = ""
            async with http.stream("POST", PATH, json=body) as answer:
                async for text in answer.aiter_text():
                    raw += text
                    heard.set()
            *events, done, last = events_of(raw)
            assert last["type"] == "response.failed" and last["response"]["status"] == "failed"
            error = last["response"]["error"]
            assert error["code"] == "server_error"
            assert error["message"].startswith("the engine failed while it ran")
            assert done["item"]["status"] == "incomplete"
            said = "".join(e["delta"] for e in events if e["type"].endswith("text.delta"))
            assert last["response"]["output"] == [done["item"]]
            assert done["item"]["content"][0]["text"] == said != ""
            assert_refused(await http.post(PATH, json=body), 500)
        server.assert_nothing_left()


# --- structured output and tools -----------------------------------------------------------------


class Capital(BaseModel):
    country: str
    capital: str


def test_a_response_is_parsed_into_a_model_plain_and_streamed(smollm: Live):
    client = smollm.client()
    settings: dict[str, Any] = {
        "model": "smollm2-135m",
        "input": "The capital of France, as JSON.",
        "text_format": Capital,
        "temperature": 0,
    }
    plain = client.responses.parse(**settings)
    assert isinstance(plain.output_parsed, Capital)
    assert plain.text.format.type == "json_schema" and plain.text.format.name == "Capital"
    with client.responses.stream(**settings) as stream:
        list(stream)
        assert stream.get_final_response().output_parsed == plain.output_parsed


def test_a_json_object_and_the_extensions_hold_an_answer(tiny: Live):
    body = {"input": "hi", "max_output_tokens": 200, "seed": 4}
    answer = tiny.post(PATH, text={"format": {"type": "json_object"}}, **body).json()
    if answer["status"] == "completed":
        assert isinstance(json.loads(answer["output"][0]["content"][0]["text"]), dict)
    chosen = tiny.post(PATH, guided_choice=["yes", "no"], **body).json()
    assert chosen["output"][0]["content"][0]["text"] in ("yes", "no")


def test_a_function_is_called_and_its_output_answered(smollm: Live):
    question = {"role": "user", "content": "What is the weather in Rome?"}
    settings = {"tools": [WEATHER], "max_output_tokens": 60}
    answer = ask(smollm, input=[question], tool_choice="required", **settings)
    call = answer.output[0]
    assert (call.type, call.name, call.status) == ("function_call", "get_weather", "completed")
    assert json.loads(call.arguments)["city"] in ("Rome", "Paris")
    assert answer.tools[0].name == "get_weather" and answer.tool_choice == "required"
    result = {
        "type": "function_call_output",
        "call_id": call.call_id,
        "output": "Rainy, 12 degrees",
    }
    follow = [question, *[item.to_dict() for item in answer.output], result]
    second = ask(smollm, input=follow, tool_choice="none", **settings)
    assert [item.type for item in second.output] == ["message"] and second.output_text
    plain = ask(smollm, input=[question], tool_choice="none", **settings)
    assert second.usage.input_tokens > plain.usage.input_tokens


async def test_a_streamed_call_says_what_the_plain_one_says(smollm: Live):
    body = {
        "input": "What is the weather in Rome?",
        "tools": [WEATHER, CRM],
        "temperature": 0,
        "max_output_tokens": 60,
    }
    for name, namespace in (("get_weather", None), ("find", "crm")):
        asked = {**body, "tool_choice": {"type": "function", "name": name}}
        plain = smollm.post(PATH, **asked).json()
        (item,) = plain["output"]
        assert item["name"] == name and item.get("namespace") == namespace
        async with httpx2.AsyncClient(base_url=smollm.url, timeout=60) as http:
            events = await streamed(http, asked)
        assert without_ids(events[-1]["response"]) == without_ids(plain)
        kinds = list(dict.fromkeys(event["type"].removeprefix("response.") for event in events))
        assert kinds == [
            "created",
            "in_progress",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "completed",
        ]
        added, *deltas, done, item_done = events[2:-1]
        assert added["item"]["arguments"] == ""
        assert "".join(e["delta"] for e in deltas) == done["arguments"] == item["arguments"]
        assert item_done["item"]["call_id"] == added["item"]["call_id"]
        assert len({e["item_id"] for e in (*deltas, done)} | {added["item"]["id"]}) == 1


def test_an_answer_is_either_held_to_a_format_or_may_call(smollm: Live):
    asked = {"input": "hi", "tools": [WEATHER], "text": {"format": {"type": "json_object"}}}
    assert assert_refused(smollm.post(PATH, **asked))["param"] == "text.format"
    answer = smollm.post(PATH, **asked, tool_choice="none", max_output_tokens=2)
    assert answer.status_code == 200


def test_the_stream_helper_parses_the_arguments_of_a_strict_function(smollm: Live):
    with smollm.client().responses.stream(
        model="smollm2-135m",
        input="What is the weather in Rome?",
        tools=[{**WEATHER, "strict": True}],
        tool_choice="required",
        parallel_tool_calls=False,
        temperature=0,
    ) as stream:
        deltas = [e for e in stream if e.type == "response.function_call_arguments.delta"]
        (call,) = stream.get_final_response().output
    assert call.parsed_arguments["city"] in ("Rome", "Paris")
    assert deltas[-1].snapshot == call.arguments


@pytest.mark.parametrize("seed", range(20))
def test_items_are_the_same_however_the_answer_is_cut(seed: int):
    text = (
        'Let me see.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n'
        '</tool_call>\n<tool_call>{"name": "crm__find", "arguments": {}}</tool_call>\nDone <b>.'
    )
    functions = {"get_weather": Function("get_weather"), "crm__find": Function("find", "crm")}
    rng = random.Random(seed)
    parser = CallParser(HERMES, functions)
    growing = Growing(begun(), functions)
    while text:
        cut = rng.randint(1, 12)
        growing.add(parser.feed(text[:cut]), [])
        text = text[cut:]
    growing.add(parser.end(), [])
    growing.end("length")
    events = [json.loads(msgspec.json.encode(event)) for event in growing.events()]
    items = json.loads(msgspec.json.encode(growing.now().output))
    assert [
        (item.get("name"), item.get("namespace"), item.get("arguments"), item["status"])
        for item in items
    ] == [
        (None, None, None, "completed"),
        ("get_weather", None, '{"city": "Rome"}', "completed"),
        ("find", "crm", "{}", "completed"),
        (None, None, None, "incomplete"),
    ]
    assert [items[at]["content"][0]["text"].strip() for at in (0, 3)] == [
        "Let me see.",
        "Done <b>.",
    ]
    for at, item in enumerate(items):
        mine = [event for event in events if event.get("output_index") == at]
        assert mine[0]["type"] == "response.output_item.added"
        assert mine[-1]["type"] == "response.output_item.done" and mine[-1]["item"] == item
        written = "".join(event.get("delta", "") for event in mine)
        assert written == (item.get("arguments") or item["content"][0]["text"])
    places = [event["output_index"] for event in events if "output_index" in event]
    assert places == sorted(places)


def begun() -> ResponseObject:
    return ResponseObject(
        id="resp_1",
        created_at=0,
        status="in_progress",
        model="tiny",
        output=[],
        instructions=None,
        max_output_tokens=None,
        max_tool_calls=None,
        metadata={},
        parallel_tool_calls=True,
        temperature=0,
        text=TextConfig(),
        tool_choice="auto",
        tools=[],
        top_logprobs=0,
        top_p=1,
    )


def test_calls_that_follow_each_other_are_one_message():
    text = {"type": "message", "role": "assistant", "content": "Let me see."}
    other = {**CALL, "call_id": "call_2", "name": "find", "namespace": "crm", "arguments": ""}
    other_result = {**RESULT, "call_id": "call_2", "output": [{"type": "input_text", "text": "x"}]}
    items = [{"role": "user", "content": "hi"}, text, CALL, other, RESULT, other_result, CALL]
    messages = conversation(ResponsesRequest(input=items))
    assert [one.role for one in messages] == ["user", "assistant", "tool", "tool", "assistant"]
    assert messages[1].content == "Let me see." and messages[4].content is None
    calls = [[call.function.name for call in one.tool_calls or ()] for one in messages]
    assert calls == [[], ["get_weather", "crm__find"], [], [], ["get_weather"]]
    assert [one.tool_call_id for one in messages] == [None, None, "call_1", "call_2", None]


async def test_what_codex_sends_is_answered(smollm: Live):
    """The fields of its requests, and its kinds of items and tools, in its second turn."""
    said = [{"type": "input_text", "text": "<environment_context>\n</environment_context>"}]
    body: dict[str, Any] = {
        "model": "smollm2-135m",
        "instructions": "You are a coding agent.",
        "input": [
            {"type": "message", "id": "msg_1", "role": "developer", "content": said},
            {"type": "message", "id": "msg_2", "role": "user", "content": said},
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"},
            {**CALL, "status": "completed"},
            {**RESULT, "id": "fco_1"},
        ],
        "tools": [{**WEATHER, "description": "The weather.", "strict": False}, CRM],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "01a20bbe-1197-7eb0-ab62-6c42fb892e88",
        "client_metadata": {"thread_id": "01a20bbe"},
        "text": {"verbosity": "medium"},
        "service_tier": "priority",
        "max_output_tokens": 16,
    }
    async with httpx2.AsyncClient(base_url=smollm.url, timeout=60) as http:
        events = await streamed(http, body)
    assert events[-1]["type"] in ("response.completed", "response.incomplete")
    usage = events[-1]["response"]["usage"]
    assert usage["input_tokens"] > 100 and 0 < usage["output_tokens"] <= 16


# --- what is not taken ---------------------------------------------------------------------------

HI = {"role": "user", "content": "hi"}
WRONG: list[tuple[dict[str, Any], str]] = [
    *[({"input": value}, "input") for value in (None, 5, True, {}, [], ["hi"], [5], [[]])],
    ({"input": [{}]}, "input[0].type"),
    ({"input": [{"type": "reasoning", "summary": []}]}, "input"),
    ({"input": [{"role": "wizard", "content": "hi"}]}, "input[0].role"),
    ({"input": [{"role": "user"}]}, "input[0].content"),
    ({"input": [{"role": "user", "content": None}]}, "input[0].content"),
    ({"input": [HI, {"role": "user", "content": 5}]}, "input[1].content"),
    ({"input": [{"role": "user", "content": ["hi"]}]}, "input[0].content"),
    ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0]"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
        "input[0].content[0]",
    ),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
    ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input[0].type"),
    ({"input": [{"type": 5}]}, "input[0].type"),
    ({"input": "x" * 600}, "input"),
    ({"instructions": 5}, "instructions"),
    *[({"max_output_tokens": value}, "max_output_tokens") for value in (0, -1, "9", 1.5, 2**31)],
    ({"max_output_tokens": 600}, "input"),
    *[({"temperature": value}, "temperature") for value in (-1, 3, "1", [])],
    *[({"top_p": value}, "top_p") for value in (-1, 2, "1")],
    *[({"top_logprobs": value}, "top_logprobs") for value in (-1, 21, "x", 2)],
    *[({"include": value}, "include") for value in ("x", ["x"], [5], {})],
    *[({"stream": value}, "stream") for value in ("yes", 1)],
    ({"stream_options": {}}, "stream_options"),
    (
        {"stream": True, "stream_options": {"include_obfuscation": True}},
        "stream_options.include_obfuscation",
    ),
    ({"stream": True, "stream_options": 5}, "stream_options"),
    *[({"text": value}, "text") for value in ("x", 5, {"format": "x"}, {"verbosity": "loud"})],
    ({"text": {"format": {}}}, "text.format"),
    ({"text": {"format": {"type": "xml"}}}, "text.format"),
    ({"text": {"format": {"type": "json_schema"}}}, "text.format.name"),
    ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
    (
        {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "x"}}}},
        "text.format",
    ),
    ({"text": {"format": {"type": "json_object", "schema": {}}}}, "text.format.schema"),
    ({"text": {"format": {"type": "json_object"}}, "regex": "x"}, "text.format"),
    *[
        ({"metadata": value}, "metadata")
        for value in ("x", {"a": 1}, {str(i): "" for i in range(17)})
    ],
    *[({"reasoning": value}, "reasoning") for value in ("high", [])],
    *[({"truncation": value}, "truncation") for value in ("auto", 5)],
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    *[({"conversation": value}, "conversation") for value in ("conv_1", {"id": "conv_1"})],
    ({"background": True}, "background"),
    *[({"prompt": value}, "prompt") for value in ("hi", {"id": "pmpt_1"})],
    ({"context_management": [{"type": "compaction"}]}, "context_management"),
    ({"n": 2}, "n"),
    ({"max_tokens": 5}, "max_tokens"),
    ({"messages": [HI]}, "messages"),
    ({"logprobs": True}, "logprobs"),
    *[({"tools": value}, "tools") for value in ("x", {}, [5])],
    *[
        ({"tools": [WEATHER, {"type": kind, "name": "x"}]}, "tools[1].type")
        for kind in ("web_search", "mcp", "custom", None, 5)
    ],
    ({"tools": [{"type": "function"}]}, "tools[0].name"),
    ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
    ({"tools": [WEATHER, WEATHER]}, "tools[1].name"),
    ({"tools": [{**WEATHER, "defer_loading": True}]}, "tools[0].defer_loading"),
    ({"tools": [{**WEATHER, "parameters": {"type": "array"}}]}, "tools[0].parameters"),
    ({"tools": [{"type": "namespace", "name": "crm"}]}, "tools[0].tools"),
    ({"tools": [{**CRM, "tools": [CRM]}]}, "tools[0].tools[0].type"),
    ({"tools": [{**CRM, "name": "c" * 64}]}, "tools[0].tools[0].name"),
    ({"tool_choice": "required"}, "tool_choice"),
    *[
        ({"tools": [WEATHER], "tool_choice": value}, "tool_choice")
        for value in ("any", 5, [], {"type": "function", "name": "x"}, {"type": "allowed_tools"})
    ],
    ({"tools": [WEATHER], "tool_choice": {"type": "function"}}, "tool_choice.name"),
    ({"input": [{**CALL, "arguments": "{"}]}, "input[0].arguments"),
    ({"input": [{**CALL, "arguments": "[]"}]}, "input[0].arguments"),
    ({"input": [{**CALL, "arguments": {}}]}, "input[0].arguments"),
    ({"input": [{**CALL, "call_id": None}]}, "input[0].call_id"),
    ({"input": [CALL, {**RESULT, "call_id": "other"}]}, "input[1].call_id"),
    ({"input": [RESULT, CALL]}, "input[0].call_id"),
    ({"input": [CALL, {**RESULT, "output": 5}]}, "input[1].output"),
    ({"input": [CALL, {**RESULT, "output": [{"type": "input_image"}]}]}, "input[1].output[0]"),
    ({"priority": 2**70}, "priority"),
    ({"seed": 2**64}, "seed"),
    ({"user": 5}, "user"),
]


def test_what_makes_no_sense_is_refused_by_name(tiny: Live):
    good = {"input": "hi", "max_output_tokens": 2}
    assert tiny.post(PATH, **good).status_code == 200
    for changes, name in WRONG:
        body = json.dumps({**good, **changes}).encode()
        error = assert_refused(tiny.send(PATH, body))
        assert name in error["message"] or (error["param"] or "").startswith(name), (changes, error)
        assert (error["param"] or name).startswith(name.partition("[")[0]), (changes, error)


def test_the_context_length_is_named_as_clients_look_for_it(tiny: Live):
    error = assert_refused(tiny.post(PATH, input="hi", max_output_tokens=600))
    assert (
        error["code"] == "context_length_exceeded" and "context length is 512" in error["message"]
    )


def test_null_is_the_same_as_absent(tiny: Live):
    good = {"input": "hi", "max_output_tokens": 3, "temperature": 0}
    names = {name for changes, _ in WRONG for name in changes} - set(good)
    plain, nulls = tiny.post(PATH, **good), tiny.post(PATH, **good, **dict.fromkeys(names))
    assert plain.status_code == nulls.status_code == 200
    assert without_ids(plain.json()) == without_ids(nulls.json())


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"input": NaN}', b'{"input": "\xff"}', b"{" * 10**5]
)
def test_what_is_no_json_object_is_refused(tiny: Live, body: bytes):
    assert_refused(tiny.send(PATH, body))


def test_random_bodies_never_break_the_server(tiny: Live):
    rng = random.Random(9)
    values: list[Any] = [None, True, -1, 0, 3, 2.5, 1e30, 10**25, "", "x", "\0", [], {}, [None]]
    values += [[1], ["a"], [HI], [{"type": "message"}], {"type": "text"}, {"format": {"type": 5}}]
    values += [[{"type": "function_call"}], [{"role": "user", "content": [{}]}], {"a": "b"}]
    names = ["input", "instructions", "include", "text", "tools", "tool_choice", "metadata"]
    names += ["max_output_tokens", "top_logprobs", "stream", "stream_options", "reasoning", "store"]
    with httpx2.Client(base_url=tiny.url, timeout=60) as client:
        for _ in range(500):
            body = {name: rng.choice(values) for name in rng.sample(names, rng.randint(1, 6))}
            body.setdefault("max_output_tokens", 2)
            answer = client.post(PATH, json=body)
            if answer.status_code != 200:
                assert_refused(answer)
            elif body.get("stream"):
                events_of(answer.text)
    tiny.assert_nothing_left()


def test_nothing_is_stored(smollm: Live):
    client = smollm.client()
    answer = ask(smollm, max_output_tokens=1, store=True)
    for find in (client.responses.retrieve, client.responses.delete):
        with pytest.raises(openai.NotFoundError, match="stores none"):
            find(answer.id)
    with pytest.raises(openai.NotFoundError):
        ask(smollm, model="gpt-9")
