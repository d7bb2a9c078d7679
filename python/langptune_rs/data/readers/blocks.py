"""Large files of lines, plain or .gz, in blocks of whole lines."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np

from langptune_rs.data.readers.gzip_stream import BROKEN, GzipStream
from langptune_rs.errors import DataError

Part = TypeVar("Part")
Made = TypeVar("Made")

BLOCK_BYTES = 8 << 20
_FIRST_BYTES, _MAX_FIRST_LINE = 1 << 16, 1 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_blocks(path: Path) -> Iterator[tuple[bytes, int]]:
    """Yield blocks of whole lines, each with the number of bytes that it took in the file.

    The next block is read while the caller works on this one. A byte order mark at the start is left out. Raises
    `DataError` for a .gz file that is cut short or damaged.
    """
    num_lines = consumed = 0
    is_gzip = path.suffix == ".gz"
    try:
        with path.open("rb") as raw, ThreadPoolExecutor(1) as reading:
            file = _plain(path, raw)
            following, rest = reading.submit(file.read, BLOCK_BYTES), b""
            while data := following.result():
                position = raw.tell()
                following = reading.submit(file.read, BLOCK_BYTES)
                if not consumed and not rest:
                    data = data.removeprefix(_BYTE_ORDER_MARK)
                cut = data.rfind(b"\n") + 1
                if not cut:
                    rest += data
                    continue
                block = b"".join((rest, memoryview(data)[:cut]))  # copied once
                yield block, position - consumed
                num_lines += block.count(b"\n") if is_gzip else 0
                rest, consumed = data[cut:], position
            if rest:
                yield rest, raw.tell() - consumed
    except BROKEN as error:
        raise _cut_short(path, num_lines, error) from error


def map_ahead(work: Callable[[Part], Made], parts: Iterable[Part]) -> Iterator[Made]:
    """Yield `work(part)` for each part, in order. Threads, one for each core, work ahead of the caller."""
    num_threads = os.cpu_count() or 1
    with ThreadPoolExecutor(num_threads) as pool:
        under_way: deque[Future[Made]] = deque()
        try:
            for part in parts:
                under_way.append(pool.submit(work, part))
                if len(under_way) > num_threads:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()


def first_line(path: Path) -> bytes:
    """The first line without byte order mark and line end. Raises `DataError` as `read_blocks` does."""
    try:
        with path.open("rb") as raw:
            file, line = _plain(path, raw), b""
            while b"\n" not in line and len(line) < _MAX_FIRST_LINE and (data := file.read(_FIRST_BYTES)):
                line += data
    except BROKEN as error:
        raise _cut_short(path, 0, error) from error
    return line.partition(b"\n")[0][:_MAX_FIRST_LINE].removeprefix(_BYTE_ORDER_MARK).rstrip(b"\r")


def is_in(numbers: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Whether each of `numbers` (n,) is among the ascending `wanted`, bool (n,)."""
    if not len(wanted):
        return np.zeros(len(numbers), bool)
    places = np.searchsorted(wanted, numbers)
    is_there: np.ndarray = wanted[np.minimum(places, len(wanted) - 1)] == numbers
    return is_there


def _plain(path: Path, raw: BinaryIO) -> BinaryIO | GzipStream:
    """What gives the bytes of a file, unpacked where the file is a .gz."""
    return GzipStream(raw, path.name) if path.suffix == ".gz" else raw


def _cut_short(path: Path, num_lines: int, error: Exception) -> DataError:
    return DataError(
        f"{path} is not a complete gzip file: reading stopped after line {num_lines} ({error}). Get the file again."
    )
