"""What generation_config.json says holds, unless the caller says otherwise."""

import json
from pathlib import Path
from typing import Any

import pytest
from minisgl_tui.engine import LLM, SamplingParams
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.generation_config import default_params, eos_token_ids

from .harness import make_checkpoint


def write(directory: Path, **values: Any) -> Path:
    (directory / "generation_config.json").write_text(json.dumps(values))
    return directory


def test_sampling_is_as_the_makers_want_it(tmp_path: Path):
    write(tmp_path, temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.05, do_sample=True)
    expected = SamplingParams(temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.05)
    assert default_params(tmp_path) == expected


def test_what_is_not_said_is_as_ever(tmp_path: Path):
    assert default_params(tmp_path) == SamplingParams()
    assert default_params(write(tmp_path, eos_token_id=5, top_p=None)) == SamplingParams()


def test_all_tokens_may_be_written_in_two_ways(tmp_path: Path):
    assert default_params(write(tmp_path, top_k=-1)).top_k == 0


@pytest.mark.parametrize("value", ["hot", -1, [1]])
def test_a_bad_value_is_named_with_its_file(tmp_path: Path, value: Any):
    with pytest.raises(UserError, match=r"generation_config\.json: temperature is") as error:
        default_params(write(tmp_path, temperature=value))
    assert "\n" not in str(error.value)


def test_a_call_without_parameters_takes_them_and_one_with_its_own_does_not(tmp_path: Path):
    make_checkpoint("llama", tmp_path)
    write(tmp_path, temperature=0.0, max_new_tokens=5)
    llm = LLM(tmp_path, skip_tokenizer=True, device="cpu", num_blocks=16, dtype="float32")
    assert llm.default_params == SamplingParams(temperature=0, max_tokens=5)
    [short], [longer] = llm.generate([5, 6]), llm.generate([5, 6], SamplingParams(max_tokens=9))
    assert (len(short.token_ids), len(longer.token_ids)) == (5, 9)


def test_an_answer_ends_at_any_of_the_ends_of_sequence(tmp_path: Path):
    make_checkpoint("llama", tmp_path)
    llm = LLM(tmp_path, skip_tokenizer=True, device="cpu", num_blocks=16, dtype="float32")
    free = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    tokens = llm.generate([5, 6], free)[0].token_ids
    write(tmp_path, eos_token_id=[198, tokens[3]])
    assert eos_token_ids(tmp_path) == (198, tokens[3], 2)
    llm = LLM(tmp_path, skip_tokenizer=True, device="cpu", num_blocks=16, dtype="float32")
    [answer] = llm.generate([5, 6], SamplingParams(temperature=0, max_tokens=8))
    assert answer.token_ids == tokens[: tokens.index(tokens[3]) + 1]
    assert answer.finish_reason == "stop"
