"""A server is measured by what it streams; every way it can fail has a name and one line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from minisgl_tui.api.protocol import CompletionRequest
from minisgl_tui.engine.bench.online import run_workload
from minisgl_tui.engine.bench.server import Answer, RequestFailed, Server
from minisgl_tui.engine.bench.workloads import BenchRequest, BenchWorkload
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.workload import WorkloadRequest
from minisgl_tui.tui import cli
from openai_stub import Body, Chunk, Stub, completion, serving, usage, well_behaved


def request(output_len: int = 4) -> BenchRequest:
    params = SamplingParams(temperature=0, max_tokens=output_len, ignore_eos=True)
    return BenchRequest(prompt=[1, 2, 3, 4], params=params)


async def ask(stub: Stub, output_len: int = 4, timeout: float = 5) -> Answer:
    async with Server(stub.url, api_key=None, timeout=timeout) as server:
        return await server.ask(request(output_len))


# --- what is a token -----------------------------------------------------------------------------


async def test_a_chunk_of_several_tokens_counts_for_as_many_and_shares_its_gap() -> None:
    def stream(body: Body) -> Iterator[Chunk]:
        yield completion("a", usage=usage(4, 1))
        yield 0.06
        yield completion("bcd", usage=usage(4, 4))
        yield {"choices": [], "usage": usage(4, 4)}
        yield "[DONE]"

    with serving(stream) as stub:
        answer = await ask(stub)
    assert answer.counted == 4
    gaps = answer.itl()
    assert len(gaps) == 3
    assert gaps[0] == gaps[1] == gaps[2]
    assert sum(gaps) == pytest.approx(0.06, abs=0.04)


async def test_a_chunk_without_a_new_token_is_no_token() -> None:
    def stream(body: Body) -> Iterator[Chunk]:
        yield completion("", usage=usage(4, 0))
        yield 0.05
        yield completion("a", usage=usage(4, 1))
        yield completion("", "length", usage=usage(4, 1))
        yield "[DONE]"

    with serving(stream) as stub:
        answer = await ask(stub, output_len=1)
    assert (len(answer.chunks), answer.counted, answer.itl()) == (1, 1, [])
    assert answer.chunks[0][0] - answer.sent >= 0.05


async def test_without_counts_the_total_is_spread_over_the_chunks() -> None:
    def stream(body: Body) -> Iterator[Chunk]:
        yield completion("ab")
        yield 0.04
        yield completion("cd")
        yield completion("", "length")  # ends the answer, and is no token
        yield {"choices": [], "usage": usage(4, 4)}
        yield "[DONE]"

    with serving(stream) as stub:
        answer = await ask(stub)
    assert (len(answer.chunks), answer.counted) == (2, 4)
    (gap,) = answer.itl()
    assert gap == pytest.approx((answer.chunks[1][0] - answer.chunks[0][0]) / 2)


async def test_without_any_usage_a_chunk_is_a_token_even_if_it_has_no_text_yet() -> None:
    def stream(body: Body) -> Iterator[Chunk]:
        yield from (completion("a"), completion(""), completion("é"), completion("b", "length"))
        yield "[DONE]"

    with serving(stream) as stub:
        answer = await ask(stub)
    assert (answer.counted, answer.prompt_tokens, answer.cached_tokens) == (4, None, None)


# --- what is asked -------------------------------------------------------------------------------


async def test_all_that_a_workload_says_of_sampling_is_asked_by_the_names_of_our_api() -> None:
    said: dict[str, Any] = {
        "max_tokens": 4,
        "temperature": 0.5,
        "top_k": 5,
        "top_p": 0.9,
        "min_p": 0.1,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "repetition_penalty": 1.1,
        "logit_bias": {"7": 2.5},
        "min_tokens": 2,
        "seed": 3,
        "ignore_eos": True,
    }
    shared = {*WorkloadRequest.__struct_fields__} & {*SamplingParams.__struct_fields__}
    assert set(said) == shared <= {*CompletionRequest.__struct_fields__}
    asked = msgspec.convert({"tokens": [1, 2], **said}, WorkloadRequest, strict=False)
    plain = WorkloadRequest(tokens=[1, 2])
    with serving() as stub:
        async with Server(stub.url, api_key=None, timeout=5) as server:
            await server.ask(BenchRequest(prompt=[1, 2], params=asked.params(), priority=2))
            await server.ask(BenchRequest(prompt=[1, 2], params=plain.params()))
    for body in stub.bodies:
        del body["stream"], body["stream_options"], body["model"], body["prompt"]
    assert stub.bodies == [{**said, "priority": 2}, {"max_tokens": 64, "temperature": 0.0}]


async def test_what_json_cannot_say_is_a_failure_with_a_name() -> None:
    params = SamplingParams(temperature=float("inf"))
    with serving() as stub, pytest.raises(RequestFailed, match="temperature is inf"):
        async with Server(stub.url, api_key=None, timeout=5) as server:
            await server.ask(BenchRequest(prompt=[1], params=params))


# --- a whole run ---------------------------------------------------------------------------------


def load(*lengths: int) -> BenchWorkload:
    return BenchWorkload("load", [request(length) for length in lengths])


async def test_a_run_adds_up_tokens_hits_and_times() -> None:
    with serving() as stub:
        async with Server(stub.url, api_key=None, timeout=5) as server:
            await server.open(None, [1, 2])
            run = await run_workload(server, load(3, 5), concurrency=9, request_rate=None)
    assert (server.model, run.errors) == ("stub", {})
    assert (run.prompt_tokens, run.output_tokens, run.cached_tokens) == (8, 8, 4)
    assert (len(run.ttft), len(run.itl)) == (2, 6)


async def test_concurrency_is_kept_and_a_rate_spreads_the_requests() -> None:
    def slow(body: Body) -> Iterator[Chunk]:
        yield 0.05
        yield from well_behaved(body)

    with serving(slow) as stub:
        async with Server(stub.url, api_key=None, timeout=5) as server:
            limited = await run_workload(server, load(*[1] * 6), concurrency=2, request_rate=None)
            assert stub.busiest == 2
            await run_workload(server, load(*[1] * 6), concurrency=6, request_rate=None)
            assert stub.busiest == 6
            spread = await run_workload(server, load(*[1] * 6), concurrency=6, request_rate=10)
    assert limited.seconds >= 3 * 0.05
    assert spread.seconds >= 0.2
    assert max(limited.ttft) < 0.12  # the wait for room is ours, not the server's


async def test_failures_are_counted_by_name_and_short_answers_told() -> None:
    def moody(body: Body) -> Iterator[Chunk]:
        if body["max_tokens"] == 2:
            yield {"error": {"message": "out of memory"}}
        elif body["max_tokens"] == 3:
            yield from list(well_behaved({**body, "max_tokens": 1}))
        else:
            yield from well_behaved(body)

    with serving(moody) as stub:
        async with Server(stub.url, api_key=None, timeout=5) as server:
            run = await run_workload(server, load(1, 2, 2, 3), concurrency=4, request_rate=None)
    assert run.errors == {
        "error in the stream: out of memory": 2,
        "another number of tokens than asked for": 1,
    }
    assert (run.output_tokens, len(run.ttft)) == (2, 2)


async def test_a_server_that_refuses_running_counts_is_asked_without() -> None:
    with serving() as stub:

        def picky(body: Body) -> Iterator[Chunk]:
            stub.status = 200
            return well_behaved(body)

        stub.stream, stub.status, stub.text = picky, 400, '{"error": {"message": "unknown field"}}'
        async with Server(stub.url, api_key=None, timeout=5) as server:
            with pytest.raises(UserError, match="HTTP 400: unknown field"):
                await server.open("m", [1])
    first, second = (body["stream_options"] for body in stub.bodies)
    assert first == {"include_usage": True, "continuous_usage_stats": True}
    assert second == {"include_usage": True}


@pytest.mark.parametrize(
    ("chunks", "says"),
    [
        ([completion()], "the stream ended without [DONE]"),
        (["[DONE]"], "the stream had no tokens"),
        (["{oops"], "a chunk that is no completion: {oops"),
        (["[1]"], "a chunk that is no completion: [1]"),
        ([{"choices": [{}]}], "a chunk that is no completion"),
        ([{"choices": 5}], "a chunk that is no completion"),
        ([{"choices": [], "usage": {"total_tokens": 3}}], "a chunk that is no completion"),
        (["[" * 200_000], "a chunk that is no completion: [[["),
        ([completion(usage=usage(4, -1))], "a usage that cannot be: completion_tokens is -1"),
        ([completion(usage=usage(4, 5))], "a usage that cannot be: completion_tokens is 5"),
        ([completion(usage=usage(-5, 1))], "a usage that cannot be: prompt_tokens is -5"),
        ([completion(usage=usage(4, 1, cached=5))], "a usage that cannot be: cached_tokens is 5"),
        ([{"usage": {"prompt_tokens": "x"}}], "a usage that cannot be: prompt_tokens is x"),
        (
            [completion(usage=usage(4, 1)), completion(usage=usage(4, 10**10))],
            "a usage that cannot be: completion_tokens is 10000000000",
        ),
        (
            [completion(usage=usage(4, 2)), completion(usage=usage(4, 1))],
            "a usage that cannot be: completion_tokens is 1",
        ),
        (
            ['{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1e999}}'],
            "a usage that cannot be: completion_tokens is inf",
        ),
        (
            [completion(), completion(), {"choices": [], "usage": usage(0, 0)}, "[DONE]"],
            "the stream had no tokens",
        ),
        ([completion(), 5.0], "timed out: an answer took over 0.3 s"),
    ],
)
async def test_a_broken_stream_has_a_name(chunks: list[Any], says: str) -> None:
    with serving(lambda body: chunks) as stub, pytest.raises(RequestFailed) as failure:
        await ask(stub, timeout=0.3)
    assert says in str(failure.value)


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def workload(tmp_path: Path) -> str:
    file = tmp_path / "two.toml"
    file.write_text(
        "[[requests]]\ntokens = [9, 8, 7]\nmax_tokens = 3\nignore_eos = true\nrepeat = 2\n"
    )
    return str(file)


def bench(stub_url: str, workload: str, *flags: str) -> int:
    return cli.main(["bench", "--url", stub_url, "--workload", workload, *flags])


def test_json_has_every_figure(workload: str, capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as stub:
        code = bench(f"{stub.url}/v1/", workload, "--repeats", "2", "--json", "--api-key", "k")
    results = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (results["url"], results["model"], stub.keys) == (stub.url, "stub", {"Bearer k"})
    (report,) = results["workloads"]
    assert (report["requests"], report["prompt_tokens"], report["output_tokens"]) == (2, 6, 6)
    assert len(report["repeats"]) == 2
    assert report["hit_rate"] == pytest.approx(2 / 6)
    assert report["ttft"]["p95"] > 0


def test_the_table_fits_and_no_run_finds_the_prompts_of_another(
    workload: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving() as stub:
        assert bench(stub.url, workload, "--repeats", "3") == 0
    out = capsys.readouterr().out
    assert "stub at" in out
    assert all(len(line) < 100 for line in out.splitlines())
    prompts = [tuple(body["prompt"]) for body in stub.bodies[1:]]
    assert {prompt[1:] for prompt in prompts} == {(8, 7)}
    assert all(0 <= prompt[0] < 10 for prompt in prompts)
    assert [len({*prompts[i : i + 2]}) for i in (0, 2, 4)] == [1, 1, 1]  # shared within a run


@pytest.mark.parametrize(
    ("status", "text", "says"),
    [
        (401, '{"error": {"message": "bad key"}}', "HTTP 401: bad key; give the server's key with"),
        (404, '{"detail": "Not Found"}', "HTTP 404: Not Found; check the address"),
        (500, "<html>\nboom</html>", "HTTP 500: <html> boom</html>"),
        (503, "x" * 5000, "HTTP 503: xxx"),
        (500, "[" * 60_000, "HTTP 500: [[["),
    ],
)
def test_a_refusal_is_one_line(
    workload: str, status: int, text: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving() as stub:
        stub.status, stub.text = status, text
        assert bench(stub.url, workload) == 2
    assert_one_line(capsys, says)


def assert_one_line(capsys: pytest.CaptureFixture[str], says: str) -> None:
    captured = capsys.readouterr()
    (line,) = [line for line in captured.err.splitlines() if not line.startswith("asking ")][-1:]
    assert line.startswith("minisgl-tui: ")
    assert says in line
    assert len(line) < 400
    assert captured.out == ""
    assert "Traceback" not in captured.err


def test_what_is_no_such_server_is_one_line(
    workload: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(lambda body: ["<html>hello</html>"]) as stub:
        stub.kind = "text/html"
        assert bench(stub.url, workload) == 2
        assert_one_line(capsys, "no event stream")
        stub.models = {"data": []}
        assert bench(stub.url, workload) == 2
        assert_one_line(capsys, "lists no model; name one with --model")
        stub.models = {"hello": 1}
        assert bench(stub.url, workload) == 2
        assert_one_line(capsys, "/v1/models answers")
        stub.models = "[" * 200_000
        assert bench(stub.url, workload) == 2
        assert_one_line(capsys, "/v1/models answers [[[")
    assert bench(stub.url, workload) == 2
    assert_one_line(capsys, "cannot connect")


def test_half_a_stream_at_the_start_is_one_line(
    workload: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(lambda body: [completion()]) as stub:
        assert bench(stub.url, workload) == 2
    assert_one_line(capsys, "the stream ended without [DONE]")


def test_a_run_in_which_everything_fails_ends_with_1(
    workload: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def only_the_probe(body: Body) -> Iterator[Chunk]:
        yield from list(well_behaved(body)) if body["max_tokens"] == 2 else [completion()]

    with serving(only_the_probe) as stub:
        assert bench(stub.url, workload) == 1
    assert_one_line(capsys, "workload two: every request failed: the stream ended without [DONE]")


def test_a_run_in_which_something_fails_is_shown_and_ends_with_1(
    workload: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = iter([True])

    def once(body: Body) -> Iterator[Chunk]:
        fails = body["max_tokens"] == 3 and next(first, False)
        yield from [completion()] if fails else list(well_behaved(body))

    with serving(once) as stub:
        assert bench(stub.url, workload, "--repeats", "1") == 1
    assert "two: 1 × the stream ended without [DONE]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--url", "localhost:30000"], "--url is 'localhost:30000'; give http://HOST:PORT"),
        (["--url", ""], "--url is ''; give http://HOST:PORT"),
        (["--url", "", "--core"], "--core and --url are benchmarks apart"),
        (["--model", ""], "the model's name is empty"),
        (["--url", "http://h:x"], "give http://HOST:PORT"),
        (["--url", "http://h", "--core"], "--core and --url are benchmarks apart"),
        (["--url", "http://h", "--num-blocks", "0"], "--num-blocks: not for --url"),
        (["--url", "http://h", "--peer", "vllm"], "--peer: not for --url"),
        (["--url", "http://h", "--concurrency", "0"], "--concurrency is 0; it must be from 1"),
        (["--url", "http://h", "--request-rate", "-1"], "--request-rate is -1; it must be above 0"),
        (["--url", "http://h", "--request-rate", "nan"], "--request-rate is nan; it must be above"),
        (["--url", "http://h", "--timeout", "0"], "--timeout is 0; it must be above 0"),
        (["--url", "http://h", "--api-key", "ключ"], "the API key has characters other than"),
        (["--url", "http://h", "--api-key", "a\nb"], "the API key has characters other than"),
        (["--url", "http://h", "--text"], "--text needs the model's tokenizer"),
        (["--url", "http://h", "--repeats", "-2"], "--repeats is -2; it must be from 1 to 1000"),
        (["--url", "http://h", "--workload", "x"], "workload 'x' is neither built in"),
        (["--concurrency", "3"], "--concurrency: only for --url"),
        (["--running", "3"], "--running: only for --core and --tui"),
        (["--tui", "--core"], "--core and --tui are benchmarks apart"),
        (["--seek", "--tui"], "--tui and --seek are benchmarks apart"),
        (["--seek", "--blocks", "9"], "--blocks: not for --seek"),
        (["--seek", "--steps", "0"], "--steps is 0; it must be from 1"),
        (["--steps", "3"], "--steps: only for --seek"),
        (["--tui", "--model", "m"], "--model: not for --tui"),
        (["--tui", "--nodes", "0"], "--nodes is 0; it must be from 1 to 1000000"),
        (["--core", "--nodes", "3000000000"], "--nodes is 3000000000; it must be from 1"),
        (["--core", "--running", "16385"], "--running is 16385; it must be from 1 to 16384"),
        (["--tui", "--blocks", "10000001"], "--blocks is 10000001; it must be from 1 to 10000000"),
        (["--core", "--threads", "3"], "--threads: not for --core"),
        (["--streams", "3"], "--streams: only for --overhead"),
        (["--overhead", "--core"], "--core and --overhead are benchmarks apart"),
        (["--overhead", "--model", "m"], "--model: not for --overhead"),
        (["--overhead", "--streams", "0"], "--streams is 0; it must be from 1 to 1024"),
        (["--overhead", "--step-ms", "0"], "--step-ms is 0; it must be above 0"),
        (["--core", "--dtype", "float32"], "--dtype: not for --core"),
        (["--threads", "0"], "--threads is 0; it must be from 1 to 1024"),
        (["--num-blocks", "-1"], "--num-blocks is -1; it must be at least 1"),
        (["--model", "nope"], "unknown model 'nope'"),
        (["--peer", "llama"], "--peer 'llama' is not known; choose one of: transformers, vllm"),
        (["--peer", "vllm=/none/python"], "/none/python is no program; give the python of an"),
    ],
)
def test_flags_that_make_no_sense_are_one_line(
    flags: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", *flags]) == 2
    assert_one_line(capsys, says)


def test_texts_need_a_tokenizer_to_be_sent_as_ids(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "chat.toml"
    file.write_text("[[requests]]\nuser = 'hello'\n")
    assert bench("http://h", str(file)) == 2
    assert_one_line(capsys, "the workload has texts; say how to encode them with --tokenizer")
