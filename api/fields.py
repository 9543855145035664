"""From a body to its fields: decoded, checked, and refused by name where nothing here does them.

``decode(b'{"messages": [], "tools": [{}]}', ChatRequest)`` raises 400 with ``param: "tools"``.
"""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from ..engine.errors import RequestRefused
from ..engine.models.fields import shown
from ..engine.sampling import SamplingParams
from .constraints import grammar_of
from .errors import ApiError, bad_request
from .not_here import NOT_HERE, NotHere
from .protocol import GenerateRequest, SamplingRequest

R = TypeVar("R", bound=msgspec.Struct)


_ONLY_MESSAGES = ("function_call", "audio")


def decode(body: bytes, kind: type[R]) -> tuple[R, list[str]]:
    """The body as a ``kind``, and the names in it that nobody knows. ApiError 400 otherwise."""
    try:
        values = msgspec.json.decode(body)
        if not isinstance(values, dict):
            raise bad_request(f"the body is {_json_type(values)}; send a JSON object")
        return _read(values, kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise bad_request(f"the body is not valid JSON: {error}") from None
    except RecursionError:
        raise bad_request("the body is nested too deeply; send a plain JSON object") from None


def _read(values: dict[str, Any], kind: type[R]) -> tuple[R, list[str]]:
    values = {name: value for name, value in values.items() if value is not None}
    unknown = [name for name in values if name not in kind.__struct_fields__]
    own: Mapping[str, NotHere] = getattr(kind, "NOT_HERE", {})
    _refuse(values, unknown, own)
    asked = convert(values, kind)
    return asked, [name for name in unknown if name not in NOT_HERE and name not in own]


def convert(values: dict[str, Any], kind: type[R], within: str = "") -> R:
    """``values`` as a ``kind``, or 400; ``within`` is where they stand, if not in the body."""
    try:
        return _convert(values, kind)
    except msgspec.ValidationError as error:
        raise _wrong(str(error), values, kind, within) from None


def _convert(values: dict[str, Any], kind: type[R]) -> R:
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError:
        return msgspec.convert(_whole(values), kind)


def _whole(value: Any) -> Any:
    """``value`` with integers for whole floats: to JSON, 3.0 is an integer."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _whole(one) for name, one in value.items()}
    return [_whole(one) for one in value] if isinstance(value, list) else value


def _types_at(kind: type[msgspec.Struct], path: str) -> list[inspect.Type]:
    """The types that may stand at ``path`` in a ``kind``, such as ``messages[0].role``."""
    types = _members(inspect.type_info(kind))
    for name, index in _STEP.findall(path):
        below: list[inspect.Type] = []
        for one in types:
            if name and isinstance(one, inspect.StructType):
                below += [field.type for field in one.fields if field.encode_name == name]
            elif index and isinstance(one, inspect.ListType):
                below.append(one.item_type)
            elif index and isinstance(one, inspect.DictType):
                below.append(one.value_type)
        types = [member for one in below for member in _members(one)]
    return types


def _members(kind: inspect.Type) -> list[inspect.Type]:
    """``kind`` without its description, and each of a union."""
    if isinstance(kind, inspect.Metadata):
        return _members(kind.type)
    if isinstance(kind, inspect.UnionType):
        return [member for one in kind.types for member in _members(one)]
    return [kind]


_STEP = re.compile(r"(\w+)|\[(\d+|\.\.\.)\]")


def _refuse(values: dict[str, Any], names: list[str], own: Mapping[str, NotHere]) -> None:
    """``own`` are the refusals of one endpoint, beside those of all."""
    for name in names:
        known = own.get(name) or NOT_HERE.get(name)
        if known and not any(_same(values[name], one) for one in known.neutral):
            hint = f" or send {shown(known.neutral[0])}" if known.neutral else ""
            raise bad_request(
                f"{name} is not supported by this server; {known.instead}{hint}", name
            )
    for index, message in enumerate(_messages(values)):
        for name in _ONLY_MESSAGES:
            if message.get(name) is not None:
                where = f"messages[{index}].{name}"
                raise bad_request(f"{where} is not supported by this server; leave it out", where)
        if message.get("role") == "function":
            where = f"messages[{index}].role"
            raise bad_request(
                f"{where} is 'function', which is not supported by this server; send a tool's "
                "message with the tool_call_id of the call",
                where,
            )


def _messages(values: dict[str, Any]) -> list[dict[str, Any]]:
    messages = values.get("messages")
    return [m for m in messages if isinstance(m, dict)] if isinstance(messages, list) else []


def _same(value: Any, neutral: Any) -> bool:
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)


def _wrong(message: str, values: Any, kind: type[msgspec.Struct], within: str) -> ApiError:
    """msgspec's complaint in our words, with the value and what it may be:
    ``Expected `int` <= 128 - at `$.n``` → ``n is 200; it must be from 1 to 128``."""
    problem, _, path = message.partition(" - at ")
    inside = path.strip("`").removeprefix("$").removeprefix(".")
    where = f"{within}.{inside}".strip(".")
    if missing := re.search(r"missing required field `(\w+)`", problem):
        name = f"{where}.{missing[1]}" if where else missing[1]
        return bad_request(f"{name} is missing; send it", name)
    name = where.replace("[...]", "") or None
    types, value = _types_at(kind, inside), _at(values, inside)
    what = where if value is None else f"{where} is {shown(value)}; it"
    if bound := re.fullmatch(r"Expected `\w+` (of length )?[<>]=? \S+", problem):
        if bound[1]:
            return bad_request(f"{where} {_length(types, value)}", name)
        return bad_request(f"{what} must be {_range(types)}", name)
    if problem.startswith("Invalid enum value"):
        words = [str(word) for one in types for word in getattr(one, "values", ())]
        allowed = " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
        return bad_request(f"{what} must be {allowed}", name)
    problem = problem.replace("`", "").replace(" | ", " or ")
    return bad_request(f"{where or 'the body'}: {problem[:1].lower()}{problem[1:]}", name)


def _range(types: list[inspect.Type]) -> str:
    """``from 1 to 128``, ``above 0``: what the numbers among ``types`` may be."""
    one = next(t for t in types if isinstance(t, inspect.IntType | inspect.FloatType))
    if one.ge is not None and one.le is not None:
        return f"from {one.ge} to {one.le}"
    ends = (("at least", one.ge), ("above", one.gt), ("at most", one.le), ("below", one.lt))
    return " and ".join(f"{word} {end}" for word, end in ends if end is not None)


def _length(types: list[inspect.Type], value: Any) -> str:
    """``has 65 items; it must have 64 at most``."""
    wanted, unit = _SIZED[type(value)]
    one: Any = next(t for t in types if isinstance(t, wanted))
    low, high = one.min_length or 0, one.max_length
    allowed = f"at least {low}" if high is None else f"from {low} to {high}"
    return f"has {len(value)} {unit}; it must have {allowed}"


_SIZED: dict[type, tuple[Any, str]] = {
    str: (inspect.StrType, "characters"),
    list: (inspect.ListType, "items"),
    dict: (inspect.DictType, "keys"),
}


def _at(values: Any, where: str) -> Any:
    """The value at ``where``; None in a dictionary, of whose keys msgspec tells nothing."""
    for name, index in _STEP.findall(where):
        if index == "...":
            return None
        values = values[int(index)] if index else values[name]
    return values


def _json_type(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


# --- what they mean ------------------------------------------------------------------------------


def stops_of(request: SamplingRequest) -> list[str]:
    """The stop strings, as a list."""
    return [request.stop] if isinstance(request.stop, str) else request.stop or []


def wants_usage(request: GenerateRequest) -> tuple[bool, bool]:
    """Whether a stream is to end with its usage, and whether every chunk is to have it."""
    options = request.stream_options
    if options is None:
        return False, False
    if not request.stream:
        raise bad_request("stream_options needs stream: true", "stream_options")
    return bool(options.include_usage), bool(options.continuous_usage_stats)


_SAME_NAMES = (
    "top_p",
    "min_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "min_tokens",
    "ignore_eos",
    "temperature",
)


def sampling_params(
    request: SamplingRequest,
    default: SamplingParams,
    *,
    max_tokens: int,
    logprobs: int | None,
    vocab_size: int,
    prompt_logprobs: int | None = None,
) -> SamplingParams:
    """How to sample, ``default`` where the request leaves it open. ApiError 400 out of range."""
    names = {name: getattr(request, name) for name in _SAME_NAMES}
    given = {name: value for name, value in names.items() if value is not None}
    if request.top_k is not None:
        given["top_k"] = max(0, request.top_k)
    if request.logit_bias:
        given["logit_bias"] = _logit_bias(request.logit_bias, vocab_size)
    if request.stop_token_ids:
        check_ids(request.stop_token_ids, vocab_size, "stop_token_ids")
        given["stop_token_ids"] = tuple(request.stop_token_ids)
    if constraint := grammar_of(request):
        given["grammar"] = constraint[1]
    given |= {"max_tokens": max_tokens, "logprobs": logprobs, "prompt_logprobs": prompt_logprobs}
    try:
        return msgspec.structs.replace(default, **given)
    except RequestRefused as error:
        name = re.split(r"\W", str(error), maxsplit=1)[0]
        raise bad_request(str(error), name if name in given else None) from None


def check_ids(ids: list[int], vocab_size: int, param: str) -> None:
    for token in ids:
        if not 0 <= token < vocab_size:
            raise bad_request(
                f"{param}: token id {token} is not in the model's vocabulary; ids run from 0 to "
                f"{vocab_size - 1}",
                param,
            )


def _logit_bias(given: dict[str, float], vocab_size: int) -> dict[int, float]:
    biases: dict[int, float] = {}
    for name, bias in given.items():
        if not re.fullmatch(r"[0-9]{1,10}", name):
            raise bad_request(
                f"logit_bias has the key {shown(name)}; keys are token ids", "logit_bias"
            )
        biases[int(name)] = bias
    check_ids(list(biases), vocab_size, "logit_bias")
    return biases
