"""Compiled kernels compute what PyTorch does, a token's logits are the same bits in any
company, and where kernels cannot be had one line says why."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from minisgl_tui.engine import LLM, SamplingParams
from minisgl_tui.engine import llm as llm_module
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.kernels import build
from minisgl_tui.engine.kernels.compiled import CompiledKernels
from minisgl_tui.engine.models.base import AttentionSpec
from minisgl_tui.engine.models.decoder import rotate
from minisgl_tui.engine.models.linear import Panels
from minisgl_tui.engine.runner.attention.compiled import TOGETHER, CompiledAttention
from torch import Tensor

from .harness import make_checkpoint, random_tokens
from .test_attention import Step

HEADS = AttentionSpec(num_heads=6, num_kv_heads=2, head_dim=32, value_dim=32, scale=0.2)
KINDS = {
    "grouped heads": [HEADS],
    "a head each": [replace(HEADS, num_kv_heads=6)],
    "many heads of one": [replace(HEADS, num_heads=40, num_kv_heads=1)],
    "window": [HEADS, replace(HEADS, window=13)],
    "softcap": [replace(HEADS, softcap=2.0)],
    "softcap and windows": [replace(HEADS, softcap=2.0, window=size) for size in (1, 30)],
    "larger values": [replace(HEADS, value_dim=96)],
    "layers that differ": [HEADS, replace(HEADS, num_heads=4, num_kv_heads=4, head_dim=128)],
}


TARGET = "KERNELS_TARGET"  # in the environment: the processor to compile for


@pytest.fixture(scope="module")
def kernels() -> CompiledKernels:
    try:
        build.TARGET = os.environ.get(TARGET, build.TARGET)
        return CompiledKernels(lambda stage, fraction: None)
    except UserError as error:
        if "is for x86 processors with AVX2" in str(error):
            pytest.skip(str(error))
        raise


def random(*shape: int) -> Tensor:
    return torch.randn(*shape).bfloat16()


def near(found: Tensor, expected: Tensor) -> None:
    """As near as float32 arithmetic that is rounded once."""
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.005, atol=0.005)


@pytest.mark.parametrize("rows", [0, 1, 5, 8, 9, 16, 33, 63, 65, 300])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 96), (2, 1), (34, 47), (576, 49), (130, 300)])
def test_products_are_those_of_float32(
    kernels: CompiledKernels, rows: int, inputs: int, outputs: int
):
    torch.manual_seed(rows)
    x, weight, bias = random(rows, inputs), random(outputs, inputs) / 8, random(outputs)
    residual = random(rows, outputs)
    layout = Panels(weight, kernels)
    product = x.float() @ weight.float().T
    near(layout.multiply(x), product)
    near(layout.multiply(x, bias), product + bias.float())
    near(layout.multiply(x, None, residual), product + residual.float())
    near(layout.multiply(x, bias, residual), product + bias.float() + residual.float())
    near(layout.multiply(x[None], bias)[0], product + bias.float())
    near(layout.multiply(random(inputs, rows).copy_(x.T).T), product)  # not contiguous
    torch.testing.assert_close(layout.logits(x), product, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("rows", [0, 1, 7, 200])
@pytest.mark.parametrize("size", [16, 48, 50, 576])
def test_norms_are_those_of_float32(kernels: CompiledKernels, rows: int, size: int):
    torch.manual_seed(size)
    x, weight = random(rows, size), random(size)
    expected = F.rms_norm(x.float(), (size,), weight.float(), 1e-5)
    near(kernels.rms_norm(x, weight, 1e-5), expected)
    heads = random(rows, 3, size)[:, :2]  # as a part of queries and keys is
    expected = F.rms_norm(heads.float(), (size,), weight.float(), 1e-5)
    near(kernels.rms_norm(heads, weight, 1e-5), expected)


@pytest.mark.parametrize("rows", [0, 1, 8, 13, 300])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 96), (2, 1), (576, 50)])
def test_gated_products_are_those_of_float32(
    kernels: CompiledKernels, rows: int, inputs: int, outputs: int
):
    torch.manual_seed(rows)
    x, weight, bias = random(rows, inputs), random(2 * outputs, inputs) / 8, random(2 * outputs)
    layout = Panels(weight, kernels, gated=True)
    for added in (None, bias):
        product = x.float() @ weight.float().T + (0 if added is None else added.float())
        gate, up = product.chunk(2, dim=-1)
        near(layout.multiply(x, added), F.silu(gate) * up)
    residual = random(rows, outputs)
    found = layout.multiply(x, None, residual) - residual
    torch.testing.assert_close(found, layout.multiply(x), rtol=0.02, atol=0.1)


def test_gates_bear_the_largest_numbers(kernels: CompiledKernels):
    gates = torch.tensor([-3e38, -200.0, -90.0, 0.0, 90.0, 200.0, 3e38]).bfloat16()
    weight = torch.zeros(14, 2).bfloat16()
    weight[:7, 0], weight[7:, 1] = gates, 1
    found = Panels(weight, kernels, gated=True).multiply(torch.ones(1, 2).bfloat16())
    near(found[0], F.silu(gates.float()))


@pytest.mark.parametrize("size", [8, 32, 50, 64, 128])
def test_rotary_embedding_is_that_of_float32(kernels: CompiledKernels, size: int):
    for tokens in (1, 3, 700):
        x, cos, sin = (
            random(tokens, 9, size)[:, :7],
            random(tokens, 1, size),
            random(tokens, 1, size),
        )
        near(kernels.rotate(x, cos, sin), rotate(x.float(), cos.float(), sin.float()))
        apart = random(7, tokens, size).transpose(0, 1)
        near(kernels.rotate(apart, cos, sin), rotate(apart.float(), cos.float(), sin.float()))


@pytest.mark.parametrize("kind", KINDS)
def test_attention_over_random_steps_is_near_the_reference(kernels: CompiledKernels, kind: str):
    for seed in range(40):
        step = Step(seed, KINDS[kind], torch.bfloat16)
        found = step.run(CompiledAttention(kernels))
        for ours, expected in zip(found, step.run("reference"), strict=True):
            assert ours.shape == expected.shape
            torch.testing.assert_close(ours, expected, rtol=0.05, atol=0.05)


def test_some_steps_share_what_their_contexts_begin_with(kernels: CompiledKernels):
    """Or the test above would not try that."""
    counts: list[int] = []

    class Spy(CompiledKernels):
        def __init__(self) -> None:
            pass

        def attend(self, *args: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
            groups = args[-2]
            counts.extend(int(rows) for _, rows, shared in groups if shared >= 64)
            return kernels.attend(*args)  # pyright: ignore[reportArgumentType]

    for seed in range(40):
        Step(seed, [HEADS], torch.bfloat16).run(CompiledAttention(Spy()))
    assert max(counts) > 2 and max(counts) <= TOGETHER


@pytest.mark.parametrize("course", [-200, -40, -5, 0, 5, 40, 200])
def test_scores_may_rise_and_fall_from_tile_to_tile(kernels: CompiledKernels, course: int):
    """By ``course`` octaves over the context: sums are scaled anew seldom, often, or never."""
    spec = replace(HEADS, num_heads=2, num_kv_heads=1)
    length, count = 300, 7
    torch.manual_seed(course)
    q, k, v = random(count, 2, 32), random(length, 32), random(length, 32)
    q[..., 0] = 8
    k[:, 0] = torch.linspace(0, course / 8 / spec.scale, length)
    keys, values = (torch.zeros(1, 20, 16, 32).bfloat16() for _ in range(2))
    keys.view(-1, 32)[:length], values.view(-1, 32)[:length] = k, v
    slots = torch.arange(length - count, length)
    rows, groups = torch.tensor([[0, count, length]]), torch.tensor([[0, 1, 0]])
    found = kernels.attend(
        *(spec, q, k[slots, None], v[slots, None], keys, values, slots, rows, groups),
        torch.arange(20)[None],
    )
    scores = torch.einsum("qhd,kd->hqk", q.float(), k.float()) * spec.scale
    scores.masked_fill_(torch.arange(length) > slots[:, None], -torch.inf)
    expected = (scores.softmax(dim=-1) @ v.float()).transpose(0, 1)
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.02)


def test_heads_that_do_not_fill_registers_are_left_to_another_backend() -> None:
    assert CompiledKernels.attends([HEADS])
    assert not CompiledKernels.attends([HEADS, replace(HEADS, head_dim=48)])
    assert not CompiledKernels.attends([replace(HEADS, value_dim=24)])


def test_where_attention_is_not_compiled_that_is_said(
    kernels: CompiledKernels, tmp_path: Path
) -> None:
    told: list[str] = []
    for size in (32, 48):
        make_checkpoint("llama", tmp_path / str(size), head_dim=size)
        llm = LLM(
            tmp_path / str(size),
            dtype="bfloat16",
            device="cpu",
            num_blocks=8,
            skip_tokenizer=True,
            compile_kernels=True,
            progress=lambda stage, _, size=size: told.append(f"{size} {stage}"),
        )
        assert isinstance(llm.runner.attention, CompiledAttention) == (size == 32)
    assert [line for line in told if "stays" in line] == [
        "48 --compile: attention stays PyTorch's, for heads of these sizes"
    ]


def test_a_model_of_which_only_a_part_is_compiled_is_refused_where_the_rest_would_be_slow(
    kernels: CompiledKernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loads(kind: str, dtype: str = "auto", **config: int) -> bool:
        make_checkpoint(kind, tmp_path, **config)
        try:
            LLM(
                tmp_path,
                dtype=dtype,
                device="cpu",
                num_blocks=8,
                skip_tokenizer=True,
                compile_kernels=True,
            )
        except UserError as error:
            assert "slow at the rest in bfloat16; leave it out" in str(error)
            return False
        return True

    monkeypatch.setattr(llm_module, "cpu_multiplies_bfloat16", lambda: False)
    assert loads("llama", head_dim=32)
    assert not loads("llama", head_dim=48)
    assert not loads("mixtral", head_dim=32)
    assert not loads("gemma2")
    assert loads("mixtral", "bfloat16", head_dim=32)
    monkeypatch.setattr(llm_module, "cpu_multiplies_bfloat16", lambda: True)
    assert loads("mixtral", head_dim=32)


PROSE = Path(__file__).parents[2] / "LICENSE"


def answers(llm: LLM, prompts: list[list[int]], together: bool) -> list[list[tuple[int, float]]]:
    params = SamplingParams(temperature=0, max_tokens=16, ignore_eos=True, logprobs=1)
    batches = [prompts] if together else [[prompt] for prompt in prompts]
    done = [one for batch in batches for one in llm.generate(batch, params)]
    return [
        [(token, chosen.logprob) for token, chosen in zip(one.token_ids, one.logprobs, strict=True)]
        for one in done
    ]


def test_the_default_model_says_the_same_to_the_last_bit_in_any_company(
    kernels: CompiledKernels, smollm: Path
):
    """Alone and together, whole and in chunks, cold and warm, sharing prefixes and not."""

    def made(max_batch_tokens: int) -> LLM:
        return LLM(
            smollm,
            dtype="bfloat16",
            device="cpu",
            num_blocks=300,
            max_batch_tokens=max_batch_tokens,
            compile_kernels=True,
        )

    whole, chunked = made(2048), made(24)
    assert whole.tokenizer is not None
    text = whole.tokenizer.encode(PROSE.read_text())
    prompts = [text[at : at + size] for at, size in ((0, 5), (50, 33), (90, 64), (300, 257))]
    prompts += [text[:192] + text[at : at + 9] for at in (400, 500, 600, 700)]
    alone = []
    for prompt in prompts:
        whole.reset_prefix_cache()
        alone += answers(whole, [prompt], together=True)
    whole.reset_prefix_cache()
    assert answers(whole, prompts, together=True) == alone
    assert answers(whole, prompts, together=True) == alone  # warm
    assert answers(chunked, prompts, together=True) == alone
    assert answers(chunked, prompts, together=False) == alone


PEAK = """
import sys, torch
from pathlib import Path
from minisgl_tui.engine import LLM, SamplingParams
from minisgl_tui.engine.tokenizer import Tokenizer
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
Tokenizer(Path(sys.argv[1]))
before, pool = peak(), 256 << 20
llm = LLM(sys.argv[1], dtype="bfloat16", device="cpu", kv_memory=pool, compile_kernels=True)
llm.generate([[token] * 300 for token in range(16)], SamplingParams(max_tokens=40))
print((peak() - before) / (llm.model_info.weight_bytes + pool))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_packed_weights_take_the_place_of_the_others(kernels: CompiledKernels, smollm: Path):
    """The largest, which is also the embedding, is there twice."""
    command = [sys.executable, "-c", PEAK, str(smollm)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.3


def test_compiled_logits_are_as_near_to_float32_as_those_of_pytorch(
    kernels: CompiledKernels, smollm: Path
):
    def logprobs(dtype: str, compiled: bool) -> Tensor:
        llm = LLM(smollm, dtype=dtype, device="cpu", num_blocks=64, compile_kernels=compiled)
        assert llm.tokenizer is not None
        tokens = llm.tokenizer.encode(PROSE.read_text())
        params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
        done = llm.generate([tokens[at : at + 400] for at in (0, 600, 1200)], params)
        found = [entry.logprob for one in done for entry in one.prompt_logprobs if entry]
        return torch.tensor(found)

    exact = logprobs("float32", False)
    ours, theirs = (logprobs("bfloat16", compiled) - exact for compiled in (True, False))
    assert 0 < ours.abs().median() <= 1.1 * theirs.abs().median()


@pytest.mark.parametrize(
    "name",
    [
        *("llama-linear-rope-biases", "mistral-window", "qwen2", "qwen3", "smollm3"),
        *("mixtral", "qwen3-moe-some-layers-dense", "gemma2", "phi3", "gpt2"),
    ],
)
def test_other_architectures_are_as_near_as_with_pytorch(
    kernels: CompiledKernels, name: str, tmp_path: Path
):
    """In our decoder and through the bridge, with heads that the kernels can attend with or not."""
    make_checkpoint(name, tmp_path)
    prompts = [random_tokens(size, size) for size in (90, 40, 41)]

    def logprobs(dtype: str, compiled: bool) -> Tensor:
        llm = LLM(
            tmp_path,
            dtype=dtype,
            device="cpu",
            num_blocks=64,
            max_batch_tokens=50,
            skip_tokenizer=True,
            compile_kernels=compiled,
        )
        params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
        done = llm.generate(prompts, params)
        assert all(one.finish_reason == "length" for one in done)
        found = [entry.logprob for one in done for entry in one.prompt_logprobs if entry]
        return torch.tensor(found)

    exact = logprobs("float32", False)
    ours, theirs = (logprobs("bfloat16", compiled) - exact for compiled in (True, False))
    assert 0 < ours.abs().median() <= 1.5 * theirs.abs().median()


NUMBERS = "float32 or bear or reference or rise"
OLDER = {
    "haswell": ("AVX2", NUMBERS + " or (near and (smollm3 or gemma2)) or last_bit"),
    "skylake-avx512": ("AVX512", NUMBERS),
}


@pytest.mark.parametrize("target", OLDER)
def test_what_older_processors_do_is_right_as_well(kernels: CompiledKernels, target: str):
    """Tests from above, with kernels compiled for those and run here."""
    needs, chosen = OLDER[target]
    if torch.backends.cpu.get_cpu_capability() not in ("AVX512", needs):
        pytest.skip(f"this processor cannot run what is compiled for {target}")
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", __file__, "-k", chosen]
    environment = os.environ | {TARGET: target}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout and " skipped" not in done.stdout


# --- what cannot be had ---------------------------------------------------------------------------


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes a compiler out of a shell script; the cache is empty."""
    monkeypatch.setenv("MINISGL_TUI_CACHE", str(tmp_path / "cache"))

    def make(script: str) -> Path:
        path = tmp_path / "compiler"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("CXX", str(path))
        return path

    return make


KNOWS = 'case "$*" in *-dM*) printf "#define __AVX2__ 1\\n#define __FMA__ 1\\n"; exit 0;; esac\n'


def quiet(stage: str, fraction: float | None) -> None:
    pass


def test_a_compiler_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nowhere/c++")
    with pytest.raises(UserError, match=r"CXX is '/nowhere/c\+\+', which is not there; install"):
        build.build(quiet)
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"there is no c\+\+, g\+\+ or clang\+\+"):
        build.build(quiet)


def test_a_processor_that_has_no_vectors_of_eight_is_refused(
    compiler: Callable[[str], Path],
) -> None:
    compiler("exit 0")
    with pytest.raises(
        UserError, match="x86 processors with AVX2, and this one is not; leave it out"
    ):
        build.build(quiet)


def test_what_the_compiler_says_is_passed_on_and_nothing_stays_behind(
    compiler: Callable[[str], Path], tmp_path: Path
) -> None:
    compiler(KNOWS + "echo 'cpu.cpp:1: error: no such thing' >&2; exit 1")
    with pytest.raises(UserError, match=r"could not compile the kernels: .*no such thing"):
        build.build(quiet)
    assert [path.suffix for path in (tmp_path / "cache/kernels").iterdir()] == [".lock"]


def test_kernels_are_compiled_once(compiler: Callable[[str], Path], tmp_path: Path) -> None:
    count = tmp_path / "count"
    takes = 'while [ "$1" != -o ]; do shift; done; echo library > "$2"'
    compiler(f"{KNOWS}echo x >> {count}; {takes}")
    stages: list[str] = []
    for _ in range(2):
        library = build.build(lambda stage, fraction: stages.append(stage))
        assert library.read_text() == "library\n"
    assert count.read_text() == "x\n"
    assert stages == ["compiling kernels for this processor, once"]
    with pytest.raises(UserError, match=r"cannot be loaded .*; delete it"):
        build.load(quiet)


def test_a_cache_that_is_a_file_is_named(compiler: Callable[[str], Path], tmp_path: Path) -> None:
    compiler(KNOWS)
    (tmp_path / "cache").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*MINISGL_TUI_CACHE"):
        build.build(quiet)
