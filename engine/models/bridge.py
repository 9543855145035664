"""Every other architecture: transformers' own model code, with our attention plugged in.

The model's forward runs as it is, on packed tokens and without a cache; where it calls its
attention function, ours is called. What each layer's attention computes is found by ``probe``
before any weight is read, and what cannot be run exactly is refused by name. Never runs code from a
checkpoint and never reads pickle: transformers sees neither the directory nor the Hub, only a
config and tensors from safetensors files.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..errors import UserError
from .base import Attend, AttentionSpec, Kernels, Scoring
from .examine import examine, read_model, refused
from .files import READABLE, Stored, coded, read_json, survey
from .linear import adapt_foreign_linears
from .packing import check_packing
from .places import remedy
from .probe import Refusal, on_one_line
from .quiet import quiet

NAME = "minisgl_paged"
_IN_TURN = "HF_DEACTIVATE_ASYNC_LOAD"
_TRIED_TOKENS = 16
_MOST_PARAMETERS = 2  # for each number in the files; beyond, a size in the config is wrong


@dataclass(slots=True)
class _Step:
    """The attention of the step that runs now."""

    attend: Attend | None = None


@dataclass(frozen=True, slots=True)
class _Layer:
    """What our attention function finds on the module that calls it."""

    index: int
    step: _Step


def _paged_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **_: Any
) -> tuple[Tensor, None]:
    """An attention function of transformers': ``[1, heads, N, D]`` in, ``[1, N, heads, D]`` out."""
    layer: Any = module.minisgl_layer
    if attention_mask is not None:
        raise Refusal("it builds an attention mask of its own")
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    return layer.step.attend(layer.index, q, k, v)[None], None


class BridgedModel:
    """A ``CausalLM`` around a transformers model; ``modules`` names the attention of each layer."""

    def __init__(self, model: Any, modules: list[str], attention: list[AttentionSpec]) -> None:
        self.model = model
        self._attention = attention
        self._step = _Step()
        for index, name in enumerate(modules):
            model.get_submodule(name).minisgl_layer = _Layer(index, self._step)

    def __call__(
        self,
        input_ids: Tensor,
        positions: Tensor | None,
        attend: Attend,
        sample_rows: Tensor,
        scoring: Scoring | None = None,
    ) -> Tensor:
        """Logits ``[S, vocab]`` float32; without ``positions``, by the model's own numbering.

        Those for ``scoring`` are computed all at once, and only converted in slices.
        """
        self._step.attend = attend
        kept = sample_rows if scoring is None else torch.cat((sample_rows, scoring.rows))
        try:
            output = self.model(
                input_ids=input_ids[None],
                position_ids=None if positions is None else positions[None],
                use_cache=False,
                logits_to_keep=kept,
            )
        finally:
            self._step.attend = None  # it holds this step's tensors
        logits: Tensor = output.logits[0]
        if scoring is not None:
            scoring.feed(logits[len(sample_rows) :], lambda part: part)
        return logits[: len(sample_rows)].float()

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.model.parameters()

    @torch.inference_mode()
    def pack(self, kernels: Kernels | None = None) -> None:
        """As the native decoder, for the layers whose weights only they read."""

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            spec = self._attention[layer]
            return q.new_zeros(q.shape[0], spec.num_heads, spec.value_dim)

        tokens = torch.arange(_TRIED_TOKENS, device=self.model.device)
        adapt_foreign_linears(
            self.model, lambda: self(tokens, tokens, attend, tokens[-1:]).tolist(), kernels
        )


