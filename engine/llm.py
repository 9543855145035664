"""``LLM``: a model, its tokenizer and an engine in one object, for use from Python.

Owns putting the parts together from plain settings. Scheduling is ``Engine``'s, which may also be
driven directly: ``llm.engine.submit(...)`` and ``llm.engine.step()``.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock

import msgspec
import torch

from .config import EngineConfig
from .engine import Engine
from .errors import RequestRefused, UserError
from .generation_config import default_params, eos_token_ids
from .inputs import Prompt, as_conversations, as_params, as_prompts
from .kernels.compiled import CompiledKernels
from .loader import describe, open_checkpoint
from .model_store import Progress, no_progress, resolve
from .models.base import Checkpoint
from .plan import TokenLogprobs
from .policies import make_policies
from .request import Request
from .runner.attention.compiled import CompiledAttention
from .runner.attention.registry import make_backend
from .runner.device import cpu_multiplies_bfloat16, resolve_device, resolve_dtype
from .runner.grammars import Grammars
from .runner.graphs import CudaRecorder, DecodeGraphs
from .runner.kv_cache import KVCache, blocks_in, bytes_per_block, default_blocks, parse_memory
from .runner.model_runner import ModelRunner
from .sampling import SamplingParams
from .tokenizer import Message, Tokenizer


@dataclass(frozen=True, slots=True)
class Completion:
    """The answer to one prompt.

    ``text`` is empty without a tokenizer. ``token_ids`` ends with the end-of-sequence token where
    one was generated. ``cached_tokens`` of the prompt were found in the prefix cache.
    ``finish_reason`` is ``stop``, ``length``, ``abort`` or ``error``; ``message`` says why, for
    ``error``. ``logprobs`` has one entry per token where the parameters asked, ``prompt_logprobs``
    one per token of the prompt, None for the first.
    """

    text: str
    token_ids: list[int]
    finish_reason: str
    cached_tokens: int
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs | None] = field(default_factory=list)
    message: str = ""


class LLM:
    """A loaded model.

    ``model`` is an alias, a local directory, a ``.gguf`` file or a Hub id. ``num_blocks`` or
    ``kv_memory`` ("2GiB") sizes the KV pool, not both. ``max_model_len`` in tokens defaults to the
    model's context. ``model_impl`` is whose code computes it: ``native``, ``transformers`` or
    ``auto``, native where that can. ``cuda_graphs`` replays decode steps on CUDA where attention
    is ``auto``. ``overlap`` lets a GPU begin with a decode step while the results of the last
    are handed on. ``compile_kernels`` compiles kernels for this CPU, which takes a C++ compiler
    and, the first time, some seconds; ``auto`` is bfloat16 then. ``skip_tokenizer`` serves a
    checkpoint without one: ids in, ids out. ``progress`` is told about downloads, conversion and
    loading; what it raises comes out unchanged. Raises UserError for whatever cannot be used.

    ``default_params`` are the sampling parameters of calls that give none: those that the model's
    ``generation_config.json`` asks for.

    Threads may share one: their calls queue up and run one after the other. To have prompts
    batched together, give them in one call.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        dtype: str = "auto",
        device: str = "auto",
        block_size: int = 16,
        num_blocks: int | None = None,
        kv_memory: str | int | None = None,
        max_batch_tokens: int = 512,
        max_running_requests: int = 256,
        max_model_len: int | None = None,
        schedule_policy: str = "fcfs",
        admission_policy: str = "optimistic",
        preemption_policy: str = "newest",
        eviction_policy: str = "lru",
        attention: str = "auto",
        model_impl: str = "auto",
        cuda_graphs: bool = True,
        overlap: bool = False,
        compile_kernels: bool = False,
        seed: int = 0,
        skip_tokenizer: bool = False,
        progress: Progress | None = None,
    ) -> None:
        progress = progress or no_progress
        if not isinstance(model, str | os.PathLike):
            raise UserError(f"the model is {model!r}; give its name or path as text")
        model = os.fsdecode(model)
        # Everything that can be refused is looked at before anything slow begins.
        if num_blocks is not None and kv_memory is not None:
            raise UserError("--num-blocks and --kv-memory both size the KV pool; give one of them")
        memory = None if kv_memory is None else parse_memory(kv_memory)
        torch_device = resolve_device(device)
        if overlap and torch_device.type == "cpu":
            raise UserError(
                "--overlap is for GPUs: a CPU would run the next step before it hands on the "
                "tokens of this one; leave it out"
            )
        chosen = "bfloat16" if compile_kernels and dtype == "auto" else dtype
        torch_dtype = resolve_dtype(chosen, torch_device)
        if compile_kernels and (torch_device.type, torch_dtype) != ("cpu", torch.bfloat16):
            given = f"{str(torch_dtype).removeprefix('torch.')} on {torch_device}"
            raise UserError(
                f"--compile is for --dtype bfloat16 on --device cpu, and this is {given}; "
                "leave it out, or give those"
            )
        backend = make_backend(attention, torch_device)
        settings = EngineConfig(
            block_size=block_size,
            num_blocks=1 if num_blocks is None else num_blocks,
            max_batch_tokens=max_batch_tokens,
            max_running_requests=max_running_requests,
            max_model_len=1 if max_model_len is None else max_model_len,
            schedule_policy=schedule_policy,
            admission_policy=admission_policy,
            preemption_policy=preemption_policy,
            eviction_policy=eviction_policy,
            seed=seed,
        )
        make_policies(settings)
        kernels = CompiledKernels(progress) if compile_kernels else None
        path = resolve(model, progress)
        checkpoint = open_checkpoint(path, model_impl)
        if kernels and dtype == "auto":
            _check_rest(kernels, checkpoint)
        if max_model_len is not None and max_model_len > checkpoint.max_context:
            raise UserError(
                f"--max-model-len is {max_model_len}, but the model was made for "
                f"{checkpoint.max_context} tokens; use {checkpoint.max_context} or less"
            )
        if memory is not None:
            num_blocks = blocks_in(memory, checkpoint.attention, block_size, torch_dtype)

        self.default_params = default_params(path)
        progress("loading the tokenizer", None)
        self.tokenizer: Tokenizer | None = None if skip_tokenizer else Tokenizer(path)
        eos = eos_token_ids(path) if self.tokenizer is None else self.tokenizer.eos_ids
        decoder = checkpoint.load(
            dtype=torch_dtype,
            device=torch_device,
            progress=lambda fraction: progress("loading weights", fraction),
        )
        if num_blocks is None:
            num_blocks = default_blocks(
                checkpoint.attention,
                max_model_len or checkpoint.max_context,
                block_size,
                torch_dtype,
                torch_device,
            )
            size = num_blocks * bytes_per_block(checkpoint.attention, block_size, torch_dtype)
            progress(
                f"KV pool: {num_blocks} blocks of {block_size} tokens, up to {size / 1e9:.2f} GB, "
                f"by what {torch_device} has (--kv-memory and --num-blocks change it)",
                None,
            )
        config = msgspec.structs.replace(
            settings,
            num_blocks=num_blocks,
            max_model_len=max_model_len or checkpoint.max_context,
            vocab_size=checkpoint.vocab_size,
            eos_token_ids=eos,
        )
        self.model_info = describe(model, path, checkpoint, decoder)
        decoder.pack(kernels)
        # After that: it has just given back the memory of the weights as they were.
        cache = KVCache(
            checkpoint.attention,
            num_blocks=num_blocks,
            block_size=block_size,
            dtype=torch_dtype,
            device=torch_device,
            huge_pages=kernels is not None,
        )
        if kernels and attention == "auto":
            if kernels.attends(checkpoint.attention):
                backend = CompiledAttention(kernels)
            else:
                progress("--compile: attention stays PyTorch's, for heads of these sizes", None)
        graphs = None
        if torch_device.type == "cuda" and cuda_graphs and attention == "auto":
            graphs = DecodeGraphs(decoder, cache, CudaRecorder())
        grammars = Grammars(self.tokenizer, checkpoint.vocab_size) if self.tokenizer else None
        self.runner = ModelRunner(
            decoder,
            cache,
            backend,
            graphs=graphs,
            grammars=grammars,
            seed=seed,
            overlap=overlap,
        )
        self.engine = Engine(config, self.runner)
        self._lock = Lock()

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[Completion]:
        """Answer one prompt or several together; results in the order of the prompts.

        ``params`` is one for all, or as many as there are prompts; ``default_params`` where none
        are given. Raises UserError for what is no prompt, and RequestRefused, and runs nothing,
        when a prompt can never fit.
        """
        every = as_prompts(prompts)
        settings = as_params(params, len(every), self.default_params)
        with self._lock:
            return self._run([self._encode(prompt) for prompt in every], settings)

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[Completion]:
        """Answer one conversation or several, through the model's chat template."""
        several = as_conversations(messages)
        settings = as_params(params, len(several), self.default_params)
        tokenizer = self._need_tokenizer()
        with self._lock:
            return self._run([tokenizer.apply_chat(one) for one in several], settings)

    def reset_prefix_cache(self) -> int:
        """Forget every cached prefix that no running request holds; returns the blocks freed."""
        with self._lock:
            return self.engine.reset_prefix_cache()

    def _run(self, prompts: list[list[int]], params: list[SamplingParams]) -> list[Completion]:
        requests: list[Request] = []
        try:
            for index, (prompt, one) in enumerate(zip(prompts, params, strict=True)):
                try:
                    requests.append(self.engine.submit(prompt, one))
                except RequestRefused as error:
                    where = f"prompt {index}: " if len(prompts) > 1 else ""
                    raise RequestRefused(f"{where}{error}") from error
            while not all(request.finished for request in requests):
                self.engine.step()
        finally:
            # After a refusal or an interrupt nothing of this call may stay behind.
            for request in requests:
                if not request.finished:
                    self.engine.abort(request.id)
        return [self._completion(request) for request in requests]

    def _completion(self, request: Request) -> Completion:
        output, text = request.output, ""
        if self.tokenizer is not None:
            detokenizer = self.tokenizer.detokenizer(request.tokens[: request.prompt_len])
            text = detokenizer.feed(*output) + detokenizer.flush()
        return Completion(
            text=text,
            token_ids=output,
            finish_reason=str(request.finish_reason or ""),
            cached_tokens=request.cached_tokens,
            logprobs=request.logprobs,
            prompt_logprobs=request.prompt_logprobs,
            message=request.message,
        )

    def _encode(self, prompt: str | list[int]) -> list[int]:
        return self._need_tokenizer().encode(prompt) if isinstance(prompt, str) else prompt

    def _need_tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise UserError("this LLM was made with skip_tokenizer=True; give it token ids")
        return self.tokenizer


def _check_rest(kernels: CompiledKernels, checkpoint: Checkpoint) -> None:
    """UserError where products are left to PyTorch in bfloat16, and that is slow here."""
    if checkpoint.compiles and kernels.attends(checkpoint.attention):
        return
    if not cpu_multiplies_bfloat16():
        raise UserError(
            f"--compile can do only a part of {checkpoint.architecture}, and this processor is "
            "slow at the rest in bfloat16; leave it out"
        )
