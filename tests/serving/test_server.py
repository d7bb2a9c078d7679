"""A real server on a real port: kills, queues, callers who leave, other runs, other processes."""

import gc
import re
import shutil
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import httpx2
import pytest
from safetensors.torch import load_file, save_file
from tests.processes import Forked, command
from tests.serving.servers import ServerProcess, backend_of, on_a_port

from langptune_rs.errors import ConfigError
from langptune_rs.models.memory import set_libraries_aside
from langptune_rs.serving.app import make_app
from langptune_rs.serving.server import serve
from langptune_rs.serving.service import ProfileService
from langptune_rs.serving.store import FILE, ProfileStore

TEXT = "Slow trains at night. And red dragons!"


@pytest.fixture
def own_run(served_run, tmp_path):
    """A copy of the run, in which a test may change what it likes."""
    return shutil.copytree(served_run, tmp_path / "run")


def other_models(run: Path, folder: Path) -> Path:
    """A copy of a run whose embedder has other weights."""
    copy = shutil.copytree(run, folder)
    (file,) = (copy / "embedder").rglob("*.safetensors")
    save_file({name: -weights for name, weights in load_file(file).items()}, file, metadata={"format": "pt"})
    return copy


def put(client: httpx2.Client, user: str, text: str, version: int) -> httpx2.Response:
    return client.put(f"/v2/users/{user}/profile", json={"profile": {"text": text}, "expected_version": version})


@pytest.mark.slow
def test_a_kill_during_writes_loses_no_acknowledged_edit(own_run, tmp_path):
    acknowledged: dict[str, int] = {}

    def edit(url: str, user: str) -> None:
        """Edit until nobody answers."""
        with httpx2.Client(base_url=url, timeout=10) as client:
            while True:
                version = acknowledged.get(user, 0)
                try:
                    answer = put(client, user, f"Edit {version + 1} of {user}.", version)
                except httpx2.TransportError:
                    return
                assert answer.status_code in (200, 409), answer.text
                acknowledged[user] = (
                    answer.json()["version"] if answer.status_code == 200 else answer.json()["current"]["number"]
                )

    for kill in range(2):
        with ServerProcess(tmp_path / f"log-{kill}", own_run) as server, ThreadPoolExecutor(4) as pool:
            for user in ("u1", "u2", "u3", "u4"):
                pool.submit(edit, server.url, user)
            enough = sum(acknowledged.values()) + 20
            deadline = time.monotonic() + 60
            while sum(acknowledged.values()) < enough:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            server.kill()
        store = ProfileStore.in_run(own_run)
        for user, version in acknowledged.items():
            kept = store.versions(user, limit=100_000)
            assert [one.number for one in kept] == list(range(len(kept), 0, -1))
            assert version <= len(kept) <= version + 1, "one may have been written and not answered"
            assert all(one.profile.text == f"Edit {one.number} of {user}." for one in kept)
        store.close()


@pytest.mark.slow
def test_a_second_process_shares_the_store(own_run, tmp_path):
    store = f"sqlite:///{tmp_path / 'shared.sqlite'}"
    with ServerProcess(tmp_path / "one", own_run, "--store", store) as one:
        assert put(one.client, "u1", TEXT, 0).status_code == 200
        with ServerProcess(tmp_path / "two", own_run, "--store", store) as two:
            assert two.client.get("/v2/users/u1").json()["current"]["profile"]["text"] == TEXT
            assert put(two.client, "u1", "Of the second.", 1).status_code == 200
            late = put(one.client, "u1", "Of the first.", 1)
            assert (late.status_code, late.json()["current"]["profile"]["text"]) == (409, "Of the second.")
            with ThreadPoolExecutor(8) as pool:
                clients = [one.client, two.client] * 4
                done = list(pool.map(lambda client: put(client, "u2", TEXT, 0).status_code, clients))
            assert sorted(done) == [200] + [409] * 7
            assert not (own_run / FILE).exists()


