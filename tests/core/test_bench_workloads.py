"""The workloads are the same tokens everywhere, fit any vocabulary, and bad names are refused."""

import hashlib
import json
from pathlib import Path

import pytest
from minisgl_tui.engine.bench.workloads import DEFAULT, NAMES, built_in, choose
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.workload import WorkloadRequest

DIGESTS = {
    "single": "9e4e259557ce4873",
    "wide_decode": "990fa15f3f2471af",
    "mixed": "a9e92dfa0c4c6ddf",
    "shared_prefix": "fb376532f7046297",
    "long_prefill": "ba9764201c348ac4",
    "nano-vllm": "d72f19b572464c05",
}


def encode(request: WorkloadRequest) -> list[int]:
    return request.tokens or [ord(c) for c in request.prompt or ""]


@pytest.mark.parametrize("name", NAMES)
def test_the_tokens_never_change(name: str) -> None:
    load = [[one.prompt, one.params.max_tokens] for one in built_in(name, 49_152).requests]
    assert hashlib.sha256(json.dumps(load).encode()).hexdigest()[:16] == DIGESTS[name]


def test_nano_vllm_is_the_load_that_others_quote() -> None:
    workload = built_in("nano-vllm", 151_936)
    assert (len(workload.requests), workload.output_tokens) == (256, 133_966)
    assert max(max(one.prompt) for one in workload.requests) == 10_000


@pytest.mark.parametrize("vocab", [2, 199, 32_000])
@pytest.mark.parametrize("name", NAMES)
def test_a_smaller_vocabulary_keeps_lengths_and_shared_prefixes(name: str, vocab: int) -> None:
    small, full = built_in(name, vocab), built_in(name, 49_152)
    assert max(max(one.prompt) for one in small.requests) < vocab
    assert [len(a.prompt) for a in small.requests] == [len(b.prompt) for b in full.requests]
    if name == "shared_prefix":
        assert len({tuple(one.prompt[:512]) for one in small.requests}) == 1
        assert vocab == 2 or len({tuple(one.prompt) for one in small.requests}) == 32


def test_every_request_asks_for_its_exact_length() -> None:
    for name in NAMES:
        assert built_in(name, 100).exact
        assert {one.params.greedy for one in built_in(name, 100).requests} == {name in DEFAULT}


def test_of_the_default_what_does_not_fit_is_left_out_and_said() -> None:
    workloads, notes = choose([], 199, 600, encode)
    assert [one.name for one in workloads] == ["single", "wide_decode", "mixed", "shared_prefix"]
    assert notes == ["left out: long_prefill needs a context of 2049 tokens, and the model has 600"]


def test_a_file_brings_requests_and_engine_settings(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        "[engine]\nnum_blocks = 40\nblock_size = 4\n"
        "[[requests]]\ntokens = [1, 2]\nmax_tokens = 3\nrepeat = 2\nat_step = 5\n"
        "[[requests]]\nprompt = 'ab'\nmax_tokens = 4\npriority = 2\n"
    )
    (workload,), notes = choose([str(file)], 199, 600, encode)
    assert (workload.name, notes, workload.exact) == ("mine", [], False)
    assert [(one.prompt, one.params.max_tokens) for one in workload.requests] == [
        ([97, 98], 4),
        ([1, 2], 3),
        ([1, 2], 3),
    ]
    assert [(one.at_step, one.priority) for one in workload.requests] == [(0, 2), (5, 0), (5, 0)]
    assert workload.settings({"block_size": 8}) == {"num_blocks": 40, "block_size": 8}
    assert workload.settings({"kv_memory": "1MB"}) == {"kv_memory": "1MB", "block_size": 4}


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["fast"], "workload 'fast' is neither built in (single, wide_decode, mixed"),
        (["none.toml"], "cannot read workload none.toml: No such file"),
        (["long_prefill"], "long_prefill needs a context of 2049 tokens, and the model has 600"),
        (["single", "single"], "there are two workloads called single"),
    ],
)
def test_what_cannot_be_run_is_refused(names: list[str], says: str) -> None:
    with pytest.raises(UserError) as refusal:
        choose(names, 199, 600, encode)
    assert says in str(refusal.value)


def test_a_model_too_short_for_all_of_them_is_told() -> None:
    with pytest.raises(UserError, match="no built-in workload fits"):
        choose([], 199, 20, encode)
