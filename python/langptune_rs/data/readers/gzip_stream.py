"""Reading .gz files as gzip does: members one after another, and whatever else follows the last of them is left out."""

from __future__ import annotations

import sys
import zlib
from functools import cache
from typing import BinaryIO

BROKEN = (EOFError, zlib.error)
"""What `GzipStream.read` raises for a file that is cut short or damaged."""

_CHUNK_BYTES = 1 << 18
_MAGIC = b"\x1f\x8b\x08"
"""The first bytes of every member."""
_PADDING = b"\x00\x1a\t\n\r "
"""What transfers and tapes put behind a file: zeros, line ends, the old mark for the end of a file."""


class GzipStream:
    """The unpacked bytes of a gzip file. The checksum of each member is verified."""

    def __init__(self, raw: BinaryIO, name: str) -> None:
        """`raw` is at its start. `name` is what a warning calls the file."""
        self._raw, self._name = raw, name
        self._packed = raw.read(_CHUNK_BYTES)
        self._member = zlib.decompressobj(wbits=31) if self._packed else None

    def read(self, num_bytes: int) -> bytes:
        """The next bytes, `num_bytes` unless the file ends. What follows the last member is left out.

        More than padding there is named on stderr. Raises one of `BROKEN` for a file that ends too early, for a wrong
        checksum, and for what follows if it holds another member behind something else: data would be lost.
        """
        parts, missing = [], num_bytes
        while missing and self._member is not None:
            part = self._member.decompress(self._packed, missing)
            parts.append(part)
            missing -= len(part)
            if self._member.eof:
                self._packed = self._member.unused_data
                self._member = self._next_member()
            elif self._member.unconsumed_tail:
                self._packed = self._member.unconsumed_tail
            else:
                self._packed = self._raw.read(_CHUNK_BYTES)
                if not self._packed and missing:
                    raise EOFError("the file ends before its data do")
        return b"".join(parts)

    def _next_member(self) -> zlib._Decompress | None:
        """The member that follows, behind padding or at once. None where there is none."""
        while True:
            self._packed = self._packed.lstrip(_PADDING)
            if len(self._packed) >= len(_MAGIC) or not (more := self._raw.read(_CHUNK_BYTES)):
                break
            self._packed += more
        if self._packed.startswith(_MAGIC):
            return zlib.decompressobj(wbits=31)
        self._leave_out_rest()
        return None

    def _leave_out_rest(self) -> None:
        """Read to the end of the file. What is there is no padding."""
        num_bytes, before, rest = 0, b"", self._packed
        while rest:
            if _MAGIC in before + rest:
                raise zlib.error("more data follow behind bytes that are not gzip's")
            num_bytes += len(rest)
            before, rest = rest[-len(_MAGIC) :], self._raw.read(_CHUNK_BYTES)
        if num_bytes:
            _warn(self._name, num_bytes)


@cache
def _warn(name: str, num_bytes: int) -> None:
    """Say once what is left out, although a file is read several times."""
    print(
        f"warning: {num_bytes:,} bytes that follow the gzip data of {name} are left out; the data are whole",
        file=sys.stderr,
    )
