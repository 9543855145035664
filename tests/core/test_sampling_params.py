"""What sampling parameters may say, and the one line that says what is wrong."""

import re
from typing import Any

import msgspec
import pytest
from helpers import Bench
from minisgl_tui.engine.errors import RequestRefused
from minisgl_tui.engine.sampling import Grammar, SamplingParams


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"presence_penalty": 2.1}, "presence_penalty is 2.1; it must be between -2 and 2"),
        ({"frequency_penalty": -3}, "frequency_penalty is -3; it must be between -2 and 2"),
        ({"frequency_penalty": float("nan")}, "frequency_penalty is nan; it must be"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0; it must be a number above 0"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty is inf; it must be"),
        ({"logit_bias": {7: 101}}, "logit_bias of token 7 is 101; it must be between -100 and 100"),
        ({"logit_bias": {7: float("nan")}}, "logit_bias of token 7 is nan; it must be"),
        ({"logit_bias": {"7": 1}}, "logit_bias is {'7': 1}; expected int"),
        ({"logit_bias": dict.fromkeys(range(999), "x")}, "logit_bias is {0: 'x', 1: 'x', 2:"),
        ({"prompt_logprobs": 21}, "prompt_logprobs is 21; it must be 0 to 20"),
        ({"logprobs": -1}, "logprobs is -1; it must be 0 to 20"),
        ({"min_tokens": -1}, "min_tokens is -1; it must be 0 to max_tokens, which is 128"),
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens is 9; it must be 0 to max_tokens, which"),
        ({"min_tokens": 1.5}, "min_tokens is 1.5; expected int"),
        ({"grammar": "[0-9]+"}, "grammar is '[0-9]+'; expected object | null, got str"),
    ],
)
def test_a_bad_value_is_named_with_what_it_must_be(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        SamplingParams(**settings)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_the_bounds_themselves_are_allowed() -> None:
    SamplingParams(presence_penalty=-2, frequency_penalty=2, logit_bias={0: 100, 1: -100.0})
    SamplingParams(repetition_penalty=1e-300, min_tokens=4, max_tokens=4)


@pytest.mark.parametrize("token", [-1, 50])
def test_a_bias_outside_the_vocabulary_is_refused_with_the_numbers(token: int) -> None:
    bench = Bench(vocab_size=50)
    params = SamplingParams(logit_bias={3: 1.0, token: 1.0})
    says = f"logit_bias: token id {token} is not in the model's vocabulary; ids run from 0 to 49"
    with pytest.raises(RequestRefused, match=says):
        bench.engine.check([1, 2], params)
    with pytest.raises(RequestRefused, match=says):
        bench.engine.submit([1, 2], params)
    assert not bench.engine.has_work()


def test_parameters_survive_a_recording() -> None:
    params = SamplingParams(logit_bias={5: -1.5}, repetition_penalty=1.2, min_tokens=3)
    assert msgspec.json.decode(msgspec.json.encode(params), type=SamplingParams) == params
    assert msgspec.json.encode(SamplingParams()) == b"{}"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (("xml", "a"), "grammar: kind is 'xml'; it must be json_schema, regex or lark"),
        (("regex", 7), "grammar: source is 7; it must be text"),
        (("regex", "\ud800"), "grammar: the source is no valid Unicode"),
    ],
)
def test_a_grammar_of_no_kind_or_source_is_refused(fields: tuple[Any, Any], says: str) -> None:
    with pytest.raises(RequestRefused, match=re.escape(says)):
        Grammar(*fields)


@pytest.mark.parametrize("options", [[], [""], ["a", 7]])
def test_a_choice_wants_texts(options: Any) -> None:
    with pytest.raises(RequestRefused, match="give a list of texts, none of them empty"):
        Grammar.choice(options)


def test_a_grammar_survives_a_recording_and_equal_ones_are_one() -> None:
    params = SamplingParams(grammar=Grammar.json({"type": "string", "const": "ä\n"}))
    again = msgspec.json.decode(msgspec.json.encode(params), type=SamplingParams)
    assert again == params and again.grammar is not params.grammar
    assert len({again.grammar, params.grammar, Grammar("regex", "a")}) == 2


def test_a_runner_that_cannot_apply_a_grammar_refuses_it_before_anything_runs() -> None:
    bench = Bench()
    for ask in (bench.engine.check, bench.engine.submit):
        with pytest.raises(RequestRefused, match="this runner takes no grammar"):
            ask([1, 2], SamplingParams(grammar=Grammar("regex", "a")))
    assert not bench.engine.has_work()
