"""What is said when a library fails, or a disk is full."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from langptune_rs.errors import DataError


def reason(error: object) -> str:
    """The first line of an error's message, or the name of its type where it has no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def need_room(folder: Path, num_bytes: int, what: str) -> None:
    """Raise `DataError` where the disk of `folder` has less than `num_bytes` free for `what`."""
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise DataError(
            f"{what} needs {num_bytes:,} bytes more, and the disk of {folder} has {free:,} free. Make room and run it "
            "again, or choose another folder."
        )


def disk_error(error: OSError, path: Path) -> DataError:
    """Return the error for a file that cannot be written."""
    kept = " What was downloaded so far is kept, and used when you run it again." if error.errno == errno.ENOSPC else ""
    return DataError(f"{path} cannot be written: {error.strerror or error}. Make room or choose another folder.{kept}")
