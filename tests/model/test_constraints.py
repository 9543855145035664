"""Grammars: what the next token may be, what an answer comes to, and what is no grammar."""

import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llguidance import LLParserLimits
from minisgl_tui.engine import LLM, Grammar, SamplingParams
from minisgl_tui.engine.errors import RequestRefused
from minisgl_tui.engine.events import Preempted
from minisgl_tui.engine.request import Request
from minisgl_tui.engine.runner import constraints, grammars
from minisgl_tui.engine.runner.adjuster import Adjuster
from minisgl_tui.engine.runner.constraints import Constraints
from minisgl_tui.engine.runner.grammars import Grammars
from minisgl_tui.engine.tokenizer import Tokenizer

from .harness import make_checkpoint, random_tokens
from .tiny_tokenizers import save_byte_level, save_sentencepiece, save_word_piece

EOS = 2
VOCAB = 320  # of the model; the tokenizer has fewer
PATIENT = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
REGEX = Grammar("regex", "[0-9]{2,4}")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    make_checkpoint("llama", path, vocab_size=VOCAB)
    return save_byte_level(path)


@pytest.fixture(scope="module")
def compiled(checkpoint: Path) -> Grammars:
    return Grammars(Tokenizer(checkpoint), VOCAB)


def request(text: str = "", grammar: Grammar | None = REGEX, **settings: Any) -> Request:
    """One that has said ``text`` so far, a byte a token."""
    made = Request(0, [5, 6], SamplingParams(grammar=grammar, **settings))
    made.ends = frozenset({EOS, 999, *made.params.stop_token_ids})
    made.tokens += spelled(text)
    return made


def spelled(text: str) -> list[int]:
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = sorted(ByteLevel.alphabet())
    printable = {ord(letter): letter for letter in alphabet if ord(letter) < 0x7F}
    return [3 + alphabet.index(printable[byte]) for byte in text.encode()]


def allowed(compiled: Grammars, *requests: Request) -> list[set[int]]:
    """The tokens that may come next, by request."""
    logits = torch.zeros(len(requests), VOCAB)
    mask = Constraints(compiled).mask(requests)
    adjusted = Adjuster().adjust(logits, requests, mask)
    return [set(row.isfinite().nonzero()[:, 0].tolist()) for row in adjusted]


DIGITS = set(spelled("0123456789"))


# --- the mask ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "text_goes_on", "may_end"),
    [("", True, False), ("4", True, False), ("42", True, True), ("4242", False, True)],
)
def test_the_mask_is_what_the_grammar_allows(
    compiled: Grammars, text: str, text_goes_on: bool, may_end: bool
):
    twelve = Tokenizer.encode_within(compiled._text, "12")
    assert len(twelve) == 1
    expected = {EOS} if may_end else set()
    if text_goes_on:
        expected |= DIGITS | set(twelve)
    (found,) = allowed(compiled, request(text))
    assert found == expected


def test_a_token_that_would_go_too_far_is_not_allowed(compiled: Grammars):
    (found,) = allowed(compiled, request("123"))
    assert found == DIGITS | {EOS}  # not the token "12"


@pytest.mark.parametrize("count", [1, 3, 9])
def test_only_the_rows_that_ask_are_touched(compiled: Grammars, count: int):
    logits = torch.randn(2 * count, VOCAB)
    before = logits.clone()
    requests = [request("42", REGEX if row % 2 else None) for row in range(2 * count)]
    adjusted = Adjuster().adjust(logits, requests, Constraints(compiled).mask(requests))
    assert torch.equal(logits, before)
    assert torch.equal(adjusted[::2], before[::2])
    kept = adjusted[1::2].isfinite()
    assert torch.equal(adjusted[1::2][kept], before[1::2][kept])
    assert kept.sum() == count * len(allowed(compiled, request("42"))[0])


def test_a_step_without_a_grammar_has_no_mask(compiled: Grammars):
    assert Constraints(compiled).mask([request(grammar=None)]) is None
    assert Constraints(compiled).mask([]) is None


@pytest.mark.parametrize("settings", [{"min_tokens": 9}, {"ignore_eos": True}])
def test_an_answer_kept_from_ending_ends_where_the_grammar_cannot_go_on(
    compiled: Grammars, settings: dict[str, Any]
):
    going, complete = allowed(
        compiled, request("42", max_tokens=99, **settings), request("4242", **settings)
    )
    assert going >= DIGITS and EOS not in going
    assert complete == {EOS}


