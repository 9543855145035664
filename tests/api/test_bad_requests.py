"""Whatever a client sends, the answer is a 4xx in OpenAI's shape that names the field."""

import json
import math
import random
import socket
import time
from typing import Any

import httpx2
import pytest
from minisgl_tui.api.app import ROUTES
from minisgl_tui.api.not_here import NOT_HERE

from .conftest import Live

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
HI = [{"role": "user", "content": "hi"}]


def assert_refused(answer: httpx2.Response, status: int = 400) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["error"]
    error = body["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert isinstance(error["message"], str) and len(error["message"]) < 1000
    assert "\n" not in error["message"]
    assert not any(trace in error["message"] for trace in ("Traceback", ".py", "/tmp", "/home"))
    for name in ("param", "code"):
        assert error[name] is None or isinstance(error[name], str)
    return error


FIELDS: list[tuple[str, Any]] = [
    *[
        (name, value)
        for name in ("temperature", "top_p", "min_p")
        for value in ("1", -1, 3, [], {})
    ],
    *[(name, value) for name in ("presence_penalty", "frequency_penalty") for value in (-3, 2.1)],
    *[("repetition_penalty", value) for value in (0, -1, "x")],
    *[("n", value) for value in (0, -1, 129, 10**30, 1.5, True, "2")],
    *[("max_tokens", value) for value in (-1, 1.5, "9", True, 10**30, [])],
    *[("seed", value) for value in (2**63, -(2**63) - 1, "x", 1.5)],
    *[("top_k", value) for value in (-2, 1.5, 2**31, "x")],
    *[("stop", value) for value in ("", [""], [1], {}, 5, ["x"] * 65, "x" * 1025)],
    *[("stream", value) for value in ("true", 1, [])],
    *[("stream_options", value) for value in ({"include_usage": True}, "x", [], 1)],
    *[("logit_bias", value) for value in ({"x": 1}, {"-1": 1}, {"1.5": 1}, {"99999": 1}, [])],
    *[("logit_bias", value) for value in ({"5": 101}, {"5": "x"}, {"5": None}, {"9" * 99: 1})],
    *[("stop_token_ids", value) for value in ([-1], [99999], ["x"], 5)],
    *[("min_tokens", value) for value in (-1, 17, "x")],
    *[("priority", value) for value in ("x", 1.5, 2**70)],
    *[("cache_salt", value) for value in (5, [], True)],
    *[("ignore_eos", value) for value in ("x", 1)],
    *[("model", value) for value in (5, [], {})],
    *[("user", value) for value in (5, [])],
    *[("metadata", value) for value in (5, "x", [])],
    *[("tools", value) for value in ([{}], "x", {})],
    *[("tool_choice", value) for value in ("required", {"type": "function"})],
    *[("response_format", value) for value in ({"type": "xml"}, {}, "json")],
    *[("best_of", value) for value in (2, 0, True)],
    *[("suffix", value) for value in ("x", 5)],
    *[("skip_special_tokens", value) for value in ("no", 0)],
    *[("return_token_ids", value) for value in ("yes", 1)],
    *[("truncate_prompt_tokens", value) for value in (0, -1, 1.5, "x")],
    *[("prompt_logprobs", value) for value in (0, 5)],
    *[(name, {}) for name in ("structured_outputs", "guided_choice", "regex", "lora_path")],
    *[(name, "x") for name in ("prompt_embeds", "custom_logit_processor", "stop_regex")],
    *[("bad_words", value) for value in (["a"], "x")],
    *[("allowed_token_ids", value) for value in ([], [5])],
    ("return_tokens_as_token_ids", True),
    ("truncation_side", "right"),
    ("extra_key", "mine"),
    ("max_completion_tokens", -1),
    ("stop_token_ids", [5] * 1025),
    ("use_beam_search", True),
    ("return_hidden_states", True),
]


@pytest.mark.parametrize("path", [TEXT, CHAT])
def test_a_field_of_a_wrong_type_or_range_is_refused_by_name(tiny: Live, path: str):
    """Over 100 bodies, each with one wrong field."""
    good = {"max_tokens": 16, **({"prompt": "hi"} if path == TEXT else {"messages": HI})}
    assert tiny.post(path, **good).status_code == 200
    for name, value in FIELDS:
        answer = tiny.post(path, **{**good, name: value})
        assert answer.status_code == 400, (name, value)
        error = assert_refused(answer)
        assert name in error["message"], (name, value, error)
        assert (error["param"] or name).startswith(name), (name, value, error)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("prompt", value) for value in ([], [[]], [1, "a"], [[1], "a"], [-1], [99999], 5, {})],
        *[("prompt", value) for value in ("", [True], [1.5], [[1], []], [None], [["a"]], None)],
        *[("logprobs", value) for value in (-1, 21, True, "x", 1.5)],
        ("echo", "x"),
    ],
)
def test_completions_refuse_what_is_no_prompt(tiny: Live, name: str, value: Any):
    body = {"prompt": "hi", "max_tokens": 2, name: value}
    error = assert_refused(tiny.post(TEXT, **body))
    assert name in error["message"] or name == error["param"]


