"""What is installed is what is in the tree, and the command line answers at once."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from minisgl_tui.tui import cli
from minisgl_tui.tui.workload_flags import workload_of

ROOT = Path(__file__).parents[2]


def test_every_package_is_listed_for_installation() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {
        "minisgl_tui." + path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for top in ("engine", "api", "tui", "demos")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert set(listed) == there


def run(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "minisgl_tui.tui.cli", *words]
    return subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=cwd
    )


def test_help_loads_nothing_slow() -> None:
    """`--help` takes under 0.3 s because of what it does not import; that much can be tested."""
    code = (
        "import sys, minisgl_tui.tui.cli as cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'textual', 'rich', 'numpy', 'safetensors'}\n"
        "sys.exit(str(heavy & sys.modules.keys()) if heavy & sys.modules.keys() else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "run" in done.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model", "nope"], "unknown model 'nope': it is no local directory, .gguf file or Hub"),
        (["--model", "none/such.gguf"], "no such file; check the path"),
        (["--workload", "none.toml"], "cannot read workload none.toml: No such file"),
        (["--demo", "nope"], "--demo 'nope' is not known; choose one of: hundred-chats"),
        (["--max-tokens", "0"], "max_tokens is 0; it must be at least 1"),
        (["--num-blocks", "0"], "--num-blocks is 0; it must be at least 1"),
        (["--block-size", "-3"], "--block-size is -3; it must be at least 1"),
        (["--schedule-policy", "lifo"], "'lifo' is not known; choose one of: fcfs"),
        (["--num-blocks", "many"], "invalid int value: 'many'; see `minisgl-tui run --help`"),
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
        ([], "run draws on a terminal, and stdin is none"),
        (["serve", "--model", "nope"], "unknown model 'nope'"),
        (["serve", "--api-key", ""], "--api-key is empty"),
        (["serve", "--api-key", "\u043a"], "characters other than printable ASCII"),
        (["serve", "--port", "70000"], "--port is 70000; it must be from 0 to 65535"),
        (["serve", "--drain", "-1"], "--drain is -1.0; it must be from 0 to 3600"),
        (["serve", "--host", "nowhere.invalid"], "cannot listen on --host nowhere.invalid --port"),
        (["bench", "--repeats", "0"], "--repeats is 0; it must be from 1 to 1000"),
        (["bench", "--core", "--nodes", "0"], "must be from 1 to 1000000"),
        (["bench", "--core", "--eviction-policy", "nope"], "choose one of: lru"),
        (["models", "pull", "nope"], "unknown model 'nope'"),
        (["--prompt", "a", "--demo", "b"], "not allowed with argument --prompt"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words: list[str], says: str) -> None:
    done = run(*words)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert done.stderr.startswith("minisgl-tui: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_serving_without_its_extra_says_what_to_install() -> None:
    code = (
        "import sys, minisgl_tui.tui.cli as cli\n"
        "sys.modules['fastapi'] = None\n"
        "sys.exit(cli.main(['serve', '--port', '0']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "minisgl-tui: serve needs fastapi, which is not installed: pip install "
        "'minisgl-tui[serve]'\n"
    )


def test_an_unreadable_terminal_type_or_none_is_no_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "minisgl_tui.tui.cli"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "TERM": "dumb"},
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_every_file_that_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_policy_that_the_readme_shows_runs_and_is_measured(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (policy,) = [block for block in blocks if "def order" in block]
    (tmp_path / "my_policy.py").write_text(policy)
    policy_flag = ("--schedule-policy", "my_policy:CheapestFirst")
    done = run("bench", "--core", "--json", *policy_flag, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    effect = json.loads(done.stdout)
    assert effect["chosen"]["hit_rate"] > effect["defaults"]["hit_rate"]


@pytest.mark.parametrize("words", [[], ["--prompt", "hello"], ["--demo", "tight-pool"]])
def test_a_system_prompt_on_the_command_line_wins_everywhere(words: list[str]) -> None:
    parser, _ = cli._parser()
    args = parser.parse_args(["run", "--system", "Be brief.", *words])
    assert {request.system for request in workload_of(args).expanded()} == {"Be brief."}
