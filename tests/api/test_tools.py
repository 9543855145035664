"""Tools in chat, as OpenAI's own package sends and reads them.

What a model says is scripted here, token for token, where a test is about what becomes of it: a
random model would not call anything. Its templates are small ones with the conventions of their
families.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import openai
import pytest
from minisgl_tui.api.tool_template import ToolTemplate, spelled_out, tool_template
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.plan import Plan, Runner, StepOutput
from minisgl_tui.engine.request import Request
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.tokenizer import Tokenizer

from .conftest import TEMPLATE, Live, live, make_tiny, tiny_llm
from .test_bad_requests import assert_refused

CHAT = "/v1/chat/completions"
QUESTION = [{"role": "user", "content": "Weather in Rome?"}]
CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
WEATHER: Any = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}
NOW: Any = {"type": "function", "function": {"name": "now", "description": "The time"}}
TOOLS = [WEATHER, NOW]

HERMES_TEMPLATE = """\
{%- if tools %}<|system|>{% if messages[0].role == "system" %}{{ messages[0].content }}
{% endif %}<tools>{% for tool in tools %}{{ "\n" + tool | tojson }}{% endfor %}{{ "\n" }}</tools>
{%- elif messages[0].role == "system" %}<|system|>{{ messages[0].content }}{% endif %}
{%- for message in messages %}
{%- if message.role == "tool" %}<|user|><tool_response>{{ message.content }}</tool_response>
{%- elif message.role != "system" %}<|{{ message.role }}|>{{ message.content }}
{%- for call in message.tool_calls or [] %}{{ "\n" }}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}{% endif %}{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""

LLAMA3_TEMPLATE = """\
{%- for message in messages %}{% if message.tool_calls %}
{%- set call = message.tool_calls[0].function %}
{%- if message.tool_calls | length > 1 %}{{ raise_exception("One call at a time!") }}{% endif -%}
<|assistant|>{"name": "{{ call.name }}", "parameters": {{ call.arguments | tojson }}}</s>
{%- elif message.role == "tool" %}<|user|>{{ {"output": message.content} | tojson }}</s>
{%- else %}<|{{ message.role }}|>
{%- if loop.index == 1 and tools %}{% for tool in tools %}{{ tool | tojson }}
{% endfor %}{% endif %}{{ message.content }}</s>{% endif %}{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""

MISTRAL_TEMPLATE = """\
{%- if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}{% endif %}
{%- for message in messages %}{{ message.content }}
{%- for call in message.tool_calls or [] %}[TOOL_CALLS][{{ call.function | tojson }}]{% endfor %}
{%- endfor %}"""


class Script(Runner):
    """The model computes as ever, but what it says is ``texts``: one for each sample of a prompt,
    then the end."""

    def __init__(self, runner: Runner, tokenizer: Tokenizer) -> None:
        self.texts: tuple[str, ...] = ()
        self.prompts: list[str] = []
        self._runner = runner
        self._tokenizer = tokenizer

    def execute(self, plan: Plan) -> StepOutput:
        output = self._runner.execute(plan)
        return replace(output, tokens=[self._next(r.request) for r in plan.rows if r.samples])

    def check(self, params: SamplingParams) -> None:
        self._runner.check(params)

    def _next(self, request: Request) -> int:
        said = self._tokenizer.encode(self.texts[request.id - request.group])
        if not request.output:
            prompt = request.tokens[: request.prompt_len]
            self.prompts.append("".join(map(self._tokenizer.token_text, prompt)))
        return [*said, *self._tokenizer.eos_ids][len(request.output)]


@dataclass
class Scripted:
    server: Live
    script: Script

    def ask(self, *texts: str, **changes: Any) -> Any:
        """The answer to a request for which the model says ``texts``."""
        self.script.texts = texts
        settings: dict[str, Any] = {"model": "tiny", "messages": QUESTION, "tools": TOOLS}
        settings |= {"n": len(texts)} if len(texts) > 1 else {}
        return self.server.client().chat.completions.create(**{**settings, **changes})

    def say(self, text: str, **changes: Any) -> Any:
        """Its only choice, which streams must come to as well, by OpenAI's own adding up."""
        plain = self.ask(text, **changes)
        (choice,) = plain.choices
        added = accumulated(self.ask(text, stream=True, **changes))
        assert without_ids(added.message) == without_ids(choice.message)
        assert added.finish_reason == choice.finish_reason
        return choice


@contextmanager
def scripted(directory: Path, **settings: Any) -> Iterator[Scripted]:
    llm = tiny_llm(directory, num_blocks=2048)
    assert llm.tokenizer
    script = Script(llm.engine.runner, llm.tokenizer)
    llm.engine.runner = script
    with live(llm, **settings) as server:
        yield Scripted(server, script)
        server.assert_nothing_left()


def accumulated(stream: Any) -> Any:
    from openai.lib.streaming.chat import ChatCompletionStreamState

    state = ChatCompletionStreamState()
    for chunk in stream:
        state.handle_chunk(chunk)
    return state.current_completion_snapshot.choices[0]


def without_ids(message: Any) -> Any:
    calls = [(c.type, c.function.name, c.function.arguments) for c in message.tool_calls or []]
    return message.content, calls


@pytest.fixture(scope="module")
def hermes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scripted]:
    """Qwen's kind: the markers are text."""
    directory = tmp_path_factory.mktemp("hermes")
    make_tiny(directory, template=HERMES_TEMPLATE, max_position_embeddings=4096)
    with scripted(directory) as one:
        yield one