@pytest.mark.slow
def test_a_run_is_served_until_a_signal_ends_it(served_run, own_run, tmp_path):
    token = "a-token-that-nobody-guesses"
    shown = {"Authorization": f"Bearer {token}"}
    options = ("--host", "0.0.0.0", "--token-env", "TOKEN_OF_A_TEST")
    with ServerProcess(tmp_path / "log", own_run, *options, environment={"TOKEN_OF_A_TEST": token}) as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        assert httpx2.get(f"{url}/v2/info").status_code == 401
        start = time.monotonic()
        first = httpx2.post(f"{url}/v2/recommend", json={"profile": {"text": TEXT}}, headers=shown)
        assert (first.status_code, time.monotonic() - start < 5) == (200, True)
        shutil.rmtree(own_run / "embedder")
        server.signal(signal.SIGHUP)
        server.wait_for("The run that is served stays: .* no trained embedder")
        shutil.copytree(other_models(served_run, tmp_path / "other") / "embedder", own_run / "embedder")
        server.signal(signal.SIGHUP)
        server.wait_for("Reloaded: version")
        second = httpx2.post(f"{url}/v2/recommend", json={"profile": {"text": TEXT}}, headers=shown)
        assert second.json()["model_version"] != first.json()["model_version"]
        server.signal(signal.SIGINT)
        assert server.process.wait(30) == 0
        assert token not in server.log.read_text()
        assert "Traceback" not in server.log.read_text()


def test_a_run_that_cannot_be_loaded_ends_the_server_with_one_line(own_run, tmp_path):
    (file,) = (own_run / "embedder").rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:1000])
    log = tmp_path / "log"
    process = Forked(command("serve", str(own_run), "--port", "0"), {}, log)
    try:
        assert process.wait(120) == 2
    finally:
        process.kill()
    assert re.search("^error: .*embedder", log.read_text(), flags=re.M)
    assert "Traceback" not in log.read_text()


def test_a_port_in_use_is_one_clear_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"^127\.0\.0\.1 port {port} cannot be served on: Address already in use"
        ):
            serve(tmp_path, port=port)


