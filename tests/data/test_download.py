"""Downloads from a real server on this machine that cuts connections, lies and fails as it is told to."""

import errno
import gzip
import hashlib
import io
import json
import re
import shutil
import socket
import stat
import threading
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from langptune_cli.app import app
from langptune_rs.data import load
from langptune_rs.data.sources import transfer
from langptune_rs.data.sources.download import SETS, download, set_names
from langptune_rs.errors import DataError

REVIEWS = "/review_categories/Toys.jsonl"
META = "/meta_categories/meta_Toys.jsonl"
BODY = bytes(range(256)) * 4096


@dataclass
class Served:
    """One file, and how the server treats it."""

    body: bytes
    etag: str | None = '"one"'
    sha256: str | None = None
    cut_after: list[int] = field(default_factory=list)
    """For each answer in turn: how many bytes of it are sent before the connection is closed."""
    failures: list[int] = field(default_factory=list)
    """Status of each answer before the first good one."""
    ranges: bool = True
    length: bool = True


class Server:
    """Files by path, what was asked for, and the address."""

    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.bytes_sent: Counter[str] = Counter()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_HEAD(self):
                outer.answer(self, with_body=False)

            def do_GET(self):
                outer.answer(self, with_body=True)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.address = f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, handler: BaseHTTPRequestHandler, *, with_body: bool) -> None:
        path = handler.path
        self.asked.append((handler.command, path, handler.headers.get("Range")))
        served = self.files.get(path)
        if served is None:
            handler.send_error(404)
            return
        if not with_body:  # as the hub does: the sum stands in the answer that sends elsewhere
            handler.send_response(302)
            handler.send_header("Location", f"{self.address}/elsewhere")
            if served.sha256:
                handler.send_header("X-Linked-Etag", f'"{served.sha256}"')
            handler.end_headers()
            return
        if served.failures:
            handler.send_response(served.failures.pop(0))
            handler.send_header("Retry-After", "0")
            handler.end_headers()
            return
        start = 0
        asked = handler.headers.get("Range")
        if asked and served.ranges and handler.headers.get("If-Range") == served.etag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(served.body):
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{len(served.body)}")
                handler.end_headers()
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(served.body) - 1}/{len(served.body)}")
        else:
            handler.send_response(200)
        if served.etag:
            handler.send_header("ETag", served.etag)
        body = served.body[start:]
        if served.length:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if served.cut_after:
            body = body[: served.cut_after.pop(0)]
        self.bytes_sent[path] += len(body)
        handler.wfile.write(body)

    def close(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()

    def gets(self, path: str) -> list[str | None]:
        """The range of each GET of a path."""
        return [asked for method, where, asked in self.asked if (method, where) == ("GET", path)]


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """The waits between tries, which take no time here."""
    waits = []
    monkeypatch.setattr(transfer.time, "sleep", waits.append)
    return waits


@pytest.fixture
def toys(server):
    """The reviews of a category, beside a small meta file."""
    server.files[META] = Served(b'{"parent_asin": "a"}\n')
    server.files[REVIEWS] = Served(BODY)
    return server.files[REVIEWS]


def fetch(server, folder):
    return download("amazon-2023/Toys", folder, base_url=server.address)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


DONE = {"Toys.jsonl", "Toys.jsonl.sha256", "meta_Toys.jsonl", "meta_Toys.jsonl.sha256"}


def test_files_come_with_a_record_of_size_and_sum(server, toys, tmp_path, capsys):
    files = fetch(server, tmp_path)
    assert files == {"interactions": tmp_path / "Toys.jsonl", "items": tmp_path / "meta_Toys.jsonl"}
    assert files["interactions"].read_bytes() == BODY
    assert names(tmp_path) == DONE
    comment, line = (tmp_path / "Toys.jsonl.sha256").read_text().splitlines()
    assert comment == f"# {len(BODY)} bytes from {server.address}{REVIEWS}"
    assert line == f"{hashlib.sha256(BODY).hexdigest()}  Toys.jsonl"
    assert "Downloading Toys.jsonl (MiB): 1/1" in capsys.readouterr().err


def test_what_is_there_is_not_asked_for_again(server, toys, tmp_path):
    first = fetch(server, tmp_path)
    server.asked.clear()
    assert fetch(server, tmp_path) == first
    assert server.asked == []


def test_a_file_put_there_by_hand_is_taken(server, toys, tmp_path):
    (tmp_path / "Toys.jsonl").write_bytes(b"mine\n")
    assert fetch(server, tmp_path)["interactions"].read_bytes() == b"mine\n"
    assert server.gets(REVIEWS) == []


def test_a_download_that_changed_since_is_named(server, toys, tmp_path):
    fetch(server, tmp_path)
    (tmp_path / "Toys.jsonl").write_bytes(b"cut")
    with pytest.raises(DataError, match=r"Toys\.jsonl has changed since it was downloaded\. Delete it to"):
        fetch(server, tmp_path)


def test_a_connection_that_is_cut_goes_on_where_it_stopped(server, toys, tmp_path):
    toys.cut_after = [100_000, 1, 300_000]
    assert fetch(server, tmp_path)["interactions"].read_bytes() == BODY
    assert server.gets(REVIEWS) == [None, "bytes=100000-", "bytes=100001-", "bytes=400001-"]
    assert server.bytes_sent[REVIEWS] == len(BODY)
    assert names(tmp_path) == DONE


def test_more_cuts_than_tries_are_fine_while_something_comes(server, toys, tmp_path):
    toys.cut_after = [1000] * (3 * transfer.MAX_TRIES)
    assert fetch(server, tmp_path)["interactions"].read_bytes() == BODY


def test_a_later_run_goes_on_where_an_earlier_one_stopped(server, toys, tmp_path):
    toys.cut_after = [5000] + [0] * 99
    with pytest.raises(DataError, match=rf"gave no answer \(the connection was cut after 5,000 of {len(BODY):,} bytes"):
        fetch(server, tmp_path)
    assert (tmp_path / "Toys.jsonl.part").read_bytes() == BODY[:5000]
    assert not (tmp_path / "Toys.jsonl").exists()
    assert len(server.gets(REVIEWS)) == 1 + transfer.MAX_TRIES
    server.asked.clear()
    toys.cut_after = []
    assert fetch(server, tmp_path)["interactions"].read_bytes() == BODY
    assert server.gets(REVIEWS) == ["bytes=5000-"]


def test_a_part_that_lacks_nothing_is_not_fetched_again(server, toys, tmp_path):
    (tmp_path / "Toys.jsonl.part").write_bytes(BODY)
    (tmp_path / "Toys.jsonl.part.json").write_text('{"validator": "\\"one\\""}')
    assert fetch(server, tmp_path)["interactions"].read_bytes() == BODY
    assert server.bytes_sent[REVIEWS] == 0


@pytest.mark.parametrize("etag", ['"two"', 'W/"one"', None])
def test_a_file_that_changed_meanwhile_starts_anew(server, toys, tmp_path, etag):
    toys.cut_after = [5000] + [0] * 99
    with pytest.raises(DataError):
        fetch(server, tmp_path)
    changed = BODY[::-1]
    server.files[REVIEWS] = Served(changed, etag=etag)
    assert fetch(server, tmp_path)["interactions"].read_bytes() == changed
    assert names(tmp_path) == DONE


def test_a_server_without_ranges_or_tags_sends_all_of_it_again(server, toys, tmp_path):
    toys.ranges, toys.etag, toys.cut_after = False, None, [5000, 7000]
    assert fetch(server, tmp_path)["interactions"].read_bytes() == BODY
    assert server.gets(REVIEWS) == [None, None, None]


def test_a_part_of_unknown_origin_starts_anew(server, toys, tmp_path):
    (tmp_path / "Toys.jsonl.part").write_bytes(b"?" * 1000)
    (tmp_path / "Toys.jsonl.part.json").write_text("{")
    assert fetch(server, tmp_path)["interactions"].read_bytes() == BODY


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_fails_for_a_while_is_asked_again(server, toys, tmp_path, status):
    toys.failures = [status] * (transfer.MAX_TRIES - 1)
    assert fetch(server, tmp_path)["interactions"].read_bytes() == BODY


def test_waits_grow_and_the_last_failure_is_told(server, tmp_path, waits):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(DataError, match=r"gave no answer \(\[Errno \d+\] Connection refused\)") as error:
        download("amazon-2018/Toys_and_Games", tmp_path, base_url=nobody)
    assert waits == [1.0, 2.0, 4.0, 8.0]
    assert str(error.value).endswith(
        f"To have amazon-2018/Toys_and_Games without a network, fetch elsewhere and put in {tmp_path}:\n"
        f"  Toys_and_Games.json.gz from {nobody}/categoryFiles/Toys_and_Games.json.gz\n"
        f"  meta_Toys_and_Games.json.gz from {nobody}/metaFiles2/meta_Toys_and_Games.json.gz"
    )
    assert names(tmp_path) == set()


def test_the_server_s_own_wait_is_kept(server, toys, tmp_path, waits):
    toys.failures = [503]
    fetch(server, tmp_path)
    assert waits == [0.0]


def test_a_server_that_says_nothing_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "TIMEOUT_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"http://127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(DataError, match=r"gave no answer \(.*timed out"):
            download("amazon-2014/Toys", tmp_path, base_url=address)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_final_and_says_what_to_check(server, toys, tmp_path, status):
    toys.failures = [status]
    with pytest.raises(DataError, match=rf"the server answers {status} .*Is the name spelt as on the server\?"):
        fetch(server, tmp_path)
    assert len(server.gets(REVIEWS)) == 1
    assert not [name for name in names(tmp_path) if name.startswith("Toys")]


def test_a_sum_that_the_server_publishes_is_checked(server, toys, tmp_path):
    toys.sha256 = hashlib.sha256(BODY).hexdigest()
    assert fetch(server, tmp_path)["interactions"].read_bytes() == BODY
    assert ("HEAD", REVIEWS, None) in server.asked


def test_a_wrong_sum_is_fetched_once_more_and_then_told(server, toys, tmp_path):
    toys.sha256 = "0" * 64
    with pytest.raises(
        DataError, match=rf"came twice with the sha256 sum {hashlib.sha256(BODY).hexdigest()}, .*{'0' * 64}"
    ):
        fetch(server, tmp_path)
    assert server.gets(REVIEWS) == [None, None]
    assert names(tmp_path) == set()


def test_a_cut_that_only_the_sum_shows_is_mended(server, toys, tmp_path):
    toys.sha256, toys.length, toys.cut_after = hashlib.sha256(BODY).hexdigest(), False, [5000]
    assert fetch(server, tmp_path)["interactions"].read_bytes() == BODY
    assert server.gets(REVIEWS) == [None, None]


def test_a_part_that_was_spoiled_is_mended_by_the_second_try(server, toys, tmp_path):
    toys.sha256 = hashlib.sha256(BODY).hexdigest()
    (tmp_path / "Toys.jsonl.part").write_bytes(b"?" * 1000)
    (tmp_path / "Toys.jsonl.part.json").write_text('{"validator": "\\"one\\""}')
    assert fetch(server, tmp_path)["interactions"].read_bytes() == BODY
    assert server.gets(REVIEWS) == ["bytes=1000-", None]


def test_a_full_disk_is_told_before_the_download(server, toys, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DataError, match=rf"Toys\.jsonl needs {len(BODY):,} bytes more, .* has 1,000 free\. Make room"):
        fetch(server, tmp_path)
    assert "Toys.jsonl" not in names(tmp_path)


def test_a_disk_that_fills_meanwhile_keeps_the_part(server, toys, tmp_path, monkeypatch):
    read = transfer._chunks

    def filling(response):
        for i, chunk in enumerate(read(response)):
            if i == 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            yield chunk

    monkeypatch.setattr(transfer, "_CHUNK_BYTES", 10_000)
    with monkeypatch.context() as patch:
        patch.setattr(transfer, "_chunks", filling)
        with pytest.raises(DataError, match=r"Toys\.jsonl cannot be written: No space left .* is kept, and used when"):
            fetch(server, tmp_path)
    kept = (tmp_path / "Toys.jsonl.part").stat().st_size
    assert 0 < kept < len(BODY)
    assert "Toys.jsonl" not in names(tmp_path)
    server.asked.clear()
    assert fetch(server, tmp_path)["interactions"].read_bytes() == BODY
    assert server.gets(REVIEWS) == [f"bytes={kept}-"]


def make_zip(files: dict[str, bytes], *, link: str | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        if link:
            info = zipfile.ZipInfo(link)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


ML_1M = {
    "ml-1m/": b"",
    "ml-1m/ratings.dat": b"1::1::5::1\n",
    "ml-1m/movies.dat": b"1::Toy\n",
    "__MACOSX/ml-1m/._x": b"",
}


def test_a_zip_is_checked_and_unpacked(server, tmp_path):
    body = make_zip(ML_1M)
    server.files["/ml-1m.zip"] = Served(body)
    server.files["/ml-1m.zip.md5"] = Served(f"MD5 (ml-1m.zip) = {hashlib.md5(body).hexdigest()}\n".encode())
    files = download("ml-1m", tmp_path, base_url=server.address)
    assert files == {"interactions": tmp_path / "ml-1m/ratings.dat", "items": tmp_path / "ml-1m/movies.dat"}
    assert files["items"].read_bytes() == b"1::Toy\n"
    assert names(tmp_path) == {"ml-1m", "ml-1m.zip", "ml-1m.zip.sha256"}
    assert names(tmp_path / "ml-1m") == {"ratings.dat", "movies.dat"}
    server.asked.clear()
    (tmp_path / "ml-1m.zip").unlink()
    assert download("ml-1m", tmp_path, base_url=server.address) == files
    assert server.asked == []


def test_a_zip_with_a_wrong_md5_is_refused(server, tmp_path):
    server.files["/ml-1m.zip"] = Served(make_zip(ML_1M))
    server.files["/ml-1m.zip.md5"] = Served(f"{'f' * 32}  ml-1m.zip\n".encode())
    with pytest.raises(DataError, match=rf"came twice with the md5 sum .*says {'f' * 32}"):
        download("ml-1m", tmp_path, base_url=server.address)
    assert names(tmp_path) == set()


def test_a_zip_without_a_published_sum_is_taken_and_by_hand_too(server, tmp_path):
    (tmp_path / "ml-1m.zip").write_bytes(make_zip(ML_1M))
    assert download("ml-1m", tmp_path, base_url="http://127.0.0.1:9")["items"].is_file()
    server.files["/ml-1m.zip"] = Served(make_zip(ML_1M))
    assert download("ml-1m", tmp_path / "other", base_url=server.address)["items"].is_file()


def test_an_unpacked_folder_that_lacks_a_file_is_left_alone(tmp_path):
    (tmp_path / "ml-1m").mkdir()
    (tmp_path / "ml-1m/mine.txt").write_text("x")
    with pytest.raises(
        DataError, match=r"ml-1m lacks ratings\.dat, so it is not the unpacked ml-1m\.zip\. Move it away and"
    ):
        download("ml-1m", tmp_path)
    assert (tmp_path / "ml-1m/mine.txt").is_file()


@pytest.mark.parametrize(
    "name", ["../evil", "ml-1m/../../evil", "/evil", "ml-1m/a\\..\\evil", "C:/evil", "other/evil", "ml-1m/a:b", "evil"]
)
def test_a_zip_writes_nothing_elsewhere(tmp_path, name):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "ml-1m.zip").write_bytes(make_zip(ML_1M | {name: b"evil"}))
    with pytest.raises(DataError, match=r"which is not a plain file below ml-1m/\. Nothing is unpacked"):
        download("ml-1m", folder)
    assert names(folder) == {"ml-1m.zip"}
    assert names(tmp_path) == {"in"}


def test_a_link_in_a_zip_is_refused(tmp_path):
    (tmp_path / "ml-1m.zip").write_bytes(make_zip(ML_1M, link="ml-1m/link"))
    with pytest.raises(DataError, match=r"holds 'ml-1m/link', which is not a plain file"):
        download("ml-1m", tmp_path)


@pytest.mark.parametrize("spoil", ["cut", "text", "crc", "bomb"])
def test_a_zip_that_is_broken_or_too_large_leaves_nothing(tmp_path, monkeypatch, spoil):
    body = make_zip(ML_1M | {"ml-1m/ratings.dat": bytes(10**6) + b"1::1::5::1\n" * 1000})
    if spoil == "bomb":
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**6))
    elif spoil == "crc":
        body = body[:300] + bytes([body[300] ^ 255]) + body[301:]
    else:
        body = body[: len(body) // 2] if spoil == "cut" else b"<html>no such set</html>"
    (tmp_path / "ml-1m.zip").write_bytes(body)
    message = r"needs 1,011,007 bytes more" if spoil == "bomb" else r"is not a whole zip file .*Delete it, and download"
    with pytest.raises(DataError, match=message):
        download("ml-1m", tmp_path)
    assert names(tmp_path) == {"ml-1m.zip"}


def test_gzip_is_kept_as_it_is(server, tmp_path):
    body = gzip.compress(b"{}\n")
    server.files |= {"/reviews_Toys.json.gz": Served(body), "/meta_Toys.json.gz": Served(body)}
    files = download("amazon-2014/Toys", tmp_path, base_url=f"{server.address}/")
    assert {role: file.read_bytes() for role, file in files.items()} == {"interactions": body, "items": body}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "ml-2m",
            r"There is no public set 'ml-2m'\. Did you mean 'ml-32m'\? There are ml-100k, .*amazon-2014/CATEGORY",
        ),
        ("amazon-2023", r"'amazon-2023' names no category\. Write it .*amazon-2023/Movies_and_TV"),
        ("amazon-2023/../../x", r"names no category"),
        ("ml-1m/Books", r"ml-1m has no categories"),
    ],
)
def test_names_that_are_none(tmp_path, name, message):
    with pytest.raises(DataError, match=message):
        download(name, tmp_path)


