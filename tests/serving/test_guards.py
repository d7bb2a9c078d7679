"""Who may ask, and who may not."""

import subprocess
import sys

import pytest
from starlette.testclient import TestClient
from tests.serving.servers import LOCAL

from langptune_rs.errors import ConfigError
from langptune_rs.serving.app import make_app
from langptune_rs.serving.guards import MAX_BODY, is_loopback
from langptune_rs.serving.page import page_files
from langptune_rs.serving.server import serve

TOKEN = "a-token-that-nobody-guesses"
BODY = {"profile": {"text": "slow trains"}}


@pytest.fixture
def guarded(loaded):
    """A server that others reach."""
    return TestClient(make_app(loaded, TOKEN), base_url="http://profiles.example")


def test_a_token_opens_everything_and_nothing_else_does(guarded):
    for address in ("/v2/info", "/v2/users/u3", "/v2/openapi.json", "/metrics", "/v2/nowhere", "/nowhere", "//v2/info"):
        for header in (None, "", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN, "ü"):
            headers = {} if header is None else {"Authorization": header.encode()}
            refused = guarded.get(address, headers=headers)
            assert (refused.status_code, refused.json()["error_type"]) == (401, "unauthorized")
            assert refused.headers["WWW-Authenticate"] == "Bearer"
    for header in (f"Bearer {TOKEN}", f"bearer  {TOKEN}"):
        assert guarded.get("/v2/info", headers={"Authorization": header}).status_code == 200
    assert guarded.post("/v2/reload").status_code == 401


def test_health_and_the_pages_own_files_need_no_token(guarded):
    assert guarded.get("/v2/health/live").status_code == 200
    assert guarded.get("/v2/health/ready").status_code == 200
    for path in page_files():
        assert guarded.get(path).status_code == 200


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "127.8.9.1", "localhost", "LOCALHOST:8000", "[::1]:8000", "[::1]", "localhost."]
)
def test_this_machine_has_several_names(client, host):
    assert client.get("/v2/info", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("profiles.example", "127.0.0.1.example", "localhost.example:8000", "0.0.0.0", "192.168.0.7", "[::2]"),
        *("", "127.0.0.1@evil.example", "evil.example/127.0.0.1", "[::1", "127.0.0.1:8000:9"),
    ],
)
def test_a_name_that_somebody_pointed_at_this_machine_is_refused(client, host):
    for address in ("/v2/info", "/", "/metrics", "/v2/health/live"):
        refused = client.get(address, headers={"Host": host})
        assert (refused.status_code, refused.json()["error_type"]) == (421, "wrong_host")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9000"},
        {"Origin": "https://127.0.0.1:8000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_page_of_another_origin_may_not_ask(client, headers):
    for method, address in (("GET", "/v2/info"), ("POST", "/v2/recommend"), ("POST", "/v2/reload")):
        refused = client.request(method, address, headers=headers, json=BODY if "recommend" in address else None)
        assert (refused.status_code, refused.json()["error_type"]) == (403, "wrong_origin")


def test_the_page_itself_may_ask_and_a_link_to_it_may_be_followed(client):
    own = {"Origin": LOCAL, "Sec-Fetch-Site": "same-origin"}
    assert client.post("/v2/recommend", json=BODY, headers=own).status_code == 200
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}).status_code == 200


def test_no_other_origin_is_allowed_to_read_an_answer(client):
    answer = client.options("/v2/recommend", headers={"Origin": LOCAL, "Access-Control-Request-Method": "POST"})
    assert answer.status_code == 405
    for name in client.get("/v2/info").headers:
        assert not name.lower().startswith("access-control")


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; a=b"])
def test_a_body_that_a_form_of_another_site_could_send_is_refused(client, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    refused = client.post("/v2/recommend", content=b'{"profile": {"text": "a"}}', headers=headers)
    assert (refused.status_code, refused.json()["error_type"]) == (415, "invalid")
    taken = client.post(
        "/v2/recommend",
        content=b'{"profile": {"text": "a"}}',
        headers={"Content-Type": "application/json; charset=utf-8"},
    )
    assert taken.status_code == 200


def test_a_body_that_is_too_large_is_refused_also_where_its_size_is_not_told(client):
    def parts():
        for _ in range(MAX_BODY // 1000 + 1):
            yield b" " * 1000

    for content in (b" " * (MAX_BODY + 1), parts()):
        refused = client.post("/v2/recommend", content=content, headers={"Content-Type": "application/json"})
        assert (refused.status_code, refused.json()["error_type"]) == (413, "too_large")


def test_every_answer_says_what_a_browser_may_do_with_it(client, guarded):
    for answer in (client.get("/"), client.get("/v2/info"), client.get("/nowhere"), guarded.get("/v2/info")):
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert client.get("/v2/info").headers["Cache-Control"] == "no-store"


def test_a_file_of_the_page_is_sent_again_when_its_content_has_changed(client):
    first = client.get("/")
    assert first.headers["Content-Type"] == "text/html; charset=utf-8"
    assert first.headers["Cache-Control"] == "no-cache"
    again = client.get("/", headers={"If-None-Match": f'"x", W/{first.headers["ETag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/", headers={"If-None-Match": '"other"'}).content == first.content


@pytest.mark.parametrize(
    "path",
    [
        "/index.html/../../app.py",
        "/%2e%2e/app.py",
        "/..%2fapp.py",
        "/app.py",
        "/page/index.html",
        "//etc/passwd",
        "/%00",
    ],
)
def test_no_path_of_a_request_reaches_the_file_system(client, path):
    assert client.get(path).status_code == 404


def test_only_files_of_known_kinds_are_served(tmp_path):
    for name in ("index.html", "app.js", "deep/style.css", "notes.md", ".env", "x.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert set(page_files(tmp_path)) == {"/", "/app.js", "/deep/style.css"}


def test_loopback_is_what_only_this_machine_reaches():
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "[::1]", "127.1.2.3", "Localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "", "192.168.1.1", "example.org", "localhost.example", "127.1")))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"host": "0.0.0.0"}, "--host 0.0.0.0 is an address that others reach, so callers must show a token"),
        ({"host": "::"}, "--token-env NAME"),
        ({"host": "0.0.0.0", "token_env": "NO_TOKEN"}, "--token-env NO_TOKEN: the environment variable is not set"),
        ({"host": "0.0.0.0", "token_env": "SHORT"}, "has 5 characters, and a token has 16 or more"),
        ({"token_env": "NO_TOKEN"}, "is not set"),
        ({"host": "no.such.host.invalid", "token_env": "LONG"}, "is no address of this machine"),
        ({"host": "192.0.2.1", "token_env": "LONG"}, "192.0.2.1 port 8000 cannot be served on"),
    ],
)
def test_an_address_that_others_reach_needs_a_token_before_anything_is_loaded(monkeypatch, tmp_path, arguments, said):
    monkeypatch.setenv("SHORT", "12345")
    monkeypatch.setenv("LONG", TOKEN)
    with pytest.raises(ConfigError) as raised:
        serve(tmp_path / "nowhere", **arguments)
    assert said in str(raised.value)
    assert TOKEN not in str(raised.value)


def test_without_the_extra_the_command_says_what_to_install():
    code = (
        "import sys; sys.modules['fastapi'] = None; from langptune_cli.app import main; "
        "sys.argv = ['langptune', 'serve', 'x']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "pip install 'langptune-rs[serve]'" in done.stderr