@pytest.mark.parametrize(
    "changes",
    [
        *[{"messages": value} for value in ([], None, "hi", {}, [5], ["hi"], [[]], [{}])],
        {"messages": [{"role": "wizard", "content": "hi"}]},
        {"messages": [{"role": "tool", "content": "hi", "tool_call_id": "1"}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        {"messages": [{"role": "user", "content": ["hi"]}]},
        {"messages": [*HI, {"role": "assistant", "content": "", "tool_calls": [{}]}]},
        {"messages": [{"content": "hi"}]},
        {"top_logprobs": 2},
        {"logprobs": True, "top_logprobs": 21},
        {"logprobs": True, "top_logprobs": -1},
        {"logprobs": 5},
        {"max_completion_tokens": -1},
        {"chat_template_kwargs": {"chat_template": "{{ 1 }}"}},
        {"chat_template_kwargs": {"tokenize": False}},
        {"chat_template_kwargs": {"messages": []}},
        {"chat_template_kwargs": []},
        {"chat_template": "{{ 1 }}"},
        {"continue_final_message": True, "add_generation_prompt": True},
    ],
    ids=str,
)
def test_chat_refuses_what_is_no_conversation(tiny: Live, changes: dict[str, Any]):
    assert_refused(tiny.post(CHAT, **{"messages": HI, "max_tokens": 2, **changes}))


GOOD: dict[str, dict[str, Any]] = {
    TEXT: {"prompt": "hi", "max_tokens": 2},
    CHAT: {"messages": HI, "max_tokens": 2},
    "/v1/responses": {"input": "hi", "max_output_tokens": 2},
    "/tokenize": {"prompt": "hi"},
    "/detokenize": {"tokens": [40]},
}


def test_every_route_that_takes_a_body_is_among_those_that_get_bad_ones():
    assert {route.path for route in ROUTES if route.body} == GOOD.keys()


@pytest.mark.parametrize("path", GOOD)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"5",
        b'"x"',
        b"\xff\xfe",
        b'{"prompt": "\xff"}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": NaN}',
        b'{"temperature": Infinity, "prompt": "x"}',
        b'{"temperature": 1e999, "prompt": "x"}',
        b'{"prompt": ' + b"[" * 100_000,
        b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"n": "x", "metadata": {"a": ' + b"[" * 900 + b"]" * 900 + b"}}",
        b'{"prompt": "x"} trailing',
        b"prompt=x",
    ],
    ids=lambda body: body[:20].decode("latin-1"),
)
def test_what_is_no_json_object_is_refused(tiny: Live, path: str, body: bytes):
    assert_refused(tiny.send(path, body))


def test_another_content_type_is_refused(tiny: Live):
    body = b'{"prompt": "x"}'
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        assert (
            "content type"
            in assert_refused(tiny.send(TEXT, body, **{"content-type": kind}))["message"]
        )
    kind = "application/json; charset=utf-8"
    assert tiny.send(TEXT, body, **{"content-type": kind}).status_code == 200


VALUES: list[Any] = [None, True, -1, 0, 1, 3, 2.5, 1e30, 10**25, "", "x", "\0", "\u202e", [], {}]
VALUES += [[None], [1], ["a"], [[1]], {"type": "text"}, {"5": 1}, [{"role": "user"}], math.pi]


@pytest.mark.parametrize("path", GOOD)
def test_good_bodies_with_a_few_random_values_never_break_the_server(tiny: Live, path: str):
    """Fields of the route, or known ones that are not done, with values of any type."""
    rng = random.Random(path)
    (route,) = (route for route in ROUTES if route.path == path)
    assert route.body
    names = [*route.body.__struct_fields__, *NOT_HERE]
    with httpx2.Client(base_url=tiny.url, timeout=60) as client:
        for _ in range(1000):
            changes = {name: rng.choice(VALUES) for name in rng.sample(names, rng.randint(1, 3))}
            answer = client.post(path, json={**GOOD[path], **changes})
            if answer.status_code != 200:
                assert_refused(
                    answer, 404 if "model" in changes and answer.status_code == 404 else 400
                )
    tiny.assert_nothing_left()


def test_a_field_of_the_other_endpoint_is_refused_with_what_to_send_instead(tiny: Live):
    for name, value, instead in (
        ("messages", HI, "send prompt"),
        ("top_logprobs", 2, "send logprobs: N"),
    ):
        error = assert_refused(tiny.post(TEXT, **{"prompt": "hi", "max_tokens": 2, name: value}))
        assert error["param"] == name and instead in error["message"]
    for name, value in (("prompt", "hi"), ("echo", True), ("add_special_tokens", True)):
        error = assert_refused(tiny.post(CHAT, **{"messages": HI, "max_tokens": 2, name: value}))
        assert error["param"] == name


def test_max_completion_tokens_counts_on_both_endpoints(tiny: Live):
    asked = {"max_completion_tokens": 3, "max_tokens": 9, "ignore_eos": True}
    for path, prompt in ((TEXT, {"prompt": "hi"}), (CHAT, {"messages": HI})):
        assert tiny.post(path, **prompt, **asked).json()["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        (TEXT, {"prompt": "long " * 2_000_000}, "However, you requested at least"),
        (CHAT, {"messages": [{"role": "user", "content": "long " * 2_000_000}]}, "at least"),
        ("/v1/responses", {"input": "long " * 2_000_000}, "at least"),
        (TEXT, {"prompt": [5] * 5_000_000}, "at least 5000000 tokens"),
        (TEXT, {"prompt": [[5]] * 3_000_000}, "3000000 answers are asked for at once"),
        (TEXT, {"prompt": "long " * 2_000_000, "truncate_prompt_tokens": 5}, "more than 131072"),
        ("/tokenize", {"prompt": "long " * 2_000_000}, "more than 131072 tokens"),
        (
            CHAT,
            {
                "messages": HI,
                "tools": [
                    {"type": "function", "function": {"name": f"f{i}"}} for i in range(100_000)
                ],
            },
            "at least",
        ),
        (TEXT, {"prompt": "hi", "stop_token_ids": [5] * 5_000_000}, "5000000 items"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_can_never_run_is_refused_without_reading_all_of_it(
    tiny: Live, path: str, body: dict[str, Any], words: str
):
    """Ten megabytes that a clumsy client sends keep nobody waiting for minutes."""
    content = json.dumps(body).encode()
    began = time.perf_counter()
    answer = tiny.send(path, content)
    assert time.perf_counter() - began < 20  # a second or two on a machine that is not busy
    assert words in assert_refused(answer)["message"]


def test_null_is_the_same_as_absent_for_every_field(tiny: Live):
    names = [name for name, _ in FIELDS]
    for path, prompt in ((TEXT, {"prompt": "hi"}), (CHAT, {"messages": HI})):
        body: dict[str, Any] = {**prompt, "max_tokens": 3, "temperature": 0}
        nulls = {name: None for name in names if name not in body}
        plain, with_nulls = tiny.post(path, **body), tiny.post(path, **nulls, **body)
        assert plain.status_code == 200
        assert plain.json()["choices"] == with_nulls.json()["choices"]


def test_whole_floats_count_as_integers(tiny: Live):
    body = (
        b'{"prompt": [5.0, 6.0], "max_tokens": 3.0, "n": 1.0, "seed": 1e3, "stop_token_ids": [7.0]}'
    )
    answer = tiny.send(TEXT, body)
    assert answer.status_code == 200 and answer.json()["usage"]["prompt_tokens"] == 2
    assert tiny.send("/detokenize", b'{"tokens": [40.0]}').status_code == 200


def test_values_that_ask_for_nothing_are_taken(tiny: Live):
    """What SGLang's router and the benchmarks of vLLM and SGLang add to every body."""
    for extra in (
        {"no_stop_trim": False, "ignore_eos": False, "skip_special_tokens": True},
        {"return_hidden_states": False, "best_of": 1, "repetition_penalty": 1.0},
        {"logprobs": None, "stop": None, "user": "me", "top_k": -1, "tools": [], "suffix": None},
        {"response_format": {"type": "text"}, "tool_choice": "none"},
    ):
        assert tiny.post(TEXT, prompt="hi", max_tokens=2, **extra).status_code == 200
    chat = {"separate_reasoning": True, "stream_reasoning": True, "continue_final_message": False}
    assert tiny.post(CHAT, messages=HI, max_completion_tokens=2, **chat).status_code == 200


def test_unknown_routes_and_methods_are_refused_in_the_same_shape(tiny: Live):
    assert_refused(tiny.get("/v1/nothing"), 404)
    assert_refused(tiny.post("/v1/embeddings", input="x"), 404)
    assert_refused(tiny.get(TEXT), 405)
    assert_refused(tiny.post("/v1/models"), 405)


def test_detokenize_refuses_ids_that_are_none(tiny: Live):
    for ids in ([-1], [99999], ["x"], 5, [2**70]):
        assert_refused(tiny.post("/detokenize", tokens=ids))
    assert tiny.post("/detokenize", tokens=[]).json() == {"prompt": ""}


def test_tokenize_takes_a_text_or_a_conversation(tiny: Live):
    tokenizer = tiny.serving.tokenizer
    answer = tiny.post("/tokenize", prompt="héllo").json()
    assert answer["tokens"] == tokenizer.encode("héllo")
    assert answer["count"] == len(answer["tokens"]) and answer["max_model_len"] == 512
    chat = tiny.post("/tokenize", messages=HI).json()["tokens"]
    assert chat == tokenizer.apply_chat([{"role": "user", "content": "hi"}])
    assert tiny.post("/detokenize", tokens=answer["tokens"]).json() == {"prompt": "héllo"}
    assert_refused(tiny.post("/tokenize"))
    assert_refused(tiny.post("/tokenize", prompt="x", messages=HI))


def test_half_a_body_that_never_goes_on_leaves_nothing(tiny: Live):
    host, port = tiny.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 999\r\n\r\n{json.dumps({'a': 1})}".encode())
    assert tiny.post(TEXT, prompt="hi", max_tokens=2).status_code == 200
    tiny.assert_nothing_left()
