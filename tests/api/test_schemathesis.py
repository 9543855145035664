"""Whatever fits ``/openapi.json``, or just does not, is answered as that document says.

Schemathesis makes the requests: for each route examples, the edges of every range, and random
bodies, right and wrong. A tiny model with a context of 32 tokens answers.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from minisgl_tui.api.app import ROUTES
from minisgl_tui.api.openapi import document
from schemathesis.specs.openapi.checks import positive_data_acceptance

from .conftest import Live, live, tiny_llm

KEY = "s3cret"


@pytest.fixture(scope="module")
def server(tiny_with_bos: Path) -> Iterator[Live]:
    llm = tiny_llm(tiny_with_bos, max_model_len=32)
    with live(llm, api_key=KEY, max_body=1 << 20) as one:
        yield one
        one.assert_nothing_left()


schema = schemathesis.openapi.from_dict(document(ROUTES, title="", version="0", guarded=True))

# Every check of Schemathesis is made but one. What the schema lets pass may still make no sense: of
# prompt and messages there is to be one, the context has a length, the vocabulary an end. So a
# valid body may be refused, but never for a type or a range.
BESIDE_THE_SCHEMA = [positive_data_acceptance]
ABOUT_TYPES = re.compile(
    r"^\S+: expected .+, got |must be (from|at least|at most|above|below) |; it must have "
)


def check(case: Any, server: Live) -> None:
    answer = case.call(base_url=server.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60)
    case.validate_response(answer, excluded_checks=BESIDE_THE_SCHEMA)
    if case.meta.generation.mode.is_positive and answer.status_code == 400:
        assert not ABOUT_TYPES.search(answer.json()["error"]["message"]), answer.text


def examples(count: int) -> settings:
    """The same requests in every run."""
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


@schema.parametrize()
@examples(40)
def test_every_route_answers_as_it_is_described(case: Any, server: Live):
    check(case, server)


@pytest.mark.long
@schema.parametrize()
@examples(500)
def test_every_route_answers_hundreds_of_times_as_it_is_described(case: Any, server: Live):
    check(case, server)
