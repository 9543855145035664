"""What ``LLM`` takes from a caller, made into plain lists, or refused in one line.

Token ids may come as any integers: Python's, numpy's, torch's, or a whole array of them.
"""

import operator
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from .errors import RequestRefused, UserError
from .models.fields import shown
from .sampling import SamplingParams
from .tokenizer import Message

Prompt = str | Sequence[int]
_PROMPT = "a text or a list of token ids"


def as_prompts(prompts: Any) -> list[str | list[int]]:
    """One prompt or several, as a list: ``[5, 6]`` → ``[[5, 6]]``, ``["a", [5]]`` → the same."""
    prompts = _plain(prompts)
    if isinstance(prompts, str):
        return [prompts]
    if not _is_list(prompts):
        raise UserError(f"prompts is {_what(prompts)}; give {_PROMPT}, or a list of such prompts")
    if prompts and _is_id(prompts[0]):
        return [as_ids(prompts)]
    found: list[str | list[int]] = []
    for index, prompt in enumerate(map(_plain, prompts)):
        if not isinstance(prompt, str) and not _is_list(prompt):
            raise UserError(f"prompt {index} is {_what(prompt)}; give {_PROMPT}")
        found.append(prompt if isinstance(prompt, str) else as_ids(prompt))
    return found


def as_ids(tokens: Sequence[Any]) -> list[int]:
    """``tokens`` as Python integers; RequestRefused for 5.9 and "5", which are none."""
    try:
        return [operator.index(token) for token in tokens]
    except TypeError:
        wrong = next(token for token in tokens if not _is_id(token))
        raise RequestRefused(f"a token id is {_what(wrong)}; token ids are integers") from None


def as_params(params: Any, count: int, default: SamplingParams) -> list[SamplingParams]:
    """One setting for each of ``count`` prompts, from none, one or as many."""
    if params is None or isinstance(params, SamplingParams):
        return [params or default] * count
    if not _is_list(params) or not all(isinstance(one, SamplingParams) for one in params):
        raise UserError(f"params is {_what(params)}; give SamplingParams(...) or a list of them")
    if len(params) != count:
        raise UserError(
            f"{len(params)} sampling parameters for {count} prompts; give one or {count}"
        )
    return list(params)


def as_conversations(messages: Any) -> list[list[Message]]:
    """One conversation or several, as a list of them."""
    several = messages
    if _is_list(messages) and messages and isinstance(messages[0], Mapping):
        several = [messages]
    if not _is_list(several) or not all(map(_is_conversation, several)):
        raise UserError(
            f'messages is {_what(messages)}; give a list of {{"role": ..., "content": ...}}, '
            "or a list of such lists"
        )
    return [list(conversation) for conversation in several]


def _is_conversation(value: Any) -> bool:
    return _is_list(value) and all(isinstance(message, Mapping) for message in value)


def _is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)


def _is_id(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return getattr(value, "ndim", 0) == 0  # an array of one number is a prompt, not an id


def _plain(value: Any) -> Any:
    """An array of numpy or torch as nested lists; anything else as it is."""
    return value.tolist() if getattr(value, "ndim", 0) else value


def _what(value: Any) -> str:
    return f"{shown(value)} ({type(value).__name__})"
