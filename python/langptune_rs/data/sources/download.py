"""Fetching public data sets: resumed where it was cut off, checked against the sum that the server publishes."""

from __future__ import annotations

import contextlib
import difflib
import errno
import hashlib
import http.client
import json
import re
import shutil
import stat
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar
from urllib.parse import quote, urlsplit

from langptune_rs.data.sources.files import Files
from langptune_rs.errors import DataError
from langptune_rs.files import cache_folder, write_text
from langptune_rs.progress import byte_progress

TIMEOUT_SECONDS = 30.0
MAX_TRIES = 5
"""In a row that bring nothing."""
FIRST_DELAY_SECONDS = 1.0
"""Before the second try; each wait after it is twice as long, unless the server names its own."""
MAX_DELAY_SECONDS = 60.0

_MIB = 2**20
_CHUNK_BYTES = _MIB
_UNSAFE_NAME = re.compile(r'[\\:*?"<>|\x00-\x1f]')
_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}

_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
_HUB = "https://huggingface.co/datasets/McAuley-Lab/Amazon-Reviews-2023/resolve/main/raw"
_UCSD = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2"
_SNAP = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"

Answer = TypeVar("Answer")
Sum = tuple[str, str]
"""The algorithm and the hexadecimal sum."""


@dataclass(frozen=True)
class _Set:
    """Where a public set is, and which of its files plays which role."""

    base_url: str
    roles: dict[str, str]
    """Role -> the file's address below `base_url`, or for a zip its path inside the folder that the zip holds.
    `{category}` stands for the category."""
    published_sum: Literal["md5 beside", "linked etag"] | None = None
    is_zip: bool = False

    @property
    def has_categories(self) -> bool:
        return "{category}" in "".join(self.roles.values())


def _movielens(interactions: str, items: str) -> _Set:
    return _Set(_GROUPLENS, {"interactions": interactions, "items": items}, "md5 beside", is_zip=True)


SETS = {
    "ml-100k": _movielens("u.data", "u.item"),
    "ml-1m": _movielens("ratings.dat", "movies.dat"),
    "ml-32m": _movielens("ratings.csv", "movies.csv"),
    "ml-latest": _movielens("ratings.csv", "movies.csv"),
    "ml-latest-small": _movielens("ratings.csv", "movies.csv"),
    "amazon-2023": _Set(
        _HUB,
        {"interactions": "review_categories/{category}.jsonl", "items": "meta_categories/meta_{category}.jsonl"},
        "linked etag",
    ),
    "amazon-2018": _Set(
        _UCSD, {"interactions": "categoryFiles/{category}.json.gz", "items": "metaFiles2/meta_{category}.json.gz"}
    ),
    "amazon-2014": _Set(_SNAP, {"interactions": "reviews_{category}.json.gz", "items": "meta_{category}.json.gz"}),
}


def set_names() -> list[str]:
    """What `download` takes, with CATEGORY for a category's name."""
    return [f"{name}/CATEGORY" if found.has_categories else name for name, found in SETS.items()]


def downloaded(source: str, category: str | None, files: Files, mirror: str | None = None) -> Files:
    """`files` of a source with what `download` fetches, into their folder or else into the cache.

    Raises `DataError` for a source that is no public set, and as `download` does.
    """
    if files.items is not None or files.interactions is not None:
        raise DataError("Files were given, so that there is nothing to --download. Leave out the one or the other.")
    if source not in SETS:
        raise DataError(f"{source!r} is no public set to --download. There are {', '.join(SETS)}.")
    if SETS[source].has_categories and category is None:
        raise DataError(f"{source} comes by category: say which with --category, such as Movies_and_TV or All_Beauty.")
    name = source if category is None else f"{source}/{category}"
    folder = files.folder or cache_folder() / "downloads" / source
    found = download(name, folder, base_url=mirror)
    return replace(files, folder=found["items"].parent, items=found["items"], interactions=found["interactions"])


