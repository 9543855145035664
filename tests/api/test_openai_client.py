"""OpenAI's own Python package against a live server with the default model."""

from pathlib import Path

import openai
import pytest

from .conftest import Live, live, tiny_llm
from .waiting import until

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
CHAT = {"model": "smollm2-135m", "messages": QUESTION, "temperature": 0, "max_tokens": 24}


def ask(server: Live, **changes):
    return server.client().chat.completions.create(**{**CHAT, **changes})


def test_a_chat_answers_the_question_and_counts_its_tokens(smollm: Live):
    answer = ask(smollm)
    (choice,) = answer.choices
    assert "Paris" in choice.message.content
    assert choice.message.role == "assistant" and choice.message.refusal is None
    assert choice.finish_reason == "stop"
    assert answer.object == "chat.completion" and answer.model == "smollm2-135m"
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert 0 < usage.completion_tokens < 24


def test_a_prompt_that_comes_again_is_found_in_the_cache(smollm: Live):
    first = ask(smollm, messages=[{"role": "user", "content": "Count the planets, slowly."}])
    again = ask(smollm, messages=[{"role": "user", "content": "Count the planets, slowly."}])
    prompt = again.usage.prompt_tokens
    assert again.usage.prompt_tokens_details.cached_tokens == (prompt - 1) // 16 * 16
    assert first.choices[0].message.content == again.choices[0].message.content


def test_a_cache_salt_keeps_prefixes_apart(smollm: Live):
    chat = [{"role": "user", "content": "A secret that is only shared within one salt, please."}]
    cached = [
        ask(smollm, messages=chat, extra_body={"cache_salt": salt}).usage.prompt_tokens_details
        for salt in ("a", "b", "a")
    ]
    assert [bool(details.cached_tokens) for details in cached] == [False, False, True]