def test_a_stop_token_that_is_text_ends_only_where_it_fits(compiled: Grammars):
    seven, special = spelled("7")[0], 1
    settings: dict[str, Any] = {"stop_token_ids": (seven, special)}
    begun, complete = allowed(compiled, request("", **settings), request("4242", **settings))
    assert seven in begun and special not in begun and EOS not in begun
    assert complete == {EOS, special}


def test_a_bias_cannot_bring_back_what_the_grammar_bans(compiled: Grammars):
    letter = spelled("x")[0]
    (found,) = allowed(compiled, request("42", logit_bias={letter: 100.0}, repetition_penalty=0.1))
    assert letter not in found


def test_where_a_request_is_goes_with_the_request(compiled: Grammars):
    following, one = Constraints(compiled), request("")
    following.mask([one])
    one.tokens += spelled("42")
    mask = following.mask([one])
    assert mask and not mask.ending and len(following._places) == 1
    one.tokens += spelled("42")
    mask = following.mask([one])
    assert mask and mask.ending == {0}
    del one
    assert not following._places


def test_every_row_has_a_token_to_choose_whatever_the_grammar(compiled: Grammars):
    """Walks random ways through grammars; an answer can always go on or end."""
    rng = np.random.default_rng(0)
    for source in ('start: "a"* "b"?', 'start: "(" start ")" | "x"', 'start: ""', "start: /.*/"):
        one = request("", Grammar("lark", source))
        for _ in range(30):
            (found,) = allowed(compiled, one)
            assert found
            token = int(rng.choice(sorted(found)))
            if token in one.ends:
                break
            one.tokens.append(token)


# --- through a whole engine ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def llm(checkpoint: Path) -> LLM:
    return make(checkpoint)


def make(checkpoint: Path, **settings: Any) -> LLM:
    defaults: dict[str, Any] = {"dtype": "float32", "device": "cpu", "num_blocks": 256}
    return LLM(str(checkpoint), **{**defaults, **settings})


SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    {"type": "array", "items": {"type": "boolean"}, "maxItems": 4},
    {"enum": ["red", "green", 7, None, {"x": [1]}, 20_000_000_000]},
    {"type": "string", "maxLength": 6},
    {"type": "string", "pattern": "^[a-f]{1,3}-é$"},
    {"type": ["number", "null"], "minimum": -1.5, "maximum": 20_000_000_000},
    {"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 10, "maximum": 12}]},
    {"type": "string", "format": "date"},
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 4},
            "tags": {"type": "array", "items": {"enum": ["x", "y"]}, "maxItems": 2},
            "in": {"$ref": "#/$defs/point"},
        },
        "required": ["name", "tags", "in"],
        "additionalProperties": False,
        "$defs": {
            "point": {
                "type": "object",
                "properties": {"x": {"type": "integer"}, "y": {"const": 0}},
                "required": ["x", "y"],
                "additionalProperties": False,
            }
        },
    },
]


@PATIENT
@given(
    st.sampled_from(SCHEMAS),
    st.sampled_from([0.0, 0.7, 3.0]),
    st.fixed_dictionaries(
        {},
        optional={
            "top_k": st.sampled_from([1, 5]),
            "top_p": st.just(0.8),
            "min_p": st.just(0.2),
            "frequency_penalty": st.just(2.0),
            "repetition_penalty": st.just(1.5),
            "min_tokens": st.just(40),
            "ignore_eos": st.just(True),
            "logit_bias": st.just({EOS: 100.0, spelled("}")[0]: -100.0}),
            "seed": st.integers(0, 1000),
        },
    ),
)
def test_every_answer_that_is_not_cut_is_json_of_its_schema(
    llm: LLM, schema: dict[str, Any], temperature: float, more: dict[str, Any]
):
    params = SamplingParams(
        temperature=temperature, max_tokens=160, grammar=Grammar.json(schema), **more
    )
    [answer] = llm.generate("hello", params)
    assert answer.finish_reason in ("stop", "length"), answer.message
    if answer.finish_reason == "stop":
        assert answer.token_ids[-1] == EOS
        jsonschema_rs.validator_for(schema).validate(json.loads(answer.text))


