"""From a body to its fields: decoded, checked, and refused by name where nothing here does them.

``decode(b'{"messages": [], "tools": [{}]}', ChatRequest)`` raises 400 with ``param: "tools"``.
"""

import re
from typing import Any, TypeVar

import msgspec

from ..engine.errors import RequestRefused
from ..engine.models.fields import shown
from ..engine.sampling import SamplingParams
from .errors import ApiError, bad_request
from .protocol import GenerateRequest, SamplingRequest

R = TypeVar("R", bound=msgspec.Struct)

MOST_CHOICES, MOST_STOPS, LONGEST_STOP = 128, 64, 1024
MOST_TOP_LOGPROBS = 20

# Fields that clients of OpenAI, vLLM and SGLang know and nothing here does, each with the values
# that ask for nothing: those are taken.
NOT_HERE: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "chat_template": (),
    "documents": ([],),
    "ebnf": (),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "grammar": (),
    "guided_choice": (),
    "guided_decoding_backend": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "json_schema": (),
    "kv_transfer_params": (),
    "length_penalty": (1,),
    "logits_processors": ([],),
    "lora_path": (),
    "mm_processor_kwargs": ({},),
    "modalities": (["text"],),
    "no_stop_trim": (False,),
    "prediction": (),
    "prompt_logprobs": (),
    "regex": (),
    "response_format": ({"type": "text"},),
    "return_hidden_states": (False,),
    "return_token_ids": (False,),
    "separate_reasoning": (True,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "stream_reasoning": (True,),
    "structural_tag": (),
    "structured_outputs": (),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "truncate_prompt_tokens": (),
    "use_beam_search": (False,),
    "web_search_options": (),
}
_ONLY_MESSAGES = ("tool_calls", "tool_call_id", "function_call", "audio")


def decode(body: bytes, kind: type[R]) -> tuple[R, list[str]]:
    """The body as a ``kind``, and the names in it that nobody knows. ApiError 400 otherwise."""
    try:
        values = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise bad_request(f"the body is not valid JSON: {error}") from None
    except RecursionError:
        raise bad_request("the body is nested too deeply; send a plain JSON object") from None
    if not isinstance(values, dict):
        raise bad_request(f"the body is {_json_type(values)}; send a JSON object")
    values = {name: value for name, value in values.items() if value is not None}
    unknown = [name for name in values if name not in kind.__struct_fields__]
    _refuse(values, unknown)
    for field in msgspec.structs.fields(kind):
        value = values.get(field.encode_name)
        if isinstance(value, float) and value.is_integer() and field.type == int | None:
            values[field.encode_name] = int(value)
    try:
        return msgspec.convert(values, kind), [name for name in unknown if name not in NOT_HERE]
    except msgspec.ValidationError as error:
        raise _wrong_type(str(error)) from None


def _refuse(values: dict[str, Any], names: list[str]) -> None:
    for name in names:
        neutral = NOT_HERE.get(name)
        if neutral is not None and not any(_same(values[name], one) for one in neutral):
            hint = f"; leave it out or send {shown(neutral[0])}" if neutral else "; leave it out"
            raise bad_request(f"{name} is not supported by this server{hint}", name)
    for index, message in enumerate(_messages(values)):
        for name in _ONLY_MESSAGES:
            if message.get(name) is not None:
                where = f"messages[{index}].{name}"
                raise bad_request(f"{where} is not supported by this server; leave it out", where)
        if message.get("role") in ("tool", "function"):
            where = f"messages[{index}].role"
            raise bad_request(
                f"{where} is {message['role']!r}; tool calls are not supported by this server: "
                "use system, developer, user or assistant",
                where,
            )


def _messages(values: dict[str, Any]) -> list[dict[str, Any]]:
    messages = values.get("messages")
    return [m for m in messages if isinstance(m, dict)] if isinstance(messages, list) else []


def _same(value: Any, neutral: Any) -> bool:
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)


def _wrong_type(message: str) -> ApiError:
    """``Expected `int | null`, got `str` - at `$.n``` → ``n: expected int or null, got str``."""
    problem, _, path = message.partition(" - at ")
    where = path.strip("`").removeprefix("$").removeprefix(".")
    if missing := re.search(r"missing required field `(\w+)`", problem):
        name = f"{where}.{missing[1]}" if where else missing[1]
        return bad_request(f"{name} is missing; send it", name)
    problem = problem.replace("`", "").replace(" | ", " or ")
    name = where.replace("[...]", "")
    return bad_request(f"{where or 'the body'}: {problem[:1].lower()}{problem[1:]}", name or None)


def _json_type(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


# --- what they mean ------------------------------------------------------------------------------


def check_range(request: Any, name: str, low: float, high: float) -> None:
    value = getattr(request, name)
    if value is not None and not low <= value <= high:
        raise bad_request(f"{name} is {value}; it must be from {low:g} to {high:g}", name)


def choices_of(request: GenerateRequest) -> int:
    check_range(request, "n", 1, MOST_CHOICES)
    return request.n or 1


def stops_of(request: SamplingRequest) -> list[str]:
    """The stop strings, as a list."""
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    if len(stops) > MOST_STOPS:
        raise bad_request(f"stop has {len(stops)} strings; give {MOST_STOPS} at most", "stop")
    for stop in stops:
        if not 1 <= len(stop) <= LONGEST_STOP:
            raise bad_request(
                f"a stop string has {len(stop)} characters; it must have 1 to {LONGEST_STOP}",
                "stop",
            )
    return stops


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
    check_range(request, "temperature", 0, 2)
    check_range(request, "seed", -(2**63), 2**63 - 1)
    check_range(request, "top_k", -1, 2**31 - 1)
    names = {name: getattr(request, name) for name in _SAME_NAMES}
    given = {name: value for name, value in names.items() if value is not None}
    if request.top_k is not None:
        given["top_k"] = max(0, request.top_k)
    if request.logit_bias:
        given["logit_bias"] = _logit_bias(request.logit_bias, vocab_size)
    if request.stop_token_ids:
        check_ids(request.stop_token_ids, vocab_size, "stop_token_ids")
        given["stop_token_ids"] = tuple(request.stop_token_ids)
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
