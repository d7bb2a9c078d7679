"""Requests that nobody planned: by the OpenAPI document, and bodies that were damaged."""

import json
import random

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from tests.serving.servers import JSON, LOCAL

from langptune_rs.serving.app import make_app

EXAMPLES = 4
"""Of each address. `benches/serving_load.py` asks for more."""


@pytest.fixture(scope="module")
def app(loaded):
    return make_app(loaded)


@pytest.fixture(scope="module")
def anyone(app):
    return TestClient(app, base_url=LOCAL, raise_server_exceptions=False)


def operations(app) -> list:
    """What the document describes."""
    schema = schemathesis.openapi.from_dict(app.openapi())
    return [found.ok() for found in schema.get_all_operations()]


def test_no_request_of_the_described_kind_is_answered_by_an_error_of_ours(app, anyone):
    described = operations(app)
    assert len(described) >= 18
    statuses = set()
    for operation in described:

        @given(case=operation.as_strategy())
        @settings(max_examples=EXAMPLES, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        def ask(case):
            sent = case.as_transport_kwargs(base_url=LOCAL)
            answer = anyone.request(
                sent["method"],
                sent["url"],
                params=sent.get("params"),
                headers=dict(sent.get("headers") or {}),
                **({"json": sent["json"]} if "json" in sent else {"content": sent.get("data")}),
            )
            statuses.add(answer.status_code)
            assert answer.status_code < 500, (sent, answer.text)
            if answer.status_code >= 400:
                assert {"error", "error_type"} <= set(answer.json())

        ask()
    assert {200, 404} <= statuses


WHOLE = {
    "/v2/recommend": {"profile": {"text": "Slow. Red.", "weights": {"Red.": 2}, "requests": {"x": 1}}, "k": 3},
    "/v2/explain": {"profile": {"text": "Slow. Red."}, "item": "i1", "by": "word", "exclude": ["i2"]},
    "/v2/steer": {"profile": {"text": "Slow. Red."}, "edits": [{"kind": "weigh", "sentence": 1, "weight": 2}]},
    "/v2/profile": {"history": [{"item": "i1", "rating": 3, "review": "good"}]},
    "/v2/propose": {"text": "Slow. Red.", "instruction": "less red"},
    "/v2/users/u3/undo": {"expected_version": 0, "changed_by": "ada"},
    "/v2/users/u3/profile": {"expected_version": 5, "changed_by": "ada"},
}
VALUES = (None, True, 0, -1, 1e308, "", "x", "\0", "\ud800", "🚂" * 50, [], {}, [[]], {"a": {}}, 10**30, 0.5)


def damaged(body, chance: random.Random):
    """The body with one value, somewhere in it, in place of another; or a key more, or one less."""
    if not isinstance(body, dict | list) or not body or chance.random() < 0.2:
        return chance.choice(VALUES)
    body = body.copy()
    place = chance.choice(list(body)) if isinstance(body, dict) else chance.randrange(len(body))
    kind = chance.random()
    if kind < 0.1:
        del body[place]
    elif kind < 0.2 and isinstance(body, dict):
        body[chance.choice(("extra", "\ud800", "", "text"))] = chance.choice(VALUES)
    else:
        body[place] = damaged(body[place], chance)
    return body


@given(address=st.sampled_from(sorted(WHOLE)), seed=st.integers(0, 2**32))
@settings(max_examples=150)
def test_no_damaged_body_is_answered_by_an_error_of_ours(anyone, address, seed):
    chance = random.Random(seed)
    content = json.dumps(damaged(WHOLE[address], chance)).encode()
    if chance.random() < 0.3:
        place = chance.randrange(len(content) + 1)
        content = content[:place] + chance.randbytes(chance.randrange(3)) + content[place + chance.randrange(3) :]
    answer = anyone.post(address, content=content, headers=JSON)
    assert answer.status_code < 500, (address, content, answer.text)
    if answer.status_code != 200:
        assert {"error", "error_type"} <= set(answer.json())