class TransformersCheckpoint:
    """A ``Checkpoint`` for ``BridgedModel``.

    Raises UserError for a broken directory, and Unsupported with the reason for a model that cannot
    be run through the bridge.
    """

    def __init__(self, directory: Path) -> None:
        import transformers
        from transformers.modeling_utils import AttentionInterface

        AttentionInterface.register(NAME, _paged_attention)
        self.directory = directory
        self._source = directory / "config.json"
        raw = read_json(self._source)
        self._stored = survey(directory)
        with quiet(transformers):
            self._class, self._config = read_model(raw, self._source)
            found = examine(self._class, self._config, self._source, tensors=len(self._stored))
        self.architecture = self._class.__name__
        self.max_context = found.max_context
        self.attention = found.attention
        self.compiles = False  # a head that is also the embedding, for one, is left as it is
        self.vocab_size = found.vocab_size
        self._modules = found.modules
        self._check_size(found.parameters)

    def load(
        self,
        *,
        dtype: torch.dtype,
        device: torch.device,
        progress: Callable[[float], None] = lambda fraction: None,
    ) -> BridgedModel:
        """The model with the directory's weights, tried with packed tokens before it is returned.

        Raises UserError for weights that cannot be used, and Unsupported where packed tokens give
        other results than a text alone.
        """
        import transformers

        told = _Told(progress)
        with quiet(transformers, told):
            try:
                model = self._load(dtype).to(device)
            except (UserError, torch.OutOfMemoryError) as error:
                if isinstance(error, UserError):
                    raise
                need = sum(stored.nbytes for stored in self._stored.values())
                raise UserError(
                    f"{self.directory}: the weights need about {need / 1e9:.1f} GB, more than "
                    f"{device} has free; use a smaller model or --dtype bfloat16"
                ) from error
            except Exception as error:
                if error is told.raised:
                    raise
                raise UserError(
                    f"{self.directory}: transformers cannot load it as {self.architecture} "
                    f"({on_one_line(error)}); {remedy(self._source)}"
                ) from error
            bridged = BridgedModel(model, self._modules, self.attention)
            self._try(bridged, dtype, device)
        return bridged

    def _load(self, dtype: torch.dtype) -> Any:
        read: set[str] = set()
        lazy = {name: _Lazy(name, stored, read) for name, stored in self._stored.items()}
        with _one_tensor_at_a_time():
            model, info = self._class.from_pretrained(
                None,
                config=self._config,
                state_dict=lazy,
                attn_implementation=NAME,
                dtype=dtype,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        told = f"for {self.architecture} as config.json describes it"
        for kind in ("missing", "unexpected"):
            names = sorted(info[f"{kind}_keys"])
            if names:
                more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
                raise UserError(f"{self.directory}: tensor {names[0]} is {kind}{more} {told}")
        for name, found, expected in sorted(info["mismatched_keys"]):
            # One that transformers renames when it loads is in a file under another name.
            stored = self._stored.get(name)
            raise UserError(
                f"{stored.file if stored else self.directory}: tensor {name} has shape "
                f"{list(found)}, but config.json asks for {list(expected)}"
            )
        self._check_dtypes(read, [name for name, _ in model.named_buffers()])
        return model.requires_grad_(False)

    def _check_dtypes(self, read: set[str], buffers: list[str]) -> None:
        for name in sorted(read):
            if self._stored[name].dtype in READABLE:
                continue
            # Buffers may be integers. Checkpoints of a base model leave out the head's prefix.
            if not any(f".{buffer}".endswith(f".{name}") for buffer in buffers):
                raise coded(name, self._stored[name])

    def _check_size(self, parameters: int) -> None:
        """Raise UserError before memory is taken for far more than there is to read. What differs
        less is told by the tensor's name when it is loaded."""
        stored = sum(prod(tensor.shape) for tensor in self._stored.values())
        if parameters > _MOST_PARAMETERS * stored:
            raise UserError(
                f"{self._source}: {self.architecture} has {parameters:,} parameters by these "
                f"sizes, but the weights are only {stored:,} numbers; {remedy(self._source)}"
            )

    def _try(self, model: BridgedModel, dtype: torch.dtype, device: torch.device) -> None:
        try:
            with torch.inference_mode():
                check_packing(
                    model,
                    self.attention,
                    vocab_size=self.vocab_size,
                    max_context=self.max_context,
                    dtype=dtype,
                    device=device,
                )
        except Refusal as error:
            raise refused(self._source, self.architecture, error) from error
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # any model's own code
            reason = f"it fails on packed tokens ({on_one_line(error)})"
            raise refused(self._source, self.architecture, reason) from error


@contextmanager
def _one_tensor_at_a_time() -> Iterator[None]:
    """Keeps transformers' loader from reading ahead in threads: up to the whole model, twice."""
    before = os.environ.get(_IN_TURN)
    os.environ[_IN_TURN] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_IN_TURN]
        else:
            os.environ[_IN_TURN] = before


class _Told:
    """``progress``, remembering what it raises, which is to come out unchanged."""

    def __init__(self, progress: Callable[[float], None]) -> None:
        self.progress = progress
        self.raised: BaseException | None = None

    def __call__(self, fraction: float) -> None:
        try:
            self.progress(fraction)
        except BaseException as error:
            self.raised = error
            raise


class _Lazy:
    """A tensor in a file, read when indexed with ``...`` as transformers' loader does. ``read`` is
    told its name then."""

    def __init__(self, name: str, stored: Stored, read: set[str]) -> None:
        self.name, self.stored, self._read = name, stored, read
        self.shape = torch.Size(stored.shape)

    def __getitem__(self, index: Any) -> Tensor:
        # Opened anew each time, and copied: pages of a mapped file count as memory in use until it
        # is closed.
        self._read.add(self.name)
        with safe_open(self.stored.file, framework="pt") as reader:
            return reader.get_tensor(self.name)[index].clone()

    def get_shape(self) -> list[int]:
        return list(self.stored.shape)

    def get_dtype(self) -> str:
        return self.stored.dtype
