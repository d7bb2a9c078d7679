"""Requests that nobody planned: by the OpenAPI document, and bodies that were damaged."""

import random
import re
from contextlib import nullcontext, suppress

import pytest
import schemathesis
from benches.serving_load import damaged_request, load, malformed, profiles, quantiles
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from starlette.testclient import TestClient
from tests.serving.servers import JSON, LOCAL, served

from langptune_rs.serving.app import make_app

EXAMPLES = 10
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


@pytest.mark.parametrize("mode", GenerationMode, ids=str)
def test_no_request_of_the_described_kind_is_answered_by_an_error_of_ours(app, anyone, mode):
    described = operations(app)
    assert len(described) >= 18
    statuses = set()
    for operation in described:

        @given(case=operation.as_strategy(mode))
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

        with suppress(Unsatisfiable) if mode is GenerationMode.NEGATIVE else nullcontext():
            ask()  # an address without parameters cannot be asked wrongly
    assert ({422, 404} if mode is GenerationMode.NEGATIVE else {200, 404}) <= statuses


@given(seed=st.integers(0, 2**32))
@settings(max_examples=150)
def test_no_damaged_body_is_answered_by_an_error_of_ours(anyone, seed):
    address, content = damaged_request(random.Random(seed))
    answer = anyone.post(address, content=content, headers=JSON)
    assert answer.status_code < 500, (address, content, answer.text)
    if answer.status_code != 200:
        assert {"error", "error_type"} <= set(answer.json())


def test_the_load_is_measured_from_when_each_request_was_due(loaded, tmp_path):
    with served(loaded, tmp_path) as client:
        found = load(str(client.base_url), profiles(20), rate=40, callers=4)
        assert (len(found.seconds), found.errors) == (20, 0)
        assert re.fullmatch(r"\d+, \d+, \d+", quantiles(found.seconds))
        statuses = malformed(str(client.base_url), 60)
    assert statuses.total() >= 60
    assert not statuses.keys() & {0, 500}