@pytest.fixture(scope="module")
def hermes_special(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scripted]:
    """Hermes 2 Pro's kind: the markers are special tokens, which have no text in an answer."""
    directory = tmp_path_factory.mktemp("hermes-special")
    markers = ("<tool_call>", "</tool_call>")
    make_tiny(directory, *markers, template=HERMES_TEMPLATE, max_position_embeddings=4096)
    with scripted(directory) as one:
        yield one


@pytest.fixture(scope="module")
def llama3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scripted]:
    directory = tmp_path_factory.mktemp("llama3")
    make_tiny(directory, "<|python_tag|>", template=LLAMA3_TEMPLATE, max_position_embeddings=4096)
    with scripted(directory) as one:
        yield one


@pytest.fixture(scope="module")
def untold(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scripted]:
    """A model whose template knows nothing of tools, as the default one's."""
    directory = tmp_path_factory.mktemp("untold")
    make_tiny(directory, max_position_embeddings=4096)
    with scripted(directory) as one:
        yield one


def call(name: str, arguments: str, key: str = "arguments") -> str:
    return f'{{"name": "{name}", "{key}": {arguments}}}'


def marked(name: str, arguments: str) -> str:
    return f"<tool_call>\n{call(name, arguments)}\n</tool_call>"


ROME = '{"city": "Rome", "n": [1, "}"],  "è": "\\u00e9 日本"}'


# --- what the model says -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "text", "content"),
    [
        ("hermes", marked("get_weather", ROME), None),
        (
            "hermes",
            "<think>\nHm.\n</think>\n\n" + marked("get_weather", ROME),
            "<think>\nHm.\n</think>",
        ),
        ("hermes_special", "Let me see. " + marked("get_weather", ROME) + "\n", "Let me see."),
        ("untold", marked("get_weather", ROME), None),
        ("llama3", call("get_weather", ROME, "parameters"), None),
        ("llama3", "<|python_tag|>" + call("get_weather", ROME, "parameters"), None),
        ("llama3", "Sure.<|python_tag|>" + call("get_weather", ROME, "parameters"), "Sure."),
    ],
)
def test_a_call_comes_with_its_arguments_to_the_letter(
    request: pytest.FixtureRequest, model: str, text: str, content: str | None
):
    choice = request.getfixturevalue(model).say(text)
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == content
    (found,) = choice.message.tool_calls
    assert found.type == "function" and found.id.startswith("call_")
    assert found.function.name == "get_weather" and found.function.arguments == ROME


