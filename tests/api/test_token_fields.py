"""Fields about tokens that vLLM named: special ones in texts, ids sent along, shorter prompts."""

import json
from typing import Any

import pytest

from .conftest import Live
from .test_bad_requests import HI, TEXT

CHAT = "/v1/chat/completions"
USER, EOS = 4, 2  # of the tiny tokenizer: <|user|> and </s>


def forced(server: Live, tokens: dict[int, int], **changes: Any) -> dict[str, Any]:
    """An answer to ids, of which ``logit_bias`` has the last word."""
    bias = {str(token): value for token, value in tokens.items()}
    body = {"prompt": [USER, 40], "max_tokens": 3, "temperature": 0, "logit_bias": bias, **changes}
    return server.post(TEXT, **body).json()["choices"][0]


def test_special_tokens_are_in_the_text_where_asked(tiny: Live):
    always = {USER: 100}
    assert forced(tiny, always)["text"] == ""
    assert forced(tiny, always, skip_special_tokens=True)["text"] == ""
    assert forced(tiny, always, skip_special_tokens=False)["text"] == "<|user|>" * 3
    echoed = forced(tiny, always, skip_special_tokens=False, echo=True)
    assert echoed["text"].startswith("<|user|>") and echoed["text"].endswith("<|user|>" * 3)
    scored = forced(tiny, always, skip_special_tokens=False, echo=True, logprobs=0)["logprobs"]
    assert scored["text_offset"][0] == 0 and scored["text_offset"][1] == len("<|user|>")


def test_a_stop_string_may_be_a_special_token(tiny: Live):
    choice = forced(tiny, {USER: 100}, skip_special_tokens=False, stop="<|user|>")
    assert choice["text"] == "" and choice["finish_reason"] == "stop"


def test_the_token_that_ends_an_answer_is_no_part_of_its_text(tiny: Live):
    settings: dict[str, Any] = {"skip_special_tokens": False}
    assert forced(tiny, {EOS: 100}, **settings)["text"] == ""
    assert forced(tiny, {EOS: 100}, include_stop_str_in_output=True, **settings)["text"] == "</s>"
    assert forced(tiny, {EOS: 100}, ignore_eos=True, **settings)["text"] == "</s>" * 3
    letter = tiny.serving.tokenizer.encode("a")[0]
    ended = forced(tiny, {letter: 100}, stop_token_ids=[letter])
    assert (ended["text"], ended["finish_reason"]) == ("", "stop")
    shown = forced(tiny, {letter: 100}, stop_token_ids=[letter], include_stop_str_in_output=True)
    assert shown["text"] == "a"


def test_streams_have_the_special_tokens_of_plain_answers(tiny: Live):
    body = {"messages": HI, "max_tokens": 12, "temperature": 1, "seed": 4, "ignore_eos": True}
    body |= {"skip_special_tokens": False, "logit_bias": {str(USER): 6, str(EOS): 6}}
    with tiny.client() as client:
        extra = {name: body.pop(name) for name in ("ignore_eos", "skip_special_tokens")}
        plain = client.chat.completions.create(model="tiny", extra_body=extra, **body)
        chunks = client.chat.completions.create(model="tiny", extra_body=extra, stream=True, **body)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == plain.choices[0].message.content
    assert "<|user|>" in text or "</s>" in text


def test_token_ids_come_along_where_asked(tiny: Live):
    body = {"prompt": ["hi", "you"], "n": 2, "max_tokens": 4, "ignore_eos": True, "seed": 1}
    plain = tiny.post(TEXT, return_token_ids=True, **body).json()["choices"]
    encode = tiny.serving.tokenizer.encode
    assert [one["prompt_token_ids"] for one in plain] == [encode("hi")] * 2 + [encode("you")] * 2
    assert all(len(one["token_ids"]) == 4 for one in plain)
    without = tiny.post(TEXT, **body).json()["choices"]
    assert not any(one.keys() & {"token_ids", "prompt_token_ids"} for one in without)
    with tiny.client() as client:
        extra = {"return_token_ids": True, "ignore_eos": True}
        stream = client.completions.create(
            model="tiny", prompt=["hi", "you"], n=2, max_tokens=4, seed=1, stream=True,
            extra_body=extra,
        )  # fmt: skip
        ids: dict[int, list[int]] = {}
        prompts: dict[int, list[int]] = {}
        for chunk in stream:
            choice = chunk.choices[0].model_dump()
            ids.setdefault(choice["index"], []).extend(choice["token_ids"])
            if "prompt_token_ids" in choice:
                assert choice["index"] not in prompts
                prompts[choice["index"]] = choice["prompt_token_ids"]
    assert ids == {one["index"]: one["token_ids"] for one in plain}
    assert prompts == {one["index"]: one["prompt_token_ids"] for one in plain}


def test_an_echoed_prompt_is_none_of_the_token_ids(tiny: Live):
    body = {"prompt": [40, 41, 42], "max_tokens": 2, "ignore_eos": True, "echo": True}
    (choice,) = tiny.post(TEXT, return_token_ids=True, logprobs=1, **body).json()["choices"]
    assert choice["prompt_token_ids"] == [40, 41, 42] and len(choice["token_ids"]) == 2
    assert len(choice["logprobs"]["tokens"]) == 5


def test_chat_has_token_ids_too(tiny: Live):
    body = {"messages": HI, "max_tokens": 4, "seed": 1, "return_token_ids": True}
    answer = tiny.post(CHAT, **body).json()
    conversation = tiny.post("/tokenize", messages=HI).json()["tokens"]
    assert answer["prompt_token_ids"] == conversation
    ids = answer["choices"][0]["token_ids"]
    assert len(ids) == answer["usage"]["completion_tokens"]
    lines = tiny.post(CHAT, stream=True, **body).text.split("\n\n")
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert chunks[0]["prompt_token_ids"] == conversation
    assert not any("prompt_token_ids" in chunk for chunk in chunks[1:])
    streamed = [token for c in chunks for token in c["choices"][0].get("token_ids", [])]
    assert streamed == ids


@pytest.mark.parametrize("most", [1, 7, 300, 10_000])
def test_a_prompt_is_cut_to_its_last_tokens(tiny: Live, most: int):
    prompt = [40 + number % 50 for number in range(300)]
    body = {"prompt": prompt, "max_tokens": 2, "truncate_prompt_tokens": most, "echo": True}
    answer = tiny.post(TEXT, return_token_ids=True, **body).json()
    assert answer["choices"][0]["prompt_token_ids"] == prompt[-most:]
    assert answer["usage"]["prompt_tokens"] == min(most, 300)
    expected = tiny.serving.tokenizer.decode(prompt[-most:])
    assert answer["choices"][0]["text"].startswith(expected)


def test_a_prompt_over_the_context_may_be_cut_into_it(tiny: Live):
    asked = {"prompt": "x" * 2000, "max_tokens": 2}
    assert tiny.post(TEXT, **asked).status_code == 400
    assert tiny.post(TEXT, truncate_prompt_tokens=100, **asked).status_code == 200
    chat = {"messages": [{"role": "user", "content": "x" * 2000}], "max_tokens": 2}
    answer = tiny.post(CHAT, truncate_prompt_tokens=100, **chat)
    assert answer.json()["usage"]["prompt_tokens"] == 100