def download(name: str, folder: str | Path, *, base_url: str | None = None) -> dict[str, Path]:
    """Fetch a public set, such as `ml-1m` or `amazon-2023/Movies_and_TV`, and return role -> file.

    The roles are `interactions` and `items`. Files that are in `folder` already, downloaded or put there by hand, are
    taken as they are. A download that was cut off goes on where it stopped. Beside each file stands `FILE.sha256` with
    its size, address and SHA-256. `base_url` is the address of a mirror. Raises `DataError` for a name that is none;
    when there is no network, saying which file from which address to put where; when the disk is full; and when the
    file has another checksum than the server says, twice.
    """
    found, category = _find(name)
    folder = Path(folder)
    base_url = (base_url or found.base_url).rstrip("/")
    if found.is_zip:
        return _zipped(name, found, folder, f"{base_url}/{name}.zip")
    addresses = {role: f"{base_url}/{quote(path.format(category=category))}" for role, path in found.roles.items()}
    files = {role: folder / path.format(category=category).split("/")[-1] for role, path in found.roles.items()}
    hint = _by_hand(name, {files[role].name: address for role, address in addresses.items()}, f"in {folder}")
    for role, file in files.items():
        _fetch(addresses[role], file, found.published_sum, hint)
    return files


def _find(name: str) -> tuple[_Set, str]:
    """The set and the category, which is empty for a set that has none."""
    head, slash, category = name.partition("/")
    found = SETS.get(head)
    if found is None:
        near = difflib.get_close_matches(head, SETS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise DataError(f"There is no public set {name!r}.{hint} There are {', '.join(set_names())}.")
    if found.has_categories and not re.fullmatch(r"[\w'.-]*\w", category):
        raise DataError(
            f"{name!r} names no category. Write it as the files do, such as {head}/Movies_and_TV or {head}/All_Beauty."
        )
    if slash and not found.has_categories:
        raise DataError(f"{head} has no categories, so {name!r} is no public set. Write {head!r}.")
    return found, category


def _by_hand(name: str, addresses: dict[str, str], where: str) -> str:
    """What to do without a network."""
    files = "".join(f"\n  {file} from {address}" for file, address in addresses.items())
    return f"To have {name} without a network, fetch elsewhere and put {where}:{files}"


# Zips


def _zipped(name: str, found: _Set, folder: Path, address: str) -> dict[str, Path]:
    files = {role: folder / name / path for role, path in found.roles.items()}
    if not (folder / name).exists():
        archive = folder / f"{name}.zip"
        hint = _by_hand(name, {archive.name: address}, f"in {folder}, as it is or unpacked to {folder / name}")
        _fetch(address, archive, found.published_sum, hint)
        _unpack(archive, folder / name)
    missing = [file for file in files.values() if not file.is_file()]
    if missing:
        raise DataError(
            f"{folder / name} lacks {missing[0].name}, so it is no unpacked {name}.zip. Move it away and try again."
        )
    return files


def _unpack(archive: Path, folder: Path) -> None:
    """The files below the folder of `folder`'s name in `archive`, complete before `folder` gets its name.

    Raises `DataError`, and writes nothing outside, for a member that would go elsewhere or is no plain file.
    """
    temporary = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as file:
            members = [member for member in file.infolist() if not _is_left_out(member)]
            inside = {member.filename: _inside(archive, member, folder.name) for member in members}
            _need_room(temporary.parent, sum(member.file_size for member in members), f"the files of {archive.name}")
            for member in members:
                target = temporary / inside[member.filename]
                target.parent.mkdir(parents=True, exist_ok=True)
                with file.open(member) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink, _CHUNK_BYTES)
        temporary.rename(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{archive} is no whole zip file ({error}). Delete it, and download it again.") from error
    except OSError as error:
        raise _disk_error(error, folder) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_left_out(member: zipfile.ZipInfo) -> bool:
    """Folders, which the files in them bring, and what macOS adds."""
    return member.is_dir() or member.filename.startswith("__MACOSX/")


def _inside(archive: Path, member: zipfile.ZipInfo, top: str) -> PurePosixPath:
    """Where a member belongs below the folder `top`, which is the same place on every system."""
    path = PurePosixPath(member.filename)
    is_plain = stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG)
    is_below = len(path.parts) > 1 and path.parts[0] == top and ".." not in path.parts
    if not (is_plain and is_below) or _UNSAFE_NAME.search(member.filename):
        raise DataError(
            f"{archive} holds {member.filename!r}, which is no plain file below {top}/. Nothing is unpacked."
        )
    return path.relative_to(top)


# One file