class SlowService:
    """Takes its time for each text: `end` lets it go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.end, self.given_up = Event(), Event(), Event()
        monkeypatch.setattr(ProfileService, "propose", self.propose)

    def propose(self, text, instruction, *, on_token):
        self.begun.set()
        try:
            while not self.end.is_set():
                on_token()
                time.sleep(0.001)
        except BaseException:
            self.given_up.set()
            raise
        return f"{text} {instruction}"


@pytest.fixture
def slow_server(served_run, tmp_path, monkeypatch):
    """A server with room for two callers that wait for a text, and what makes it slow."""
    slow = SlowService(monkeypatch)
    backend = backend_of(served_run, tmp_path / "edits.sqlite", max_waiting=2)
    backend.live.reload()
    with on_a_port(make_app(backend)) as client:
        yield client, slow, backend
        slow.end.set()


def propose(client: httpx2.Client, instruction: str) -> httpx2.Response:
    return client.post("/v2/propose", json={"text": TEXT, "instruction": instruction})


def wait_until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_full_queue_answers_429_and_ranking_goes_on(slow_server):
    client, slow, backend = slow_server
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(propose, client, str(i)) for i in range(3)]
        wait_until(lambda: slow.begun.is_set() and backend.generation.num_waiting == 2)
        refused = propose(client, "one too many")
        assert (refused.status_code, refused.json()["error_type"]) == (429, "overloaded")
        assert int(refused.headers["Retry-After"]) >= 1
        assert client.post("/v2/recommend", json={"profile": {"text": TEXT}}).status_code == 200
        assert put(client, "u1", TEXT, 0).status_code == 200
        assert "langptune_writing_waiting 2.0" in client.get("/metrics").text
        slow.end.set()
        assert sorted(one.result().json()["profile"]["text"] for one in asked) == [f"{TEXT} {i}" for i in range(3)]


def head(request: str, *headers: str) -> bytes:
    """The head of a request, as a caller sends it who knows no library."""
    lines = [f"{request} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *headers]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def test_a_caller_who_closes_the_connection_is_forgotten(slow_server):
    client, slow, _ = slow_server
    body = b'{"text": "a", "instruction": "b"}'
    head = (
        f"POST /v2/propose HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    )
    with socket.create_connection((client.base_url.host, client.base_url.port)) as caller:
        caller.sendall(f"{head}\r\n\r\n".encode() + body)
        assert slow.begun.wait(30)
    assert slow.given_up.wait(30)
    slow.end.set()
    assert propose(client, "next").status_code == 200


def test_reloading_drops_no_request_and_mixes_no_answers(served_run, tmp_path, request):
    """The link leads to one run, then to another, back and forth, while callers ask."""
    runs = [served_run, other_models(served_run, tmp_path / "other")]
    expected = {}
    for run in runs:
        service = ProfileService.open(run)
        expected[service.run.version] = [item for item, *_ in service.recommend(TEXT, 5)]
    assert len({tuple(items) for items in expected.values()}) == 2
    link = tmp_path / "link"
    link.symlink_to(runs[0])
    set_libraries_aside()
    request.addfinalizer(gc.unfreeze)
    backend = backend_of(link, tmp_path / "edits.sqlite")
    backend.live.reload()
    end, seen = Event(), []

    def rank(client: httpx2.Client) -> None:
        while not end.is_set():
            answer = client.post("/v2/recommend", json={"profile": {"text": TEXT}, "k": 5})
            assert answer.status_code == 200
            version = answer.json()["model_version"]
            assert [item["id"] for item in answer.json()["items"]] == expected[version]
            seen.append(version)

    def write(client: httpx2.Client) -> None:
        while not end.is_set():
            assert client.post("/v2/profile", json={"user": "u5"}).status_code == 200

    with on_a_port(make_app(backend)) as client, ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(ask, client) for ask in (rank, rank, rank, write)]
        assert client.post("/v2/reload").json()["reloaded"] is False
        for turn in range(1, 4):
            new = tmp_path / f"new-{turn}"
            new.symlink_to(runs[turn % 2])
            new.replace(link)
            answer = client.post("/v2/reload").json()
            assert answer["reloaded"] is True
            assert client.get("/v2/info").json()["model_version"] == answer["model_version"]
            wait_until(lambda version=answer["model_version"]: seen[-1] == version)
        link.unlink()
        broken = client.post("/v2/reload")
        assert (broken.status_code, broken.json()["error_type"]) == (424, "model")
        assert "The run that is served stays" in broken.json()["error"]
        end.set()
        for caller in callers:
            caller.result(60)
        numbers = client.get("/metrics").text
    assert set(seen) == set(expected)
    assert 'langptune_reloads_total{outcome="loaded"} 3.0' in numbers
    assert 'langptune_reloads_total{outcome="failed"} 1.0' in numbers


def test_a_full_disk_is_one_answer_and_the_server_goes_on(served_run, tmp_path):
    backend = backend_of(served_run, tmp_path / "edits.sqlite")
    backend.live.reload()
    backend.store._engine.dispose()
    with backend.store._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 30")
    with on_a_port(make_app(backend)) as client:
        version = 0
        while (answer := put(client, "u1", "x" * 4000, version)).status_code == 200:
            version = answer.json()["version"]
        assert (answer.status_code, answer.json()["error_type"]) == (507, "store_full")
        assert "Free some space" in answer.json()["error"]
        assert "\n" not in answer.json()["error"]
        assert client.get("/v2/users/u1").json()["version"] == version
        assert client.post("/v2/recommend", json={"profile": {"text": TEXT}}).status_code == 200


def test_what_is_no_request_takes_nothing_down(served_run, tmp_path):
    backend = backend_of(served_run, tmp_path / "edits.sqlite")
    backend.live.reload()
    pieces = [
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        head("POST /v2/recommend", "Content-Length: 50") + b"{",
        head("POST /v2/recommend", "Content-Length: -5"),
        head("GET /" + "a" * 100_000),
        head("GET /v2/info", "Host: evil.example"),
        b"\x00" * 100,
    ]
    with on_a_port(make_app(backend)) as client:
        for piece in pieces:
            with socket.create_connection((client.base_url.host, client.base_url.port)) as caller:
                caller.sendall(piece)
                caller.settimeout(0.2)
                try:
                    said = caller.recv(100)
                except (TimeoutError, ConnectionError):
                    said = b""
                assert b" 500 " not in said
        assert client.get("/v2/info").status_code == 200