def test_a_stream_says_what_the_plain_answer_says(smollm: Live):
    plain = ask(smollm)
    chunks = list(ask(smollm, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == plain.choices[0].message.content
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert reasons[-1] == "stop" and not any(reasons[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == plain.usage.completion_tokens
    assert len({(c.id, c.created, c.model, c.object) for c in chunks}) == 1


def test_without_include_usage_every_chunk_has_a_choice_and_no_usage(smollm: Live):
    for chunk in ask(smollm, stream=True):
        assert len(chunk.choices) == 1 and chunk.usage is None


def test_log_probabilities_come_with_bytes_and_the_likeliest_first(smollm: Live):
    (choice,) = ask(smollm, logprobs=True, top_logprobs=3).choices
    content = choice.logprobs.content
    assert b"".join(bytes(one.bytes) for one in content[:-1]).decode() == choice.message.content
    for one in content:
        values = [top.logprob for top in one.top_logprobs]
        assert len(values) == 3 and values == sorted(values, reverse=True)
        assert one.logprob == values[0] <= 0  # greedy
        assert one.token == one.top_logprobs[0].token
    streamed = [
        entry
        for chunk in ask(smollm, logprobs=True, top_logprobs=3, stream=True)
        if chunk.choices[0].logprobs
        for entry in chunk.choices[0].logprobs.content
    ]
    assert [one.token for one in streamed] == [one.token for one in content]


def test_logprobs_alone_list_no_others(smollm: Live):
    (choice,) = ask(smollm, logprobs=True).choices
    assert all(one.top_logprobs == [] for one in choice.logprobs.content)


def test_several_choices_of_one_seed_differ_and_repeat(smollm: Live):
    settings = {"temperature": 1.0, "seed": -7, "n": 3, "max_tokens": 12}
    first, again = (
        {choice.index: choice.message.content for choice in ask(smollm, **settings).choices}
        for _ in range(2)
    )
    assert sorted(first) == [0, 1, 2] and first == again
    assert len(set(first.values())) > 1


def test_a_stop_string_ends_the_text_before_it(smollm: Live):
    whole = ask(smollm).choices[0].message.content
    stop = whole[8:14]  # lies across the borders of tokens
    for stream in (False, True):
        answer = ask(smollm, stop=["never", stop], stream=stream)
        if stream:
            chunks = list(answer)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            reason = chunks[-1].choices[0].finish_reason
        else:
            text, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
        assert text == whole[: whole.index(stop)] and reason == "stop"


def test_the_length_limit_is_named_either_way(smollm: Live):
    for name in ("max_tokens", "max_completion_tokens"):
        answer = ask(smollm, **{"max_tokens": None, name: 3})
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.completion_tokens == 3


def test_completions_take_batches_of_texts_and_of_ids(smollm: Live):
    client = smollm.client()
    settings = {"model": "smollm2-135m", "temperature": 0, "max_tokens": 6}
    texts = ["The capital of France is", "One, two, three,"]
    ids = [smollm.serving.tokenizer.encode(text) for text in texts]
    by_text = client.completions.create(prompt=texts, n=2, **settings)
    by_ids = client.completions.create(prompt=ids, n=2, **settings)
    assert [choice.index for choice in by_text.choices] == [0, 1, 2, 3]
    assert [c.text for c in by_text.choices] == [c.text for c in by_ids.choices]
    assert by_text.choices[0].text == by_text.choices[1].text != by_text.choices[2].text
    assert by_text.usage.prompt_tokens == sum(map(len, ids))
    assert by_text.usage.completion_tokens == 24


def test_completion_logprobs_say_where_each_token_begins(smollm: Live):
    (choice,) = (
        smollm.client()
        .completions.create(
            model="smollm2-135m",
            prompt="The capital of France is",
            temperature=0,
            max_tokens=8,
            logprobs=2,
            echo=False,
        )
        .choices
    )
    shape = choice.logprobs
    assert len(shape.tokens) == len(shape.top_logprobs) == len(shape.text_offset) == 8
    for token, offset in zip(shape.tokens, shape.text_offset, strict=True):
        assert choice.text[offset:].startswith(token)
    for token, logprob, top in zip(
        shape.tokens, shape.token_logprobs, shape.top_logprobs, strict=True
    ):
        assert top[token] == logprob == max(top.values()) and len(top) == 2


def test_a_prompt_is_echoed_before_its_answer(smollm: Live):
    settings = {"model": "smollm2-135m", "prompt": "One, two,", "temperature": 0, "max_tokens": 4}
    client = smollm.client()
    plain = client.completions.create(**settings).choices[0].text
    assert client.completions.create(echo=True, **settings).choices[0].text == "One, two," + plain
    streamed = client.completions.create(echo=True, stream=True, **settings)
    assert "".join(chunk.choices[0].text for chunk in streamed) == "One, two," + plain
    none = client.completions.create(echo=True, **{**settings, "max_tokens": 0})
    assert none.choices[0].text == "One, two," and none.choices[0].finish_reason == "length"
    assert none.usage.completion_tokens == 0


def test_an_echo_with_log_probabilities_scores_the_prompt_as_lm_eval_asks(smollm: Live):
    """Batches of ids, one token more, and no difference when the prefix is cached."""
    tokenizer = smollm.serving.tokenizer
    ids = [tokenizer.encode(t) for t in ("The capital of France is Paris. 😀", "One, two, three")]
    settings = {"model": "smollm2-135m", "prompt": ids, "temperature": 0, "logprobs": 1}
    create = smollm.client().completions.create
    cold, warm = (create(max_tokens=1, echo=True, **settings).choices for _ in range(2))
    none = create(max_tokens=0, echo=True, **settings).choices
    for index, tokens in enumerate(ids):
        shape = cold[index].logprobs
        assert len(shape.tokens) == len(shape.token_logprobs) == len(tokens) + 1
        assert shape.token_logprobs[0] is None and shape.top_logprobs[0] is None
        assert none[index].logprobs.token_logprobs == shape.token_logprobs[:-1]
        assert warm[index].logprobs.token_logprobs == pytest.approx(shape.token_logprobs, abs=1e-4)
        for name, offset in zip(shape.tokens, shape.text_offset, strict=True):
            assert name.startswith("bytes:") or cold[index].text[offset:].startswith(name)
        for token, logprob, top in list(
            zip(shape.tokens, shape.token_logprobs, shape.top_logprobs, strict=True)
        )[1:]:
            assert top[token] == logprob <= max(top.values())
        for length in (len(tokens) - 1, 3):  # each is what the model says after those before it
            (choice,) = create(
                max_tokens=1, **{**settings, "prompt": tokens[:length], "logprobs": 20}
            ).choices
            (likely,) = choice.logprobs.top_logprobs
            name = shape.tokens[length]
            if name in likely:
                assert likely[name] == pytest.approx(shape.token_logprobs[length], abs=1e-4)


def test_penalties_and_biases_reach_the_sampler(smollm: Live):
    tokenizer = smollm.serving.tokenizer
    (paris,) = tokenizer.encode(" Paris")
    (berlin,) = tokenizer.encode(" Berlin")
    settings = {"model": "smollm2-135m", "prompt": "The capital of France is", "temperature": 0}
    create = smollm.client().completions.create
    assert create(max_tokens=1, **settings).choices[0].text == " Paris"
    for bias, text in (({str(berlin): 100}, " Berlin"), ({str(paris): -100}, None)):
        (choice,) = create(max_tokens=1, logit_bias=bias, **settings).choices
        assert choice.text == text if text else choice.text != " Paris"
    loop = {"prompt": "a a a a a a a a", "max_tokens": 12}
    plain = create(**{**settings, **loop}).choices[0].text
    for change in (
        {"frequency_penalty": 2.0},
        {"presence_penalty": 2.0},
        {"extra_body": {"repetition_penalty": 1.8}},
    ):
        assert create(**{**settings, **loop}, **change).choices[0].text != plain


def test_text_parts_and_developer_messages_are_read_like_plain_ones(smollm: Live):
    plain = ask(smollm, messages=[{"role": "system", "content": "Be brief."}, *QUESTION])
    parts = [{"type": "text", "text": "What is the capital of France?"}]
    other = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    assert ask(smollm, messages=other).choices[0].message == plain.choices[0].message


def test_an_answer_begun_is_gone_on_with(smollm: Live):
    begun = [*QUESTION, {"role": "assistant", "content": "The capital of France is"}]
    answer = ask(smollm, messages=begun, extra_body={"continue_final_message": True})
    assert answer.choices[0].message.content.startswith(" Paris")


def test_models_are_listed_and_found(smollm: Live):
    client = smollm.client()
    (card,) = client.models.list().data
    assert card.id == "smollm2-135m" and card.max_model_len == 8192
    assert client.models.retrieve("smollm2-135m").id == card.id
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("some/other")


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_model_is_a_404_that_names_it(smollm: Live, stream: bool):
    with pytest.raises(openai.NotFoundError) as raised:
        ask(smollm, model="gpt-9", stream=stream)
    assert raised.value.code == "model_not_found" and raised.value.param == "model"


def test_a_prompt_beyond_the_context_is_refused_with_the_numbers(smollm: Live):
    create = smollm.client().completions.create
    with pytest.raises(openai.BadRequestError, match=r"maximum context length is 8192.*9000") as e:
        create(model="smollm2-135m", prompt=[5] * 9000, max_tokens=0)
    assert e.value.code == "context_length_exceeded"
    assert "context_length_exceeded" in str(e.value)  # where LangChain finds it
    with pytest.raises(openai.BadRequestError, match=r"\(3 in the prompt, 8190 in the"):
        create(model="smollm2-135m", prompt=[5] * 3, max_tokens=8190)


def test_a_wrong_key_and_a_full_queue_raise_what_programs_wait_for(tiny_model: Path):
    llm = tiny_llm(tiny_model, max_running_requests=1)
    with live(llm, api_key="s3cret", max_queued=1) as server:
        with pytest.raises(openai.AuthenticationError) as wrong:
            server.client().models.list()
        assert wrong.value.code == "invalid_api_key"
        create = server.client().with_options(api_key="s3cret").completions.create
        settings = {"model": "tiny", "prompt": "x", "extra_body": {"ignore_eos": True}}
        with create(n=2, max_tokens=400, stream=True, **settings) as stream:
            next(iter(stream))
            with pytest.raises(openai.RateLimitError) as full:
                create(max_tokens=1, **settings)
        assert full.value.code == "queue_full"
        assert int(full.value.response.headers["retry-after"]) >= 1


async def test_a_client_that_closes_its_stream_ends_the_request(smollm: Live):
    stream = await smollm.async_client().chat.completions.create(
        **{**CHAT, "max_tokens": 4000, "stream": True}, extra_body={"ignore_eos": True}
    )
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    assert smollm.engine.requests
    await stream.close()
    await nothing_runs(smollm)


async def test_a_call_that_times_out_ends_the_request(smollm: Live):
    with pytest.raises(openai.APITimeoutError):
        await smollm.async_client(timeout=0.5).chat.completions.create(
            **{**CHAT, "max_tokens": 4000, "n": 2}, extra_body={"ignore_eos": True}
        )
    await nothing_runs(smollm)


async def nothing_runs(server: Live) -> None:
    await until(lambda: not server.serving.thread.live, seconds=3)
    server.assert_nothing_left()