def test_a_stream_begins_a_call_with_its_name_and_goes_on_with_its_arguments(hermes: Scripted):
    text = "Hm. " + marked("get_weather", ROME) + marked("now", "{}")
    chunks = list(hermes.ask(text, stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert deltas[0].role == "assistant"
    first, *others = [one for delta in deltas for one in delta.tool_calls or []]
    assert (first.index, first.type, first.function.arguments) == (0, "function", "")
    assert first.function.name == "get_weather"
    rest = [one for one in others if one.index == 0]
    assert all(one.id is None and one.function.name is None for one in rest)
    # A token is a byte here, so most of them come alone.
    assert "".join(one.function.arguments for one in rest) == ROME
    assert len(rest) > len(ROME) * 0.9
    second = others[len(rest)]
    assert (second.index, second.function.name) == (1, "now") and second.id != first.id
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons[-1] == "tool_calls" and not any(reasons[:-1])


def test_several_calls_are_told_apart(hermes: Scripted, llama3: Scripted):
    both = [("get_weather", ROME), ("now", "{}")]
    texts = (
        (hermes, "\n".join(marked(*one) for one in both)),
        (llama3, "; ".join(call(*one, key="parameters") for one in both)),
    )
    for model, text in texts:
        calls = model.say(text).message.tool_calls
        assert [(one.function.name, one.function.arguments) for one in calls] == both
        assert len({one.id for one in calls}) == 2


def test_without_parallel_calls_the_answer_ends_with_the_first(hermes: Scripted):
    text = "\n".join([marked("get_weather", ROME), marked("now", "{}")])
    choice = hermes.say(text, parallel_tool_calls=False)
    (found,) = choice.message.tool_calls
    assert found.function.name == "get_weather" and choice.finish_reason == "tool_calls"
    usage = hermes.ask(text, parallel_tool_calls=False).usage
    assert usage.completion_tokens == len(text[: text.index("\n</tool_call>")].encode())


def test_each_of_several_choices_has_its_own_calls(hermes: Scripted):
    texts = (marked("now", "{}"), "No.", "Hm." + marked("get_weather", ROME))
    plain = hermes.ask(*texts)
    found = [(c.message.content, len(c.message.tool_calls or [])) for c in plain.choices]
    assert found == [(None, 1), ("No.", 0), ("Hm.", 1)]
    reasons = [choice.finish_reason for choice in plain.choices]
    assert reasons == ["tool_calls", "stop", "tool_calls"]
    for chunk in hermes.ask(*texts, stream=True):
        (choice,) = chunk.choices
        assert choice.index != 1 or choice.delta.tool_calls is None
        if choice.finish_reason:
            assert choice.finish_reason == reasons[choice.index]


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("hermes", "<tool_call>\nget_weather(Rome)\n</tool_call>"),
        ("hermes", '<tool_call>\n{"name": "get_weather"}\n</tool_call>'),
        ("hermes", " 3 < 4 <tool"),
        ("hermes_special", "<tool_call>oh</tool_call> no"),
        ("llama3", '{"name": "Ann", "age": 5}'),
        ("llama3", "<|python_tag|>print(1)"),
        ("hermes", ""),
    ],
)
def test_what_is_no_call_is_content(request: pytest.FixtureRequest, model: str, text: str):
    choice = request.getfixturevalue(model).say(text)
    assert choice.message.content == (text or None)
    assert choice.message.tool_calls is None and choice.finish_reason == "stop"


def test_the_markup_of_calls_is_plain_content_where_none_are_wanted(hermes: Scripted):
    text = marked("now", "{}")
    for changes in ({"tool_choice": "none"}, {"tools": openai.omit}, {"tools": []}):
        choice = hermes.say(text, **changes)
        assert choice.message.content == text and choice.finish_reason == "stop"
        assert "<tools>" not in hermes.script.prompts[-1]


def test_an_answer_of_nothing_may_be_sent_back(hermes: Scripted):
    message = hermes.say("").message
    assert message.content is None and not message.tool_calls
    history = [*QUESTION, message.to_dict(), *QUESTION]
    assert hermes.say("Hello", messages=history).message.content == "Hello"


def test_a_call_that_is_cut_off_ends_with_length(hermes: Scripted):
    text = marked("get_weather", ROME)
    cut = text.index("Rome") + 2
    choice = hermes.say(text, max_completion_tokens=cut)
    assert choice.finish_reason == "length"
    assert choice.message.tool_calls[0].function.arguments == '{"city": "Ro'
    early = hermes.say(text, max_completion_tokens=20)
    assert early.finish_reason == "length" and early.message.content == text[:20]


def test_stop_strings_are_looked_for_in_what_the_model_writes(hermes: Scripted):
    text = "Hm. " + marked("get_weather", '{"city": "Rome"}') + " More."
    choice = hermes.say(text, stop="</tool_call>")
    assert choice.message.content == "Hm."
    assert choice.message.tool_calls[0].function.arguments == '{"city": "Rome"}'
    choice = hermes.say(text, stop=["<tool_call>"])
    assert choice.message.content == "Hm. " and choice.message.tool_calls is None
    assert choice.finish_reason == "stop"