def test_every_address_is_https_and_has_both_roles():
    for name, found in SETS.items():
        assert re.match(r"https://[^/]+/", found.base_url)
        assert set(found.roles) == {"interactions", "items"}
        assert (f"{name}/CATEGORY" if found.has_categories else name) in set_names()


def test_the_command_downloads_and_prepares(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    meta = [{"parent_asin": f"B{i}", "title": f"Toy {i}"} for i in range(8)]
    reviews = [
        {"parent_asin": f"B{i}", "user_id": f"U{user}", "rating": 4, "timestamp": 1_400_000_000_000 + 1000 * i}
        for user in range(20)
        for i in range(8)
    ]
    for path, rows in ((META, meta), (REVIEWS, reviews)):
        server.files[path] = Served("".join(json.dumps(row) + "\n" for row in rows).encode())

    def prepare(*options):
        return CliRunner().invoke(app, ["data", "prepare", "amazon-2023", "out", "--path", "raw", *options])

    arguments = ("--download", "--category", "Toys", "--mirror", server.address)
    result = prepare(*arguments)
    assert result.exit_code == 0, result.output
    assert len(load("out").sessions) == 20
    num_asked = len(server.asked)
    assert prepare(*arguments).exit_code == 0
    assert len(server.asked) == num_asked
    assert prepare("--category", "Toys").exit_code == 2
    refused = prepare("--download")
    assert (refused.exit_code, "say which with --category" in refused.stderr) == (2, True)