def test_json_has_no_endless_blanks(llm: LLM):
    """Not even of a model that would write nothing else."""
    blanks = dict.fromkeys(llm.tokenizer.encode_within(" \n\t\r"), 100.0)  # pyright: ignore
    grammar = Grammar.json({"type": "array", "items": {"enum": [1]}, "maxItems": 2})
    params = SamplingParams(temperature=0, max_tokens=300, logit_bias=blanks, grammar=grammar)
    [answer] = llm.generate("hello", params)
    assert answer.finish_reason == "stop" and json.loads(answer.text) in ([], [1], [1, 1])
    assert re.search(r"\s", answer.text)


@PATIENT
@given(
    st.sampled_from(["[0-9]{3}-[a-z]{2,5}", "(ab|cd){0,7}", "é+", "(x|y)*z", "[^a-z]{4}"]),
    st.sampled_from([0.0, 1.0]),
    st.integers(0, 99),
)
def test_every_answer_that_is_not_cut_matches_its_regular_expression(
    llm: LLM, regex: str, temperature: float, seed: int
):
    params = SamplingParams(
        temperature=temperature, max_tokens=60, seed=seed, grammar=Grammar("regex", regex)
    )
    [answer] = llm.generate("hello", params)
    if answer.finish_reason == "stop":
        assert re.fullmatch(regex, answer.text)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_preemption_chunks_and_company_change_no_token(checkpoint: Path, temperature: float):
    prompts = [random_tokens(length, length) for length in (20, 21, 22, 23)]
    chosen = [Grammar.json(SCHEMAS[0]), None, Grammar("regex", "[a-z ]{25,30}"), REGEX]
    params = [
        SamplingParams(temperature=temperature, max_tokens=30, seed=i, grammar=grammar)
        for i, grammar in enumerate(chosen)
    ]
    alone = [
        make(checkpoint).generate([prompt], one)[0]
        for prompt, one in zip(prompts, params, strict=True)
    ]
    tight = make(checkpoint, block_size=4, num_blocks=21, max_batch_tokens=9)
    preempted: list[Preempted] = []
    tight.engine.log.listen(
        lambda record: preempted.extend(e for e in record.events if isinstance(e, Preempted))
    )
    together = tight.generate(prompts, params)
    assert preempted
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]


def test_samples_of_one_prompt_follow_the_grammar_each_on_its_own(llm: LLM):
    params = SamplingParams(temperature=1, max_tokens=40, seed=5, grammar=Grammar.json(SCHEMAS[8]))
    requests = llm.engine.submit_samples([5, 6, 7], params, 4)
    while not all(one.finished for one in requests):
        llm.engine.step()
    again = llm.engine.submit_samples([5, 6, 7], params, 4)
    while not all(one.finished for one in again):
        llm.engine.step()
    assert [one.output for one in again] == [one.output for one in requests]
    assert len({tuple(one.output) for one in requests}) > 1


def test_log_probabilities_are_those_of_the_model(llm: LLM):
    params = SamplingParams(temperature=0, max_tokens=6, logprobs=2, grammar=REGEX)
    prompt = random_tokens(9)
    [answer] = llm.generate([prompt], params)
    scoring = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=2)
    [scored] = llm.generate([[*prompt, *answer.token_ids]], scoring)
    told = scored.prompt_logprobs[len(prompt) :]
    for one, other in zip(answer.logprobs, told, strict=True):
        assert other and one.logprob == pytest.approx(other.logprob, abs=1e-4)
        assert [token for token, _ in one.top] == [token for token, _ in other.top]


def test_an_answer_cut_off_ends_with_length(llm: LLM):
    grammar = Grammar("regex", "[a-z]{50}")
    [answer] = llm.generate("hello", SamplingParams(max_tokens=7, grammar=grammar))
    assert answer.finish_reason == "length" and len(answer.token_ids) == 7