def test_log_probabilities_stay_one_a_token(hermes: Scripted):
    text = "Hm. " + marked("now", "{}")
    for parallel in (True, False):
        settings = {"logprobs": True, "parallel_tool_calls": parallel}
        answer = hermes.ask(text, **settings)
        chosen = [entry.token for entry in answer.choices[0].logprobs.content]
        assert len(chosen) == answer.usage.completion_tokens
        assert "".join(chosen).removesuffix("</s>") in text
        streamed = [
            entry.token
            for chunk in hermes.ask(text, stream=True, **settings)
            for entry in (chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else [])
        ]
        assert streamed == chosen


def test_the_stream_helper_of_openai_gives_calls_one_by_one(hermes: Scripted):
    hermes.script.texts = (
        "Hm. " + marked("get_weather", '{"city": "Rome"}') + marked("now", "{}"),
    )
    strict = {**WEATHER, "function": {**WEATHER["function"], "strict": False}}
    with hermes.server.client().chat.completions.stream(
        model="tiny", messages=QUESTION, tools=[strict, NOW]
    ) as stream:
        events = list(stream)
        final = stream.get_final_completion().choices[0]
    done = [e for e in events if e.type == "tool_calls.function.arguments.done"]
    assert [(e.name, e.arguments) for e in done] == [
        ("get_weather", '{"city": "Rome"}'),
        ("now", "{}"),
    ]
    assert final.finish_reason == "tool_calls" and final.message.content == "Hm."


# --- what the model is told ----------------------------------------------------------------------


def history(text: str | None = None) -> list[dict[str, Any]]:
    calls = [
        {
            "id": name,
            "type": "function",
            "function": {"name": function, "arguments": arguments},
        }
        for name, function, arguments in (
            ("a", "get_weather", '{"city": "Rome"}'),
            ("b", "now", ""),
        )
    ]
    return [
        {"role": "system", "content": "Be brief."},
        *QUESTION,
        {"role": "assistant", "content": text, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "a", "content": "sunny"},
        {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "noon"}]},
    ]


def told(model: Scripted, messages: list[dict[str, Any]], **more: Any) -> str:
    """The prompt that a conversation makes, by ``/tokenize``."""
    answer = model.server.post("/tokenize", messages=messages, **more)
    assert answer.status_code == 200, answer.text
    tokenizer = model.server.serving.tokenizer
    return "".join(map(tokenizer.token_text, answer.json()["tokens"]))


def test_tools_are_told_by_the_models_own_template(hermes: Scripted):
    prompt = told(hermes, QUESTION, tools=TOOLS)
    head, _, rest = prompt.partition("<tools>\n")
    assert head == "<|system|>"
    first, second, end = rest.splitlines()
    assert json.loads(first)["function"] == {**WEATHER["function"], "description": ""}
    assert json.loads(second)["function"] == {
        **NOW["function"],
        "parameters": {"type": "object", "properties": {}},
    }
    assert end == "</tools><|user|>Weather in Rome?<|assistant|>"
    hermes.ask("Hi.")
    assert hermes.script.prompts[-1] == prompt
    assert told(hermes, QUESTION, tools=TOOLS, tool_choice="none") == told(hermes, QUESTION)


def test_calls_and_results_of_earlier_turns_are_told_in_the_models_own_form(hermes: Scripted):
    prompt = told(hermes, history("Hm."), tools=TOOLS)
    assert prompt.endswith(
        '<|assistant|>Hm.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n'
        '</tool_call>\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
        "<|user|><tool_response>sunny</tool_response><|user|><tool_response>noon</tool_response>"
        "<|assistant|>"
    )
    assert told(hermes, history(), tools=TOOLS) == prompt.replace("Hm.", "")