class _NoAnswer(Exception):
    """Nothing useful came; another try may bring it."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def _fetch(address: str, file: Path, published: str | None, hint: str) -> None:
    """Have `file`, downloaded unless it is there."""
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
        raise _disk_error(error, file) from error


def _fetch_once_or_twice(address: str, file: Path, published: str | None) -> None:
    """Download, check, rename; a file with a wrong sum is deleted and fetched once more."""
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
    """Raise `DataError` for a file that is not what was downloaded. One put there by hand has no record."""
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
    """The beginning of a file, and what tells whether the server still has that file."""

    def __init__(self, file: Path) -> None:
        self.path = file.with_name(f"{file.name}.part")
        self._validator = file.with_name(f"{file.name}.part.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def validator(self) -> str | None:
        """The ETag or date that a server gave for the file of this address. None where it gave neither."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return json.loads(self._validator.read_text(encoding="utf-8"))["validator"]
        return None

    def begin(self, validator: str | None) -> None:
        """Throw away what is there."""
        self.path.unlink(missing_ok=True)
        write_text(self._validator, json.dumps({"validator": validator}) + "\n")

    def become(self, file: Path) -> None:
        self.path.replace(file)
        self._validator.unlink(missing_ok=True)

    def delete(self) -> None:
        self.path.unlink(missing_ok=True)
        self._validator.unlink(missing_ok=True)


def _download_part(address: str, part: _Part) -> None:
    """Fill `part` to its end. Raises `_NoAnswer` after `MAX_TRIES` that brought nothing new."""
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
    """The answer to a small question. Raises `_NoAnswer` after `MAX_TRIES`."""
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
    """One request for what `part` lacks. Raises `_NoAnswer` when less came."""
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
        _need_room(part.path.parent, (end or 0) - start, part.path.stem)
        with byte_progress(end, f"Downloading {part.path.stem}", start) as advance, part.path.open("ab") as sink:
            for chunk in _chunks(response):
                sink.write(chunk)
                advance(len(chunk))
    if end is not None and part.size != end:
        if part.size > end:
            part.delete()
        raise _NoAnswer(f"the connection was cut after {part.size:,} of {end:,} bytes")


def _end(response: http.client.HTTPResponse, start: int) -> int | None:
    """How large the file is, where the server says so. Raises `_NoAnswer` for a range that was not asked for."""
    if response.status != 206:
        length = response.headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else None
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != start:
        raise _NoAnswer("the server sent another range than asked for")
    return None if found[2] == "*" else int(found[2])


def _validator(headers: http.client.HTTPMessage) -> str | None:
    """A strong ETag, or the date of the last change: with neither a file cannot be resumed safely."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified")


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body as far as it comes."""
    while True:
        try:
            chunk = response.read1(_CHUNK_BYTES)
        except (http.client.HTTPException, OSError) as error:
            raise _NoAnswer(_first_line(error)) from error
        if not chunk:
            return
        yield chunk


def _published_sum(address: str, published: str | None) -> Sum | None:
    """What the server says of the file. None where it says nothing."""
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


def _head(address: str) -> http.client.HTTPMessage:
    """The headers of the first answer, also where that sends elsewhere."""
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
    """The answer. Raises `_NoAnswer` where there is none or a later one may be better, `HTTPError` for others."""
    headers = {"User-Agent": "langptune", "Accept-Encoding": "identity"} | (headers or {})
    request = urllib.request.Request(address, headers=headers, method=method)
    try:
        return (opener or urllib.request.build_opener()).open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code not in _TRY_AGAIN:
            raise
        wait = error.headers.get("Retry-After", "")
        seconds = float(wait) if wait.isdecimal() else None
        raise _NoAnswer(f"it answers {error.code} {error.reason}", seconds) from error
    except urllib.error.URLError as error:
        raise _NoAnswer(_first_line(error.reason)) from error
    except (http.client.HTTPException, OSError) as error:
        raise _NoAnswer(_first_line(error)) from error


# The disk


def _need_room(folder: Path, num_bytes: int, what: str) -> None:
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise DataError(
            f"{what} needs {num_bytes:,} bytes more, and the disk of {folder} has {free:,} free. Make room and run it "
            "again, or choose another folder."
        )


def _disk_error(error: OSError, path: Path) -> DataError:
    kept = " What was downloaded so far is kept, and used when you run it again." if error.errno == errno.ENOSPC else ""
    return DataError(f"{path} cannot be written: {error.strerror or error}. Make room or choose another folder.{kept}")


def _first_line(error: object) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
