"""What a transformers model asks of attention, found by running it once without its weights.

The model is built on the ``meta`` device, where tensors have shapes but no values, with an
attention function that takes notes. Which positions see which is not taken from the config either:
it is read off the mask that the model would have built.
"""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .base import AttentionSpec

NAME = "minisgl_probe"
_TOKENS, _ROWS = 8, 3
_LONGEST = 200  # characters of somebody else's error
_FARTHEST = 1 << 21  # positions up to here are tried when looking for a window

# Arguments of an attention call that say nothing about what it computes.
_HARMLESS = {"dropout", "position_ids", "use_cache", "logits_to_keep"}
_HARMLESS |= {"output_attentions", "output_router_logits"}
_READ = {"scaling", "softcap", "sliding_window"}  # the last also shows in the mask
_OTHER_MASK = "its mask is neither causal nor a sliding window, as where attention is in chunks"
_REASONS = {
    "s_aux": "its attention has sinks, which are not computed",
    "position_bias": "its attention adds a bias by position, which is not computed",
}

_RECURRENT = ("mamba", "recurrent", "rwkv", "lstm", "deltanet", "linearattention", "shortconv")


class Refusal(Exception):
    """Why the bridge cannot run a model; ``str`` completes "cannot run it:"."""


@dataclass(frozen=True, slots=True)
class Findings:
    """Each layer's attention, in the order they run, and the module that calls for it.

    ``vocab_size`` is how many logits there are, ``parameters`` how many numbers to learn.
    """

    attention: list[AttentionSpec]
    modules: list[str]
    vocab_size: int
    parameters: int


@dataclass(frozen=True, slots=True)
class _Call:
    module: nn.Module
    query: tuple[int, ...]
    key: tuple[int, ...]
    value: tuple[int, ...]
    mask: Tensor | None
    settings: dict[str, Any]


class _Notes:
    """What the model under the probe asked for; ``masks`` it was given, with their rules."""

    def __init__(self) -> None:
        self.calls: list[_Call] = []
        self.masks: list[tuple[Tensor, Callable[..., Tensor]]] = []

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **settings: Any,
    ) -> tuple[Tensor, None]:
        shapes = tuple(query.shape), tuple(key.shape), tuple(value.shape)
        self.calls.append(_Call(module, *shapes, attention_mask, settings))
        batch, heads, tokens, _ = query.shape
        return query.new_empty(batch, tokens, heads, value.shape[-1]), None

    def build_mask(
        self,
        batch_size: int,
        q_length: int,
        kv_length: int,
        mask_function: Callable[..., Tensor],
        **_: Any,
    ) -> Tensor:
        mask = torch.empty(batch_size, 1, q_length, kv_length, dtype=torch.bool, device="meta")
        self.masks.append((mask, mask_function))
        return mask

    def rule_of(self, mask: Tensor) -> Callable[..., Tensor] | None:
        """The rule that ``mask``, or the one it is a view of, was built by."""
        for known, rule in self.masks:
            if mask is known or mask._base is known:
                return rule
        return None


_notes: ContextVar[_Notes] = ContextVar("notes of the probe that runs in this thread")


def _attend(module: nn.Module, *given: Any, **settings: Any) -> tuple[Tensor, None]:
    return _notes.get().attend(module, *given, **settings)


def _build_mask(**settings: Any) -> Tensor:
    return _notes.get().build_mask(**settings)


