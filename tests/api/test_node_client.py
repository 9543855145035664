"""OpenAI's package for Node against a live server: the cases are in tests/node/client.mjs."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import live, tiny_llm

NODE = Path(__file__).parents[1] / "node"
CASES = (
    "chat",
    "usage",
    "stream",
    "stream helper",
    "completions",
    "logprobs",
    "several choices",
    "stop strings",
    "errors",
    "cancellation",
    "models",
    "structured output",
    "tools",
    "responses",
)


@pytest.fixture(scope="module")
def problems(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """What went wrong in each case; None for nothing."""
    assert (NODE / "node_modules/openai").exists(), "run `make test`, or `npm ci` there"
    longer = tmp_path_factory.mktemp("longer") / "tiny"  # describing a tool takes many bytes
    shutil.copytree(tiny_model, longer)
    config = json.loads((longer / "config.json").read_text())
    config["max_position_embeddings"] = 2048
    (longer / "config.json").write_text(json.dumps(config))
    with live(tiny_llm(longer), model="org/tiny") as server:
        command = ["node", str(NODE / "client.mjs"), server.url, "org/tiny"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        server.assert_nothing_left()
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["case"]: line["problem"] for line in lines}


def test_every_case_ran(problems: dict[str, str | None]):
    assert tuple(problems) == CASES


@pytest.mark.parametrize("case", CASES)
def test_openais_package_for_node_finds_what_it_expects(problems: dict[str, str | None], case: str):
    assert problems[case] is None, problems[case]
