"""Workload files: what they may say, and the one line that says what is wrong."""

from pathlib import Path

import pytest
from minisgl_tui import demos
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.workload import load_workload


def write(tmp_path: Path, text: str | bytes, name: str = "load.toml") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_requests_are_repeated_numbered_and_put_in_order_of_arrival(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'system = "S"\n[[requests]]\nuser = "late"\nat_step = 5\n'
        '[[requests]]\nuser = "number {i}"\nrepeat = 2\nsystem = "own"\n',
    )
    texts = [(r.user, r.system, r.at_step) for r in load_workload(path).expanded()]
    assert texts == [("number 1", "own", 0), ("number 2", "own", 0), ("late", "S", 5)]


def test_json_says_the_same(tmp_path: Path) -> None:
    text = '{"engine": {"num_blocks": 8}, "requests": [{"tokens": [1, 2], "max_tokens": 3}]}'
    workload = load_workload(write(tmp_path, text, "load.json"))
    assert workload.engine.given() == {"num_blocks": 8}
    assert workload.requests[0].params().max_tokens == 3


def test_bias_and_penalties_may_be_asked_for(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "[[requests]]\nuser = 'a'\npresence_penalty = 0.5\nfrequency_penalty = 1\n"
        "repetition_penalty = 1.1\nmin_tokens = 2\nlogit_bias = { 7 = -100, 8 = 2.5 }\n",
    )
    assert load_workload(path).requests[0].params() == SamplingParams(
        temperature=0,
        max_tokens=64,
        presence_penalty=0.5,
        frequency_penalty=1,
        repetition_penalty=1.1,
        min_tokens=2,
        logit_bias={7: -100, 8: 2.5},
    )
    text = '{"requests": [{"tokens": [1], "logit_bias": {"7": 1}}]}'
    (request,) = load_workload(write(tmp_path, text, "load.json")).requests
    assert request.params().logit_bias == {7: 1}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'title = "caf\xe9"', "is not UTF-8: byte 12 is 0xe9; save it as UTF-8"),
        ("", "has no requests; add a [[requests]] entry"),
        ("[[requests]]\n", "request 1 needs exactly one of user, prompt and tokens"),
        ('[[requests]]\nuser = "a"\nprompt = "b"', "request 1 needs exactly one of"),
        ('[[requests]]\nuser = ""', "request 1 is empty"),
        ("[[requests]]\nuser = 5", "Expected `str | null`, got `int` - at `$.requests[0].user`"),
        ('[[requests]]\nusr = "a"', "unknown field `usr`"),
        ('[[requests]]\nuser = "a"\nmax_tokens = 0', "max_tokens is 0; it must be at least 1"),
        ('[[requests]]\nuser = "a"\nrepeat = 0', "repeat at least 1"),
        ('[[requests]]\nuser = "a"\nmin_tokens = 65', "min_tokens is 65; it must be 0 to"),
        ("[[requests", "Expected"),
        ('[[requests]]\nuser = "a"\nrepeat = 1000000000', "asks for 1000000000 requests; the most"),
        ('[[requests]]\nuser = "a"\nmax_tokens = ' + 5000 * "9", "4300 digits"),
        ("a = " + 5000 * "[", "nested too deeply"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_workload(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeff[[requests]]\nuser = 'a'")
    assert load_workload(path).requests[0].user == "a"


@pytest.mark.parametrize("path", ["/dev/zero", "/"])
def test_what_is_no_regular_file_is_refused(path: str) -> None:
    with pytest.raises(UserError, match="no regular file"):
        load_workload(Path(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        load_workload(tmp_path / "none.toml")


@pytest.mark.parametrize("name", demos.names())
def test_every_demo_loads(name: str) -> None:
    workload = demos.load(name)
    assert workload.title
    assert workload.expanded()


def test_an_unknown_demo_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"choose one of: hundred-chats, .*three-chats, "):
        demos.load("nope")