def probe(build: Callable[[str], Any], layers: int, max_context: int) -> Findings:
    """Run ``build(attention_name)``'s model on ``meta`` and say what each layer's attention is.

    Raises Refusal for whatever the attention backends do not compute.
    """
    from transformers.masking_utils import AttentionMaskInterface
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, _build_mask)
    model, notes = _built(build), _Notes()
    before = _notes.set(notes)
    try:
        logits = _run(model)
    finally:
        _notes.reset(before)
    modules = [call.module for call in notes.calls]
    if not modules:
        raise Refusal(_recurrent(model) or _NOT_OURS)
    if len(set(map(id, modules))) < len(modules):
        raise Refusal("it runs the attention of a layer more than once")
    if len(modules) != layers:
        raise Refusal(
            _recurrent(model) or f"only {len(modules)} of its {layers} layers are plain attention"
        )
    names = {id(module): name for name, module in model.named_modules()}
    rules: dict[int, int | None] = {}
    return Findings(
        attention=[_spec(call, notes, rules, max_context) for call in notes.calls],
        modules=[names[id(module)] for module in modules],
        vocab_size=_vocab(model, logits),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


_NOT_OURS = "its attention is not written for transformers' attention functions"


def _built(build: Callable[[str], Any]) -> Any:
    try:
        with torch.device("meta"):
            model = build(NAME).eval()
    except KeyError as error:
        if error.args == (NAME,):  # a table of its own attention classes
            raise Refusal(_NOT_OURS) from error
        raise
    return model


def _run(model: Any) -> Tensor:
    from inspect import signature

    if "position_ids" not in signature(model.forward).parameters:
        raise Refusal(
            _recurrent(model)
            or "it takes no positions: it counts them itself, or adds a bias by distance (ALiBi)"
        )
    tokens = torch.zeros(1, _TOKENS, dtype=torch.int64, device="meta")
    try:
        with torch.inference_mode():
            # The mask of ones keeps transformers from looking for packed sequences in positions,
            # which needs their values.
            logits = model(
                input_ids=tokens,
                position_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                use_cache=False,
                logits_to_keep=torch.zeros(_ROWS, dtype=torch.int64, device="meta"),
            ).logits
    except Exception as error:  # any model's own code
        raise Refusal(
            _recurrent(model) or f"it cannot be examined without weights ({on_one_line(error)})"
        ) from error
    if logits.shape[:2] != (1, _ROWS):
        raise Refusal("it does not compute logits for chosen tokens only")
    return logits


def _vocab(model: Any, logits: Tensor) -> int:
    rows = model.get_input_embeddings().weight.shape[0]
    if rows < logits.shape[-1]:
        raise Refusal(f"it has {logits.shape[-1]} logits but {rows} input embeddings")
    return logits.shape[-1]


def _recurrent(model: nn.Module) -> str | None:
    for module in model.modules():
        kind = type(module).__name__
        if any(part in kind.lower() for part in _RECURRENT):
            return f"it has recurrent or convolutional layers ({kind}), whose state is not paged"
    return None


def _spec(
    call: _Call, notes: _Notes, windows: dict[int, int | None], max_context: int
) -> AttentionSpec:
    """``windows`` remembers what each mask's rule, by its id, turned out to be."""
    batch, heads, tokens, head_dim = call.query
    _, kv_heads, length, _ = call.key
    if (batch, tokens, length, call.value[2]) != (1, _TOKENS, _TOKENS, _TOKENS):
        raise Refusal("its attention is not from the tokens of a text to themselves")
    if call.key[3] != head_dim or call.value[1] != kv_heads or heads % kv_heads:
        raise Refusal(f"the shapes {call.query}, {call.key}, {call.value} are no attention heads")
    if getattr(call.module, "is_kv_shared_layer", False):
        raise Refusal("some of its layers share keys and values")
    for name, value in call.settings.items():
        if name in _HARMLESS or name in _READ or value is None:
            continue
        if name == "is_causal" and value is True:
            continue
        raise Refusal(_REASONS.get(name, f"its attention takes {name}, which is not computed"))
    if call.mask is None:
        raise Refusal("it builds no mask that would say which tokens see which")
    rule = notes.rule_of(call.mask)
    if rule is None:
        raise Refusal("it adds to its attention scores, or hides keys, in a way of its own")
    if id(rule) not in windows:
        windows[id(rule)] = find_window(rule, min(max_context, _FARTHEST))
    return AttentionSpec(
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        value_dim=call.value[3],
        scale=_number(call, "scaling", head_dim**-0.5),
        window=windows[id(rule)],
        softcap=_number(call, "softcap", None),
    )


def _number(call: _Call, name: str, default: Any) -> Any:
    value = call.settings.get(name)
    if value is None:
        return default
    if not isinstance(value, int | float):
        raise Refusal(f"the {name} of its attention is not one number")
    return float(value)


def find_window(rule: Callable[..., Tensor], length: int) -> int | None:
    """How many tokens a query sees by ``rule(batch, head, query, key)``; None for all before it.

    Looks at queries at the end, in the middle and at the beginning of ``length`` positions. Raises
    Refusal where that is not a causal mask, perhaps with a window.
    """
    keys = torch.arange(length)
    zero = torch.zeros((), dtype=torch.int64)
    seen: dict[int, int] = {}
    for query in {length - 1, length - 2, length // 2, length // 3, 1, 0} & set(range(length)):
        try:
            visible = rule(zero, zero, torch.tensor(query), keys).expand(length)
        except Exception as error:
            raise Refusal(_OTHER_MASK) from error  # it depends on more than positions
        if bool(visible[query + 1 :].any()):
            raise Refusal("its attention looks ahead, so it is no causal language model")
        seen[query] = int(visible.sum())
        if not bool(visible[query + 1 - seen[query] : query + 1].all()):
            raise Refusal(_OTHER_MASK)
    window = max(seen.values())
    if any(count != min(query + 1, window) for query, count in seen.items()):
        raise Refusal(_OTHER_MASK)
    return None if window >= length else window


def on_one_line(error: BaseException) -> str:
    """What ``error`` says, at a bearable length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
