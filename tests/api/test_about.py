"""What is asked besides generating: by web pages of other origins, and about the server itself."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from minisgl_tui.tui import cli

from .conftest import Live, live, tiny_llm
from .test_bad_requests import HI, TEXT, assert_refused

CHAT_UI = "https://chat.example.org"
ASKS = {"origin": CHAT_UI, "access-control-request-method": "POST"}


@pytest.fixture(scope="module")
def shared(tiny_model: Path) -> Iterator[Live]:
    """A server with a key that the pages of two origins may use."""
    origins = (CHAT_UI, "http://localhost:3000")
    with live(tiny_llm(tiny_model), api_key="s3cret", cors=origins) as server:
        yield server


def preflight(server: Live, path: str = TEXT, **headers: str) -> httpx2.Response:
    return httpx2.request("OPTIONS", server.url + path, headers={**ASKS, **headers}, timeout=60)


def test_a_browser_may_ask_first_without_the_key(shared: Live):
    wanted = {"access-control-request-headers": "authorization,content-type"}
    answer = preflight(shared, **wanted)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == CHAT_UI
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "authorization" in answer.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in answer.headers


def test_answers_streams_and_errors_may_be_read_by_the_page(shared: Live):
    key = {"authorization": "Bearer s3cret", "origin": CHAT_UI, "x-request-id": "abc"}
    body = b'{"prompt": "hi", "max_tokens": 2}'
    for answer, status in (
        (shared.send(TEXT, body, **key), 200),
        (shared.send(TEXT, body[:-1] + b', "stream": true}', **key), 200),
        (shared.send(TEXT, b'{"prompt": 5}', **key), 400),
        (shared.send(TEXT, body, origin=CHAT_UI), 401),
        (shared.get("/nothing", **key), 404),
    ):
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == CHAT_UI
        assert "Origin" in answer.headers["vary"]
        assert "X-Request-Id" in answer.headers["access-control-expose-headers"]


def test_other_origins_are_not_let_in(shared: Live):
    answer = preflight(shared, origin="https://evil.example.org")
    assert answer.status_code == 400
    assert "access-control-allow-origin" not in answer.headers
    key = {"authorization": "Bearer s3cret", "origin": "https://evil.example.org"}
    assert "access-control-allow-origin" not in shared.get("/v1/models", **key).headers


def test_without_cors_no_page_may_read_anything(tiny: Live):
    assert preflight(tiny).status_code == 405
    for answer in (preflight(tiny), tiny.get("/v1/models", origin=CHAT_UI)):
        assert not any(name.startswith("access-control") for name in answer.headers)


def test_a_star_lets_every_origin_in(tiny_model: Path):
    with live(tiny_llm(tiny_model), cors=("*",)) as server:
        assert preflight(server).status_code == 200
        answer = server.get("/v1/models", origin="https://any.example.org")
        assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("origin", ["example.org", "https://example.org/", "https://", ""])
def test_what_is_no_origin_is_refused_at_the_start(origin: str, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["serve", "--cors", origin]) != 0
    said = capsys.readouterr().err
    assert f"--cors {origin!r} is no origin; give scheme://host" in said
    assert said.count("\n") == 1


# --- what it says of itself ----------------------------------------------------------------------


def test_a_router_learns_name_and_size_under_either_path(tiny: Live):
    info = tiny.get("/server_info").json()
    assert info == tiny.get("/get_server_info").json()
    assert info["served_model_name"] == info["model_path"] == "tiny"
    assert info["max_total_num_tokens"] == 512 * 4 and info["page_size"] == 4
    assert info["context_length"] == tiny.serving.context
    about = tiny.get("/model_info").json()
    assert about == tiny.get("/get_model_info").json()
    assert about["model_path"] == "tiny" and about["is_generation"] is True
    assert about["eos_token_ids"] == list(tiny.serving.tokenizer.eos_ids)


def test_no_path_of_the_machine_is_told(tiny: Live, tiny_model: Path):
    for path in ("/server_info", "/model_info", "/tokenizer_info", "/v1/models", "/version"):
        assert str(tiny_model.parent) not in tiny.get(path).text


def test_what_lm_evals_remote_tokenizer_reads_is_there(tiny: Live):
    info = tiny.get("/tokenizer_info").json()
    assert info["eos_token"] == "</s>" and info["bos_token"] is None
    assert "<|{{ message.role }}|>" in info["chat_template"]
    asked = {"prompt": info["eos_token"], "add_special_tokens": False}
    assert tiny.post("/tokenize", **asked).json()["tokens"] == [tiny.serving.tokenizer.eos_ids[0]]


def test_special_tokens_in_front_are_left_out_where_asked(tiny_with_bos: Path):
    with live(tiny_llm(tiny_with_bos)) as server:
        assert server.get("/tokenizer_info").json()["bos_token"] == "<s>"
        plain = server.post("/tokenize", prompt="hi", add_special_tokens=False).json()["tokens"]
        assert server.post("/tokenize", prompt="hi").json()["tokens"] == [1, *plain]
        asked = {"prompt": "hi", "add_special_tokens": True, "return_token_strs": True}
        assert server.post("/tokenize", **asked).json()["token_strs"] == ["<s>", "h", "i"]


def test_tokenize_says_what_chat_would_compute(tiny: Live):
    asked = {"messages": [*HI, {"role": "assistant", "content": "so"}]}
    for about in (
        {"continue_final_message": True},
        {"add_generation_prompt": False},
        {"chat_template_kwargs": {"mood": "bright"}},
    ):
        tokens = tiny.post("/tokenize", **asked, **about).json()["tokens"]
        answer = tiny.post("/v1/chat/completions", max_tokens=1, **asked, **about)
        assert answer.json()["usage"]["prompt_tokens"] == len(tokens)
    error = assert_refused(tiny.post("/tokenize", messages=HI, add_special_tokens=True))
    assert error["param"] == "add_special_tokens"
    error = assert_refused(tiny.post("/tokenize", prompt="x", add_generation_prompt=True))
    assert error["param"] == "add_generation_prompt"


def test_flushing_forgets_the_prefixes_that_nobody_holds(tiny: Live):
    prompt = [7] * 40
    ask = {"prompt": prompt, "max_tokens": 1}
    tiny.post(TEXT, **ask)

    def cached() -> int:
        return tiny.post(TEXT, **ask).json()["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert cached() == 36
    freed = tiny.post("/flush_cache").json()["freed_blocks"]
    assert freed >= 9 and tiny.engine.cache.free == 512
    assert cached() == 0
    assert_refused(tiny.get("/flush_cache"), 405)


def test_flushing_needs_the_key(shared: Live):
    assert_refused(shared.post("/flush_cache"), 401)