def test_a_grammar_that_fails_on_the_way_ends_its_own_request_alone(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(grammars, "_limits", lambda kind: LLParserLimits(max_lexer_states=50))
    heavy = SamplingParams(
        temperature=1, max_tokens=200, grammar=Grammar("regex", "(a|b)*a(a|b){30}")
    )
    light = SamplingParams(temperature=0, max_tokens=200, grammar=REGEX)
    llm = make(checkpoint)
    failed, fine, plain = llm.generate(
        ["hello"] * 3, [heavy, light, SamplingParams(max_tokens=20, ignore_eos=True)]
    )
    assert failed.finish_reason == "error" and failed.message.startswith("the grammar: ")
    assert re.fullmatch("[ab]+", failed.text)
    assert fine.finish_reason == "stop" and plain.finish_reason == "length"
    assert not llm.engine.has_work()


def test_a_grammar_that_can_be_read_in_too_many_ways_ends_its_request(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(grammars._MOST_ITEMS, "lark", 100)
    grammar = Grammar("lark", "start: start start | /[a-c]/")
    params = SamplingParams(max_tokens=250, ignore_eos=True, grammar=grammar)
    [answer] = llm.generate("hello", params)
    assert answer.finish_reason == "error" and "items" in answer.message


def test_a_schema_of_hundreds_of_optional_members_is_followed(llm: LLM):
    names = {f"p{i}": {"type": "null"} for i in range(800)}
    grammar = Grammar.json({"properties": names, "required": ["p799"], "type": "object"})
    answers = llm.generate("hello", SamplingParams(temperature=1, max_tokens=40, grammar=grammar))
    assert answers[0].finish_reason != "error", answers[0].message


def test_grammars_that_were_put_away_are_compiled_again(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(grammars, "KEPT", 1)
    llm = make(checkpoint)
    params = [
        SamplingParams(max_tokens=9, grammar=Grammar("regex", f"{digit}{{3}}")) for digit in "123"
    ]
    assert [one.text for one in llm.generate(["a"] * 3, params)] == ["111", "222", "333"]
    assert llm.runner.grammars and len(llm.runner.grammars._compiled) == 1


def test_many_rows_are_shared_out_to_threads_and_equal_those_found_in_turn(
    compiled: Grammars, monkeypatch: pytest.MonkeyPatch
):
    requests = [request("4" * (row % 5), REGEX) for row in range(40)]
    together = allowed(compiled, *requests)
    monkeypatch.setattr(constraints, "_FEW", 100)
    assert allowed(compiled, *requests) == together


def test_threads_may_compile_while_others_follow(compiled: Grammars):
    """What serving does: requests are checked in some threads while the engine's makes masks."""
    grammar, failures = Grammar.json(SCHEMAS[8]), []

    def check(worker: int) -> None:
        try:
            for i in range(20):
                compiled.check(SamplingParams(grammar=grammar))
                compiled.check(SamplingParams(grammar=Grammar("regex", f"{worker}{i}")))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=check, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        allowed(compiled, *[request("", grammar) for _ in range(8)])
    for thread in threads:
        thread.join()
    assert not failures


# --- tokenizers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["byte-level", "spaced", "llama 2", "gemma"])
def test_text_comes_out_to_the_letter_with_each_kind_of_tokenizer(kind: str, tmp_path: Path):
    make_checkpoint("llama", tmp_path, vocab_size=VOCAB)
    if kind in ("byte-level", "spaced"):
        save_byte_level(tmp_path, spaced=kind == "spaced")
    else:
        save_sentencepiece(tmp_path, prepends=kind == "llama 2")
    llm = make(tmp_path)
    assert llm.tokenizer
    for text in ("the hello", " the", "Hé, 日本 😀!", "</s>", '{"true": 12}}'):
        grammar = Grammar.choice([text])
        [answer] = llm.generate("hello", SamplingParams(max_tokens=60, grammar=grammar))
        assert (answer.text, answer.finish_reason) == (text, "stop")
        ids = llm.tokenizer.encode_within(text)
        assert answer.token_ids[:-1] == ids or not ids  # cut as the tokenizer cuts it


def test_tokens_that_the_model_does_not_have_are_in_no_grammar(tmp_path: Path):
    """A model of 200 tokens with a tokenizer of more: "true" is a token that it cannot say."""
    make_checkpoint("llama", tmp_path, vocab_size=200)
    llm = make(save_byte_level(tmp_path))
    assert llm.tokenizer and max(llm.tokenizer.encode_within("true")) > 200
    for grammar in (Grammar.choice(["true"]), Grammar("regex", "tr(ue)")):
        [answer] = llm.generate("hello", SamplingParams(max_tokens=9, grammar=grammar))
        assert (answer.text, answer.finish_reason) == ("true", "stop")


def test_a_tokenizer_whose_tokens_are_no_bytes_is_refused_by_name(tmp_path: Path):
    refusing = Grammars(Tokenizer(save_word_piece(tmp_path)), VOCAB)
    with pytest.raises(RequestRefused, match=r"\(WordPiece\) has tokens that are no runs of bytes"):
        refusing.check(SamplingParams(grammar=REGEX))
    refusing.check(SamplingParams())


def test_a_model_without_an_end_of_sequence_needs_a_stop_token(tmp_path: Path):
    save_byte_level(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    endless = Grammars(Tokenizer(tmp_path), VOCAB)
    with pytest.raises(RequestRefused, match="names no end-of-sequence token"):
        endless.check(SamplingParams(grammar=REGEX, stop_token_ids=(50,)))
    endless.check(SamplingParams(grammar=REGEX, stop_token_ids=(1,)))


def test_a_model_without_a_tokenizer_takes_no_grammar(checkpoint: Path):
    llm = make(checkpoint, skip_tokenizer=True)
    with pytest.raises(RequestRefused, match="this runner takes no grammar"):
        llm.generate([[1, 2]], SamplingParams(grammar=REGEX))


# --- what is no grammar --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grammar", "says"),
    [
        (Grammar("regex", "(a"), "unclosed group, at character 1 of the regular expression (a"),
        (
            Grammar("regex", "a(?=b)"),
            "look-ahead and look-behind, is not supported, at character 2",
        ),
        (Grammar("regex", r"[^\s\S]"), "no text satisfies it"),
        (Grammar("regex", "a" * 20_000), "has 20000 characters; it may have 16384"),
        (Grammar("lark", "start: foo"), 'at 1(8): unknown name: "foo"'),
        (Grammar("lark", 'start: start "a"'), "no text satisfies it"),
        (Grammar("lark", ""), "Empty grammar"),
        (Grammar("lark", "start: " + "(" * 1000), "too deeply nested"),
        (Grammar("json_schema", '{"type":'), "EOF while parsing a value at line 1 column 8"),
        (Grammar("json_schema", "[]"), "Expecting object schema"),
        (Grammar("json_schema", "false"), "Unsatisfiable schema"),
        (Grammar("json_schema", '{"type": "objct"}'), "Invalid type: objct"),
        (Grammar("json_schema", '{"not": {}}'), 'Unimplemented keys: ["not"]'),
        (Grammar("json_schema", '{"pattern": "("}'), "unclosed group, at character 1"),
        (Grammar("json_schema", '{"$ref": "http://a.b/c"}'), "does not fetch resources"),
        (Grammar("json_schema", '{"enum": []}'), "Unsatisfiable schema"),
        (Grammar("json_schema", '{"items":' * 500 + "{}" + "}" * 500), "recursion limit exceeded"),
    ],
)
def test_what_is_no_grammar_is_refused_before_anything_runs(llm: LLM, grammar: Grammar, says: str):
    with pytest.raises(RequestRefused) as caught:
        llm.generate(["fine", "not"], [SamplingParams(), SamplingParams(grammar=grammar)])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert llm.engine.step_count == 0 or not llm.engine.has_work()


@pytest.mark.parametrize(
    "source",
    [
        "start: a0\\n' + ''.join(f'a{i}: a{i+1}\\n' for i in range(4500)) + 'a4500: \"x\"",
        "start: A0\\n' + ''.join(f'A{i}: A{i+1}\\n' for i in range(4500)) + 'A4500: \"x\"",
        "start: /' + 'a?' * 8000 + '/",
        "start: ' + 'x? ' * 20_000 + '\\nx: \"x\"",
    ],
)
def test_the_deepest_grammars_do_not_end_the_process(checkpoint: Path, source: str):
    program = f"""
from pathlib import Path
from minisgl_tui.engine.errors import RequestRefused
from minisgl_tui.engine.runner.grammars import Grammars
from minisgl_tui.engine.sampling import Grammar, SamplingParams
from minisgl_tui.engine.tokenizer import Tokenizer
source = '{source}'
assert 16_000 < len(source) <= 1 << 16, len(source)
grammars = Grammars(Tokenizer(Path({str(checkpoint)!r})), 320)
try:
    grammars.check(SamplingParams(grammar=Grammar('lark', source)))
except RequestRefused as error:
    print(error)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


# --- on a real model -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_default_model_fills_in_a_schema(smollm: Path, dtype: str):
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "big": {"type": "boolean"}},
        "required": ["name", "big"],
        "additionalProperties": False,
    }
    llm = LLM(smollm, dtype=dtype, device="cpu", num_blocks=64)
    chat = [{"role": "user", "content": "Name the capital of France, as JSON."}]
    params = SamplingParams(temperature=0, max_tokens=64, grammar=Grammar.json(schema))
    [answer] = llm.chat(chat, params)
    assert answer.finish_reason == "stop"
    assert json.loads(answer.text)["name"] == "Paris"