def test_a_template_without_tools_is_told_of_them_in_plain_messages(untold: Scripted):
    prompt = told(untold, history("Hm."), tools=TOOLS)
    system, user, assistant, results, end = prompt.removeprefix("<|system|>").split("<|")[:5]
    assert system.startswith("Be brief.\n\nYou can call functions.")
    listed = system.partition("<tools>\n")[2].partition("\n</tools>")[0].splitlines()
    assert [json.loads(line)["function"]["name"] for line in listed] == ["get_weather", "now"]
    assert user == "user|>Weather in Rome?"
    assert assistant == (
        'assistant|>Hm.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n'
        '</tool_call>\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    )
    assert results == (
        "user|><tool_response>\nsunny\n</tool_response>\n<tool_response>\nnoon\n</tool_response>"
    )
    assert end == "assistant|>"
    # Without tools in this request, what was called before is told all the same.
    assert told(untold, history("Hm.")).endswith(f"<|{assistant}<|{results}<|{end}")


def test_a_description_finds_a_place_where_no_system_message_may_be():
    spec = {"type": "function", "function": {"name": "now"}}
    (first, second), (only,) = (
        spelled_out([{"role": "user", "content": "Hi"}], [spec], system) for system in (True, False)
    )
    assert (first["role"], second["content"]) == ("system", "Hi")
    assert only == {"role": "user", "content": f"{first['content']}\n\nHi"}


def test_a_call_is_answered_and_the_answer_used(hermes: Scripted):
    """The round that every agent goes through, with what the client itself got."""
    message = hermes.say(marked("get_weather", '{"city": "Rome"}')).message
    (asked,) = message.tool_calls
    result = {"role": "tool", "tool_call_id": asked.id, "content": "sunny"}
    choice = hermes.say("It is sunny.", messages=[*QUESTION, message, result])
    assert choice.message.content == "It is sunny." and choice.finish_reason == "stop"
    assert hermes.script.prompts[-1].endswith(
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
        "<|user|><tool_response>sunny</tool_response><|assistant|>"
    )


def test_what_a_template_cannot_tell_is_refused_in_its_own_words(llama3: Scripted):
    answer = llama3.server.post(CHAT, messages=history(), tools=TOOLS)
    assert "One call at a time!" in assert_refused(answer)["message"]


# --- which form a model's calls have -------------------------------------------------------------


def template(
    directory: Path, text: str | None, parser: str = "auto", *special: str
) -> ToolTemplate:
    make_tiny(directory, *special, template=text or TEMPLATE)
    tokenizer = Tokenizer(directory)
    return tool_template(tokenizer, parser)


def test_the_format_is_the_one_that_reads_what_the_template_writes(tmp_path: Path):
    cases: list[tuple[str, str | None, bool]] = [
        (HERMES_TEMPLATE, "hermes", True),
        # Opened with a thought, which a turn of the past has not.
        (HERMES_TEMPLATE.replace("<|assistant|>{%", "<|assistant|><think>\n{%"), "hermes", True),
        (LLAMA3_TEMPLATE, "llama3", True),
        (MISTRAL_TEMPLATE, None, True),
        (HERMES_TEMPLATE.replace('"arguments":', '"input":'), None, True),
        (TEMPLATE, "hermes", False),
        ("{% if tools %}{{ raise_exception('no') }}{% endif %}" + TEMPLATE, "hermes", False),
    ]
    for text, name, shown in cases:
        found = template(tmp_path, text)
        assert (found.format.name if found.format else None, found.shown) == (name, shown), text
        assert bool(found.refusal) == (name is None)


def test_special_tokens_that_mark_calls_are_known_by_their_ids(tmp_path: Path):
    assert template(tmp_path, HERMES_TEMPLATE).markers == {}
    found = template(tmp_path, HERMES_TEMPLATE, "auto", "<tool_call>", "</tool_call>")
    assert sorted(found.markers.values()) == ["</tool_call>", "<tool_call>"]
    tagged = template(tmp_path, LLAMA3_TEMPLATE, "auto", "<|python_tag|>", "<tool_call>")
    assert list(tagged.markers.values()) == ["<|python_tag|>"]


def test_the_format_can_be_chosen_and_a_wrong_choice_is_refused(tmp_path: Path):
    found = template(tmp_path, MISTRAL_TEMPLATE, "llama3").format
    assert found and found.name == "llama3"
    off = template(tmp_path, HERMES_TEMPLATE, "none")
    assert off.format is None and "--tool-parser none" in off.refusal
    for text, parser in ((TEMPLATE, "llama3"), (HERMES_TEMPLATE, "pythonic")):
        with pytest.raises(UserError, match=f"--tool-parser is '?{parser}"):
            template(tmp_path, text, parser)


def test_tools_are_refused_where_their_calls_cannot_be_read(tiny_model: Path):
    with live(tiny_llm(tiny_model), tool_parser="none") as server:
        error = assert_refused(server.post(CHAT, messages=QUESTION, tools=TOOLS))
        assert "--tool-parser none" in error["message"] and error["param"] == "tools"
        answer = server.post(CHAT, messages=QUESTION, tools=TOOLS, tool_choice="none", max_tokens=2)
        assert answer.status_code == 200


# --- bad requests --------------------------------------------------------------------------------


def function(**changes: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", **changes}}


def tool_message(**changes: Any) -> list[dict[str, Any]]:
    return [*history()[:3], {"role": "tool", "content": "x", "tool_call_id": "a", **changes}]


def called(**changes: Any) -> list[dict[str, Any]]:
    one = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}, **changes}
    return [*QUESTION, {"role": "assistant", "tool_calls": [one]}]


