"""One file by HTTP: resumed where it was cut off, and checked against the sum that the server publishes."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from langptune_rs.data.sources.failures import disk_error, need_room, reason
from langptune_rs.errors import DataError
from langptune_rs.files import write_text
from langptune_rs.progress import byte_progress

TIMEOUT_SECONDS = 30.0
MAX_TRIES = 5
"""Tries one after the other that bring nothing."""
FIRST_DELAY_SECONDS = 1.0
"""The wait before the second try. Each later wait is twice as long, unless the server names its own."""
MAX_DELAY_SECONDS = 60.0

_CHUNK_BYTES = 1 << 20
_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}

PublishedSum = Literal["md5 beside", "linked etag"]
"""Where a server publishes the sum of a file: in a file `.md5` beside it, or in the header `X-Linked-Etag`."""

Answer = TypeVar("Answer")
Sum = tuple[str, str]
"""The algorithm and the hexadecimal sum."""


class _NoAnswer(Exception):
    """Nothing useful came, but another try may bring it."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


def fetch(address: str, file: Path, published: PublishedSum | None, hint: str) -> None:
    """Download `address` to `file` unless it is there. `hint` is added to errors about the network.

    Raises `DataError` when there is no answer, when a file that is there has changed since it was downloaded, when the
    sum is wrong twice, and when the disk is full.
    """
    from filelock import FileLock

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_name(f".{file.name}.lock")):
            if file.exists():
                _check_record(file)
                return
            _fetch_once_or_twice(address, file, published)
    except _NoAnswer as error:
        host = urlsplit(address).netloc
        raise DataError(f"{address} cannot be downloaded: {host} gave no answer ({error}).\n{hint}") from error
    except urllib.error.HTTPError as error:
        raise DataError(
            f"{address} cannot be downloaded: the server answers {error.code} {error.reason}. "
            f"Is the name spelt as on the server?\n{hint}"
        ) from error
    except OSError as error:
        raise disk_error(error, file) from error


def _fetch_once_or_twice(address: str, file: Path, published: PublishedSum | None) -> None:
    """Download, check and rename. A file with a wrong sum is deleted, and downloaded once more."""
    for last in (False, True):
        expected = _tried_again(lambda: _published_sum(address, published))
        part = _Part(file)
        _download_part(address, part)
        sums = _sums(part.path, {"sha256", *([expected[0]] if expected else [])})
        if expected is None or sums[expected[0]] == expected[1]:
            size = part.path.stat().st_size
            write_text(_record(file), f"# {size} bytes from {address}\n{sums['sha256']}  {file.name}\n")
            part.become(file)
            return
        part.delete()
        if last:
            algorithm, wanted = expected
            raise DataError(
                f"{file.name} from {address} came twice with the {algorithm} sum {sums[algorithm]}, but the server "
                f"says {wanted}. It was deleted. Try again later, or from a mirror."
            )


def _record(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")


def _check_record(file: Path) -> None:
    """Raise `DataError` for a file that is not what was downloaded. A file put there by hand has no record."""
    record = _record(file)
    if not record.is_file():
        return
    wanted = record.read_text(encoding="utf-8").splitlines()[-1].split()[0]
    if _sums(file, {"sha256"})["sha256"] != wanted:
        raise DataError(
            f"{file} has changed since it was downloaded. Delete it to download it again, or delete {record.name} to "
            "keep it as it is."
        )


def _sums(file: Path, algorithms: set[str]) -> dict[str, str]:
    digests = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK_BYTES):
            for digest in digests.values():
                digest.update(chunk)
    return {name: digest.hexdigest() for name, digest in digests.items()}


