"""The server around the routes: keys, limits, the log, the address, and how it ends."""

import asyncio
import logging
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from minisgl_tui.api.server import ServerSettings, banner, bind, is_loopback
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.events import Submitted
from minisgl_tui.engine.trace_file import Trace
from minisgl_tui.tui.serve_command import model_name
from prometheus_client.parser import text_string_to_metric_families

from .conftest import LOOPBACK, Live, live, served, tiny_llm
from .test_bad_requests import assert_refused
from .waiting import until

TEXT = "/v1/completions"


@pytest.fixture(scope="module")
def guarded(tiny_model: Path) -> Iterator[Live]:
    with live(tiny_llm(tiny_model), api_key="s3cret", max_body=10_000, max_queued=2) as server:
        yield server


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", "Basic s3cret", "s3cret"])
def test_a_wrong_key_is_a_401(guarded: Live, header: str | None):
    headers = {} if header is None else {"authorization": header}
    for path in ("/v1/models", "/v1/models/tiny", "/openapi.json", "/nothing", "/version"):
        answer = guarded.get(path, **headers)
        assert assert_refused(answer, 401)["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"
    assert_refused(guarded.send(TEXT, b'{"prompt": "x"}', **headers), 401)


def test_the_key_opens_and_health_and_metrics_are_open(guarded: Live):
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert guarded.get("/v1/models", authorization=f"{scheme} s3cret").status_code == 200
    assert guarded.get("/health").status_code == 200
    assert guarded.get("/metrics").status_code == 200


def test_any_key_is_taken_where_none_is_set(tiny: Live):
    assert tiny.get("/v1/models", authorization="Bearer whatever").status_code == 200


def test_a_body_over_the_limit_is_a_413_whether_or_not_it_says_so(guarded: Live):
    body = b'{"prompt": "' + b"x" * 20_000 + b'"}'
    key = {"authorization": "Bearer s3cret"}
    assert_refused(guarded.send(TEXT, body, **key), 413)

    def chunks() -> Iterator[bytes]:
        yield body[:9000]
        yield body[9000:]

    headers = {"content-type": "application/json", **key}
    assert_refused(httpx2.post(guarded.url + TEXT, content=chunks(), headers=headers), 413)
    assert guarded.send(TEXT, b'{"prompt": "x"}', **key).status_code == 200


async def test_a_full_queue_is_a_429_that_says_when_to_come_again(guarded: Live):
    guarded.serving.thread.limit, before = 2, guarded.serving.thread.limit
    headers = {"authorization": "Bearer s3cret"}
    try:
        async with httpx2.AsyncClient(base_url=guarded.url, headers=headers) as http:
            long = {"prompt": "x", "max_tokens": 400, "ignore_eos": True, "n": 2}
            running = asyncio.create_task(http.post(TEXT, json=long))
            await until(lambda: guarded.serving.thread.live == 2)
            answer = await http.post(TEXT, json={"prompt": "x"})
            assert assert_refused(answer, 429)["code"] == "queue_full"
            assert int(answer.headers["retry-after"]) >= 1
            assert (await running).status_code == 200
            assert (await http.post(TEXT, json={"prompt": "x"})).status_code == 200
    finally:
        guarded.serving.thread.limit = before


def test_the_clients_request_id_comes_back(tiny: Live):
    assert tiny.get("/v1/models", **{"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert "x-request-id" not in tiny.get("/v1/models").headers
    assert "x-request-id" not in tiny.get("/v1/models", **{"x-request-id": "a" * 999}).headers


def test_a_model_is_found_by_its_name_with_slashes(tiny_model: Path):
    with live(tiny_llm(tiny_model), model="org/tiny") as server:
        for path in ("/v1/models/org/tiny", "/v1/models/org%2Ftiny"):
            assert server.get(path).json()["id"] == "org/tiny"
        assert assert_refused(server.get("/v1/models/org"), 404)["code"] == "model_not_found"


def test_the_log_has_numbers_and_no_texts(tiny: Live, caplog: pytest.LogCaptureFixture):
    logging.getLogger("minisgl_tui.api").propagate = True
    with caplog.at_level(logging.INFO, "minisgl_tui.api"):
        answer = tiny.post(
            TEXT, prompt="a-secret", max_tokens=3, ignore_eos=True, **{"spelt_rong\nGET /": 1}
        )
        tiny.get("/nothing%0aPOST")
        tiny.get("/health")
        assert answer.status_code == 200
        deadline = time.monotonic() + 5
        while len(caplog.messages) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    first, second = caplog.messages
    assert first.startswith("POST /v1/completions 200")
    assert "8 tokens in (" in first and "cached), 3 out" in first
    assert first.endswith("unknown fields: spelt_rong\\nGET /")  # one line, whatever it is
    assert answer.json()["id"] in first
    assert "secret" not in first and answer.json()["choices"][0]["text"] not in first
    assert second.startswith("GET /nothing%0aPOST 404")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (TEXT, {"prompt": [[5, 6], [7, 8]], "n": 2}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
        ("/v1/responses", {"input": "a"}),
    ],
)
def test_requests_bear_the_id_of_their_answer(tiny: Live, path: str, body: dict[str, Any]):
    heard: list[Submitted] = []
    stop = tiny.engine.log.listen(
        lambda record: heard.extend(e for e in record.events if isinstance(e, Submitted))
    )
    limit = "max_output_tokens" if "input" in body else "max_tokens"
    answer = tiny.post(path, **body, **{limit: 2}).json()
    stop()
    assert {event.name for event in heard} == {answer["id"]}
    assert len(heard) == (4 if "prompt" in body else 1)
    assert tiny.serving.thread.state.requests[heard[0].req].name == answer["id"]


def test_metrics_follow_what_was_served(tiny: Live):
    def read(reason: str = "length") -> dict[str, float]:
        families = text_string_to_metric_families(tiny.get("/metrics").text)
        found: dict[str, float] = {}
        for sample in (s for family in families for s in family.samples):
            if "le" not in sample.labels and sample.labels.get("finished_reason") in (None, reason):
                found[sample.name] = sample.value
        return found

    before = read()
    tiny.post(TEXT, prompt=[9] * 30, max_tokens=7, ignore_eos=True)
    after = read()
    gained = {name: after[name] - before[name] for name in after}
    assert gained["minisgl:prompt_tokens_total"] == 30
    assert gained["minisgl:generation_tokens_total"] == 7
    assert gained["minisgl:time_to_first_token_seconds_count"] == 1
    assert gained["minisgl:inter_token_latency_seconds_count"] == 6
    assert gained["minisgl:request_success_total"] == 1
    assert after["minisgl:num_requests_running"] == after["minisgl:num_requests_waiting"] == 0
    assert after["minisgl:kv_cache_usage_perc"] == 0
    assert after["minisgl:kv_blocks_free"] + after["minisgl:kv_blocks_evictable"] == 512


def test_an_answer_that_a_stop_string_ends_counts_as_stopped_not_aborted(tiny: Live):
    def ended() -> dict[str, float]:
        families = text_string_to_metric_families(tiny.get("/metrics").text)
        samples = (
            s for f in families for s in f.samples if s.name.endswith("request_success_total")
        )
        return {sample.labels["finished_reason"]: sample.value for sample in samples}

    body = {"prompt": [9] * 30, "max_tokens": 60, "ignore_eos": True, "temperature": 0}
    text = tiny.post(TEXT, **body).json()["choices"][0]["text"]
    before = ended()
    tiny.post(TEXT, stop=text[2], **body)
    after = ended()
    assert {reason: after[reason] - before[reason] for reason in after if after[reason]} == {
        reason: float(reason == "stop") for reason in after if after[reason]
    }


# --- the address ---------------------------------------------------------------------------------


def test_an_address_that_cannot_be_had_is_one_line():
    with bind(LOOPBACK, 0) as taken:
        taken.listen()
        with pytest.raises(UserError, match=r"cannot listen on --host .* Address already in use"):
            bind(LOOPBACK, taken.getsockname()[1])


def test_only_loopback_needs_no_warning(tiny: Live):
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.1", "example.org")))
    with bind(LOOPBACK, 0) as sock:
        for host, key, warned in (("0.0.0.0", None, 1), ("0.0.0.0", "k", 0), (LOOPBACK, None, 0)):
            shown = banner(tiny.serving, ServerSettings(host, 0, "tiny", key), sock)
            assert shown.count("warning") == warned
            assert "512 blocks of 4 tokens" in shown and "curl http://" in shown


def test_a_model_is_called_by_its_name_not_its_path(tmp_path: Path):
    (tmp_path / "tiny").mkdir()
    assert model_name(f"{tmp_path}/tiny/") == "tiny"
    assert model_name("org/tiny") == "org/tiny"
    assert model_name("smollm2-135m") == "smollm2-135m"


# --- the end -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_signal_lets_what_runs_finish_and_its_recording_end(
    tiny_model: Path, tmp_path: Path, number: int, code: int
):
    file = tmp_path / "all.mtrace.gz"
    with served(tiny_model, "--dtype", "float32", "--record", str(file)) as one:
        body = {"prompt": "x", "max_tokens": 300, "ignore_eos": True, "stream": True}
        with httpx2.stream("POST", one.url + TEXT, json=body, timeout=60) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: ")
            one.process.send_signal(number)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert '"finish_reason":"length"' in rest[-2]
        assert one.process.wait(20) == code
        assert "Traceback" not in one.said()
    trace = Trace.open(file)
    (request,) = trace.history.state_at(trace.history.end).requests.values()
    assert not trace.cut and request.finish_reason == "length"
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_is_not_done_in_time_ends_with_an_error(tiny_model: Path):
    with live(tiny_llm(tiny_model), drain=0.05) as server:
        body = {"prompt": "x", "max_tokens": 500, "ignore_eos": True, "stream": True}
        with httpx2.stream("POST", server.url + TEXT, json=body, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            server.server.should_exit = True
            rest = [line for line in lines if line]
        assert "shutting down" in rest[-2] and rest[-1] == "data: [DONE]"
        server.thread.join(10)
        assert not server.engine.requests
