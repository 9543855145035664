"""LangChain and LiteLLM against a running server: what their users do first, and what comes back.

    python3 -m venv ../clients && ../clients/bin/pip install langchain-openai litellm mcp
    ../clients/bin/python tests/clients/smoke.py http://127.0.0.1:30000

Run by hand: the packages change weekly and bring half of PyPI along. Prints a line for each step,
and ends with an exception where an answer is not what the client's users would expect. The model
may be as small as the default one: what is checked is the shape of answers, not their sense.
"""

# pyright: reportMissingImports=false, reportMissingModuleSource=false

import os
import sys
from typing import Any

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or it fetches one

import litellm
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openai import OpenAI
from pydantic import BaseModel, Field

URL = sys.argv[1].rstrip("/") + "/v1"
MODEL = OpenAI(base_url=URL, api_key="any").models.list().data[0].id
QUESTION = "What is the capital of France?"
TOO_LONG = "very long " * 20_000


class City(BaseModel):
    """A city and its country."""

    name: str = Field(max_length=20)
    country: str = Field(max_length=20)


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def said(what: str, value: Any) -> None:
    print(f"{what:34} {' '.join(str(value).split())[:110]}")


def langchain() -> None:
    settings: dict[str, Any] = {"base_url": URL, "api_key": "any", "model": MODEL, "temperature": 0}
    chat = ChatOpenAI(**settings, max_tokens=48, stream_usage=True)
    answer = chat.invoke(QUESTION)
    assert isinstance(answer.content, str) and answer.usage_metadata
    said("langchain invoke", answer.content)
    chunks = list(chat.stream(QUESTION))
    assert "".join(str(chunk.content) for chunk in chunks) == answer.content
    usage = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    assert [one["output_tokens"] for one in usage] == [answer.usage_metadata["output_tokens"]]
    said("langchain stream, usage", f"{len(chunks)} chunks, {usage[0]}")
    batch = chat.batch([QUESTION, "Name a colour."])
    assert batch[0].content == answer.content
    said("langchain batch", [one.content for one in batch])

    city = chat.with_structured_output(City, method="json_schema").invoke(QUESTION)
    assert isinstance(city, City)
    said("langchain structured output", repr(city))

    forced = chat.bind_tools([weather], tool_choice="required", parallel_tool_calls=False)
    called = forced.invoke("Weather in Paris?")
    assert isinstance(called, AIMessage)
    (call,) = called.tool_calls
    assert call["name"] == "weather" and isinstance(call["args"]["city"], str)
    said("langchain tool call", call)
    result = ToolMessage("sunny in Paris", tool_call_id=call["id"])
    after = chat.bind_tools([weather]).invoke([HumanMessage("Weather in Paris?"), called, result])
    said("langchain after the tool", after.content or after.tool_calls)

    try:
        chat.invoke(TOO_LONG)
    except Exception as error:
        assert type(error).__name__ == "OpenAIContextOverflowError", repr(error)
        said("langchain, too long a prompt", f"{type(error).__name__}: {error}")
    else:
        raise AssertionError("a prompt over the context was not refused")

    spoken = ChatOpenAI(**settings, use_responses_api=True, max_tokens=48).invoke(QUESTION)
    said("langchain by /v1/responses", spoken.text)


def lite() -> None:
    litellm.suppress_debug_info = True
    settings: dict[str, Any] = {
        "model": f"hosted_vllm/{MODEL}",
        "api_base": URL,
        "api_key": "any",
        "temperature": 0,
        "max_tokens": 48,
    }
    messages = [{"role": "user", "content": QUESTION}]
    answer: Any = litellm.completion(messages=messages, **settings)
    text = answer.choices[0].message.content
    assert answer.usage.prompt_tokens > 0 and text
    said("litellm completion", text)
    stream: Any = litellm.completion(
        messages=messages, stream=True, stream_options={"include_usage": True}, **settings
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text
    usage = [chunk.usage for chunk in chunks if getattr(chunk, "usage", None)]
    assert usage[-1].completion_tokens == answer.usage.completion_tokens
    said("litellm stream, usage", f"{len(chunks)} chunks, {usage[-1].total_tokens} tokens")
    formatted: Any = litellm.completion(messages=messages, response_format=City, **settings)
    said(
        "litellm structured output", City.model_validate_json(formatted.choices[0].message.content)
    )
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    function = {"name": "weather", "parameters": {**parameters, "required": ["city"]}}
    called: Any = litellm.completion(
        messages=messages,
        tools=[{"type": "function", "function": function}],
        tool_choice="required",
        **settings,
    )
    said("litellm tool call", called.choices[0].message.tool_calls[0].function)
    try:
        litellm.completion(messages=[{"role": "user", "content": TOO_LONG}], **settings)
    except litellm.ContextWindowExceededError as error:
        said("litellm, too long a prompt", f"{type(error).__name__}: {error}")
    else:
        raise AssertionError("a prompt over the context was not refused")


if __name__ == "__main__":
    langchain()
    lite()
