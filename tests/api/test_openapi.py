"""``/openapi.json`` says what the server does: its routes, its errors, and the ranges it checks."""

from pathlib import Path
from typing import Any

import pytest
from minisgl_tui.api.app import ROUTES
from minisgl_tui.api.errors import ApiError
from minisgl_tui.api.fields import decode
from minisgl_tui.api.protocol import ChatRequest
from minisgl_tui.engine import SamplingParams
from minisgl_tui.engine.errors import RequestRefused

from .conftest import Live, live, tiny_llm


@pytest.fixture(scope="module")
def document(tiny: Live) -> dict[str, Any]:
    return tiny.get("/openapi.json").json()


def refs(part: Any) -> set[str]:
    if isinstance(part, dict):
        own = {part["$ref"]} if "$ref" in part else set()
        return own.union(*map(refs, part.values()))
    return set().union(*map(refs, part)) if isinstance(part, list) else set()


def test_every_route_is_described_and_every_reference_leads_somewhere(document: dict[str, Any]):
    described = {
        (method.upper(), path) for path, entry in document["paths"].items() for method in entry
    }
    assert described == {(one.method, one.path.replace(":path", "")) for one in ROUTES}
    assert len(described) == len(ROUTES)
    for entry in (entry for path in document["paths"].values() for entry in path.values()):
        assert entry["summary"].endswith(".") and "\n" not in entry["summary"]
    for ref in refs(document):
        _, *steps = ref.split("/")
        place: Any = document
        for step in steps:
            place = place[step]
        assert place


def test_errors_are_described_where_they_can_come(document: dict[str, Any], tiny_model: Path):
    chat = document["paths"]["/v1/chat/completions"]["post"]["responses"]
    assert {"200", "400", "404", "413", "429", "500", "503"} == set(chat)
    assert "securitySchemes" not in document["components"]
    with live(tiny_llm(tiny_model), api_key="k") as server:
        guarded = server.get("/openapi.json", authorization="Bearer k").json()
    entry = guarded["paths"]["/v1/models"]["get"]
    assert "401" in entry["responses"] and entry["security"] == [{"key": []}]
    assert guarded["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    for path in ("/health", "/metrics"):
        assert "security" not in guarded["paths"][path]["get"]


def ranges(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    fields = document["components"]["schemas"]["ChatRequest"]["properties"]
    kinds = {name: field.get("anyOf", [field])[0] for name, field in fields.items()}
    return {name: kind for name, kind in kinds.items() if kind.keys() & BOUNDS.keys()}


BOUNDS = {"minimum": -1, "maximum": 1, "exclusiveMinimum": 0}


def test_the_ranges_that_are_described_are_checked_and_named(document: dict[str, Any]):
    """Each bound is taken, and the next number beyond it refused with field, value and range."""
    found = ranges(document)
    assert {"temperature", "top_p", "n", "max_tokens", "seed", "top_logprobs"} <= found.keys()

    def ask(name: str, value: float) -> None:
        decode(
            b'{"messages": [{"role": "user"}], "%s": %s}' % (name.encode(), b"%r" % value),
            ChatRequest,
        )

    for name, kind in found.items():
        for bound, direction in BOUNDS.items():
            if bound not in kind:
                continue
            limit = kind[bound]
            if direction:
                ask(name, limit)
            with pytest.raises(ApiError) as refused:
                ask(name, limit + direction)
            message = str(refused.value)
            assert message.startswith(f"{name} is {limit + direction}; it must be "), message
            assert str(limit) in message and refused.value.body.error.param == name


def test_the_ranges_of_the_engines_own_parameters_are_the_engines(document: dict[str, Any]):
    own = set(SamplingParams.__struct_fields__) - {"max_tokens", "min_tokens"}
    shared = {name: kind for name, kind in ranges(document).items() if name in own}
    assert {"top_p", "min_p", "presence_penalty", "repetition_penalty"} <= shared.keys()
    for name, kind in shared.items():
        for bound, direction in BOUNDS.items():
            if bound not in kind or (name, bound) in NARROWER:
                continue
            if direction:
                SamplingParams(**{name: kind[bound]})
            with pytest.raises(RequestRefused, match=name):
                SamplingParams(**{name: kind[bound] + direction})


# OpenAI has hotter temperatures refused; -1 switches top_k off in vLLM; a seed is 64 bits wide.
NARROWER = {
    ("temperature", "maximum"),
    ("top_k", "minimum"),
    ("seed", "minimum"),
    ("seed", "maximum"),
}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"messages": []}', "messages has 0 items; it must have at least 1"),
        (b'{"stop": [""]}', "stop[0] has 0 characters; it must have from 1 to 1024"),
        (b'{"stop_token_ids": [1, -1]}', "stop_token_ids[1] is -1; it must be at least 0"),
        (b'{"logit_bias": {"5": 101}}', "logit_bias[...] must be from -100 to 100"),
        (
            b'{"messages": [{"role": "wizard"}]}',
            "messages[0].role is 'wizard'; it must be ",
        ),
    ],
)
def test_what_is_out_of_range_deep_inside_is_found_there(body: bytes, says: str):
    with pytest.raises(ApiError) as refused:
        decode(body, ChatRequest)
    assert str(refused.value).startswith(says)
