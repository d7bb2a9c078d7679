"""docs/serve.md: each request that it shows is answered, and each address that it names is there."""

import re
import shlex
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from tests.serving.servers import LOCAL, backend_of

from langptune_rs.serving.app import make_app
from langptune_rs.serving.bodies import MAX_HISTORY, MAX_K, MAX_PROFILE
from langptune_rs.serving.encoding import NUM_KEPT
from langptune_rs.serving.generation import MAX_WAITING, SECONDS
from langptune_rs.serving.guards import MAX_BODY
from langptune_rs.serving.server import MIN_TOKEN
from langptune_rs.serving.store import FILE

PAGE = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
HERE = {"/users/42": "/users/u42", '"42"': '"u42"', "Toy Story (1995)": 'Story 7 of loud & \\"sharp\\" cats'}
"""What the page's run has, and what the tests' run has in its place."""


def requests() -> list[str]:
    """Every `curl` of the page that needs no token, in order."""
    return [line for line in re.findall(r"^curl .*$", PAGE, flags=re.M) if "$LANGPTUNE_TOKEN" not in line]


def test_every_request_of_the_page_is_answered_in_its_order(served_run, tmp_path):
    backend = backend_of(served_run, tmp_path / "edits.sqlite")
    backend.live.reload()
    client = TestClient(make_app(backend), base_url=LOCAL)
    for line in requests():
        for theirs, own in HERE.items():
            line = line.replace(theirs, own)
        words = shlex.split(line)
        options = {words[i]: words[i + 1] for i in range(len(words) - 1) if words[i] in ("-X", "-H", "-d")}
        (url,) = (word for word in words if word.startswith("http"))
        header = dict([options["-H"].split(": ")]) if "-H" in options else {}
        answer = client.request(options.get("-X", "GET"), url, headers=header, content=options.get("-d"))
        assert answer.status_code == 200, (line, answer.text)
    assert len(requests()) >= 14


def test_every_address_is_on_the_page_and_every_address_of_the_page_is_there(loaded):
    described = {
        (method.upper(), path) for path, methods in make_app(loaded).openapi()["paths"].items() for method in methods
    }
    table = PAGE.partition("## The API")[2].partition("**Profile.**")[0]
    assert {(method, path) for method, path in re.findall(r"`(GET|PUT|POST) (/\S+?)`", table)} == described


@pytest.mark.parametrize(
    "number",
    [
        f"{MAX_PROFILE:,} characters",
        f"history over {MAX_HISTORY} items",
        f"k over {MAX_K:,}",
        f"{MAX_BODY >> 20} MiB",
        f"{MAX_WAITING} others wait",
        f"{MIN_TOKEN} characters",
        f"last {NUM_KEPT:,} texts",
        FILE,
    ],
)
def test_limits_on_the_page_are_those_of_the_server(number):
    assert number in PAGE
    assert SECONDS == 120, "the page says two minutes"