NAMED = {"type": "function", "function": {"name": "other"}}


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"tools": [NOW, 5]}, "tools[1]"),
        ({"tools": [{}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        *[
            ({"tools": [function(name=name)]}, "tools[0].function.name")
            for name in ("", "a b", "é", "x" * 65, "a.b", "a\n")
        ],
        ({"tools": [function(name=5)]}, "tools[0].function.name"),
        ({"tools": [NOW, WEATHER, NOW]}, "tools[2].function.name"),
        ({"tools": [function(parameters=[])]}, "tools[0].function.parameters"),
        ({"tools": [function(parameters={"type": "string"})]}, "tools[0].function.parameters"),
        ({"tools": [function(parameters={"properties": []})]}, "tools[0].function.parameters"),
        ({"tools": [function(parameters={"required": [1]})]}, "tools[0].function.parameters"),
        ({"tools": [function(strict="yes")]}, "tools[0].function.strict"),
        ({"tools": [function(description=5)]}, "tools[0].function.description"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": NAMED}, "tool_choice"),
        ({"tool_choice": "always", "tools": TOOLS}, "tool_choice"),
        ({"tool_choice": NAMED, "tools": TOOLS}, "tool_choice"),
        ({"tool_choice": {"type": "function"}, "tools": TOOLS}, "tool_choice.function"),
        ({"tool_choice": {"type": "allowed_tools"}, "tools": TOOLS}, "tool_choice.type"),
        ({"parallel_tool_calls": "no", "tools": TOOLS}, "parallel_tool_calls"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": {"name": "f"}}, "function_call"),
        ({"messages": tool_message(tool_call_id=None)}, "messages[3].tool_call_id"),
        ({"messages": tool_message(tool_call_id="z")}, "messages[3].tool_call_id"),
        ({"messages": tool_message(content=None)}, "messages[3].content"),
        ({"messages": tool_message(role="user")}, "messages[3].tool_call_id"),
        ({"messages": tool_message(role="function")}, "messages[3].role"),
        ({"messages": called(id=None)}, "messages[1].tool_calls[0].id"),
        ({"messages": called(type="custom")}, "messages[1].tool_calls[0].type"),
        (
            {"messages": called(function={"name": "f"})},
            "messages[1].tool_calls[0].function.arguments",
        ),
        *[
            (
                {"messages": called(function={"name": "f", "arguments": text})},
                "messages[1].tool_calls[0].function.arguments",
            )
            for text in ("{", "[]", "5", "x", "[" * 100_000, '"{}"')
        ],
        (
            {"messages": called(function={"name": "f", "arguments": {}})},
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            {"messages": [{**called()[1], "role": "user", "content": "x"}]},
            "messages[0].tool_calls",
        ),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_by_the_place_of_it(
    hermes: Scripted, changes: dict[str, Any], param: str
):
    settings = {"messages": QUESTION, "max_tokens": 2}
    error = assert_refused(hermes.server.post(CHAT, **{**settings, **changes}))
    assert error["param"] == param, error


def test_arguments_that_are_no_text_for_a_tokenizer_are_refused(hermes: Scripted):
    """Half a surrogate pair, which JSON can spell and UTF-8 cannot; and schemas of great depth."""
    half = called(function={"name": "f", "arguments": '{"a": "\\ud800"}'})
    assert_refused(hermes.server.post(CHAT, messages=half, max_tokens=2))
    body = json.dumps({"messages": QUESTION, "tools": [function(parameters={"properties": 5})]})
    for depth in (100, 300, 450, 1000, 50_000):
        deep = '{"a":' * depth + "{}" + "}" * depth
        answer = hermes.server.send(CHAT, body.replace("5", deep).encode())
        if depth < 1000 and answer.status_code == 200:
            continue
        assert_refused(answer)
