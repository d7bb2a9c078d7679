"""Writing files so that a reader, or a run that resumes, never sees half of one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from langptune_rs.errors import LangptuneError


def refuse_unwritable_name(path: Path, kind: type[LangptuneError]) -> None:
    """Raise an error of a `kind` for a path that cannot stand in a file of ours, which are UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise kind(f"{str(path)!a} is no UTF-8, and cannot be written down. Rename it.") from None


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk, then rename it to `path`.

    If anything fails, the temporary file is removed and an earlier file at `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        flush_names(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


@contextmanager
def locked(path: Path, refusal: Callable[[str], Exception]) -> Iterator[None]:
    """Hold the lock file `path`. The operating system releases it when the process ends, however it ends.

    Raises `refusal(holder)` when another process holds it: `holder` is " (process 123)" if the file names the process,
    and empty otherwise.
    """
    from filelock import FileLock, Timeout

    try:
        lock = FileLock(path).acquire(blocking=False)
    except Timeout:
        holder = path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""
        raise refusal(f" (process {holder})" if holder else "") from None
    with lock:
        yield


def whole_lines(path: Path) -> list[str]:
    """The complete lines of a UTF-8 file: without a last line that a crash cut off, and none if there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    return [line for line in lines if line.endswith("\n")]


def flush_names(folder: Path) -> None:
    """Flush the names in `folder` to disk, so that no loss of power undoes a rename."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush(folder: Path) -> None:
    """Wait until every file below `folder` is on disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def file_hash(path: Path, stop: Event | None = None) -> str:
    """SHA-256 of a file, in hexadecimal. Reading ends early once `stop` is set, and the hash is of the part read."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as file:
        while (length := file.readinto(buffer)) and not (stop and stop.is_set()):
            digest.update(buffer[:length])
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where converted weights, token counts and downloads are kept: $LANGPTUNE_CACHE, or ~/.cache/langptune."""
    return Path(os.environ.get("LANGPTUNE_CACHE") or "~/.cache/langptune").expanduser()