class _Part:
    """The beginning of a file, and what shows whether the server still has the same file."""

    def __init__(self, file: Path) -> None:
        self.path = file.with_name(f"{file.name}.part")
        self._validator = file.with_name(f"{file.name}.part.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def validator(self) -> str | None:
        """The ETag or date that the server gave for the file. None where it gave neither."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            validator: str | None = json.loads(self._validator.read_text(encoding="utf-8"))["validator"]
            return validator
        return None

    def begin(self, validator: str | None) -> None:
        """Delete what is there, and write down the validator of the file that comes now."""
        self.path.unlink(missing_ok=True)
        write_text(self._validator, json.dumps({"validator": validator}) + "\n")

    def become(self, file: Path) -> None:
        self.path.replace(file)
        self._validator.unlink(missing_ok=True)

    def delete(self) -> None:
        self.path.unlink(missing_ok=True)
        self._validator.unlink(missing_ok=True)


def _download_part(address: str, part: _Part) -> None:
    """Complete `part`. Raises `_NoAnswer` after `MAX_TRIES` tries that brought nothing new."""
    furthest, failures = part.size, 0
    while True:
        try:
            _download_on(address, part)
            return
        except _NoAnswer as error:
            failures = 0 if part.size > furthest else failures + 1
            furthest = max(furthest, part.size)
            _wait(failures, error)


def _tried_again(question: Callable[[], Answer]) -> Answer:
    """Return what `question` returns. Raises `_NoAnswer` after `MAX_TRIES` tries."""
    failures = 0
    while True:
        try:
            return question()
        except _NoAnswer as error:
            failures += 1
            _wait(failures, error)


def _wait(failures: int, error: _NoAnswer) -> None:
    if failures >= MAX_TRIES:
        raise error
    delay = FIRST_DELAY_SECONDS * 2 ** max(failures - 1, 0) if error.wait is None else error.wait
    time.sleep(min(delay, MAX_DELAY_SECONDS))


def _download_on(address: str, part: _Part) -> None:
    """Request what `part` lacks. Raises `_NoAnswer` when less than that came."""
    start = part.size
    headers = {}
    if start and part.validator:
        headers = {"Range": f"bytes={start}-", "If-Range": part.validator}
    try:
        response = _open(address, headers)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if error.headers.get("Content-Range") == f"bytes */{start}":
            return  # nothing is missing
        part.delete()
        raise _NoAnswer("the server has another file by now", wait=0.0) from error
    with response:
        end = _end(response, start)
        if response.status == 206 and _validator(response.headers) not in (None, part.validator):
            part.delete()
            raise _NoAnswer("the server has another file by now", wait=0.0)
        if response.status != 206:
            start = 0
            part.begin(_validator(response.headers))
        need_room(part.path.parent, (end or 0) - start, part.path.stem)
        with byte_progress(end, f"Downloading {part.path.stem}", start) as advance, part.path.open("ab") as sink:
            for chunk in _chunks(response):
                sink.write(chunk)
                advance(len(chunk))
    if end is not None and part.size != end:
        if part.size > end:
            part.delete()
        raise _NoAnswer(f"the connection was cut after {part.size:,} of {end:,} bytes")


def _end(response: http.client.HTTPResponse, start: int) -> int | None:
    """The size of the whole file in bytes, if the server says it. Raises `_NoAnswer` for a range not asked for."""
    if response.status != 206:
        length = response.headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else None
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != start:
        raise _NoAnswer("the server sent another range than asked for")
    return None if found[2] == "*" else int(found[2])


def _validator(headers: Message) -> str | None:
    """A strong ETag, or the date of the last change. Without either a download cannot be resumed safely."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified")


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body in chunks. Raises `_NoAnswer` when it is cut off."""
    while True:
        try:
            chunk = response.read1(_CHUNK_BYTES)
        except (http.client.HTTPException, OSError) as error:
            raise _NoAnswer(reason(error)) from error
        if not chunk:
            return
        yield chunk


def _published_sum(address: str, published: PublishedSum | None) -> Sum | None:
    """The sum that the server publishes for the file. None where it publishes none."""
    if published is None:
        return None
    try:
        if published == "md5 beside":
            with _open(f"{address}.md5") as response:
                text = b"".join(_chunks(response)).decode("utf-8", "replace")
            found = re.search(r"\b[0-9a-fA-F]{32}\b", text)
            return ("md5", found[0].lower()) if found else None
        etag = _head(address).get("X-Linked-Etag", "").removeprefix("W/").strip('"')
        return ("sha256", etag.lower()) if re.fullmatch(r"[0-9a-fA-F]{64}", etag) else None
    except urllib.error.HTTPError as error:
        if error.code in (404, 410):
            return None
        raise


class _StayHere(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def _head(address: str) -> Message:
    """The headers of the first answer, even if it redirects."""
    try:
        with _open(address, method="HEAD", opener=urllib.request.build_opener(_StayHere)) as response:
            return response.headers
    except urllib.error.HTTPError as error:
        if 300 <= error.code < 400:
            return error.headers
        raise


def _open(
    address: str,
    headers: dict[str, str] | None = None,
    *,
    method: str = "GET",
    opener: urllib.request.OpenerDirector | None = None,
) -> http.client.HTTPResponse:
    """The server's answer. Raises `_NoAnswer` where another try may help, and `HTTPError` for other failures."""
    headers = {"User-Agent": "langptune", "Accept-Encoding": "identity"} | (headers or {})
    request = urllib.request.Request(address, headers=headers, method=method)
    try:
        answer: http.client.HTTPResponse
        answer = (opener or urllib.request.build_opener()).open(request, timeout=TIMEOUT_SECONDS)
        return answer
    except urllib.error.HTTPError as error:
        error.close()
        if error.code not in _TRY_AGAIN:
            raise
        wait = error.headers.get("Retry-After", "")
        seconds = float(wait) if wait.isdecimal() else None
        raise _NoAnswer(f"it answers {error.code} {error.reason}", seconds) from error
    except urllib.error.URLError as error:
        raise _NoAnswer(reason(error.reason)) from error
    except (http.client.HTTPException, OSError) as error:
        raise _NoAnswer(reason(error)) from error
