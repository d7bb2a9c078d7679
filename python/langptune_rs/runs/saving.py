"""The error for what a run could not save."""

from __future__ import annotations

import shutil
from pathlib import Path

from langptune_rs.distributed.failures import first_line
from langptune_rs.errors import RunError


def not_written(path: Path, error: BaseException, left: str) -> RunError:
    """The error for a `path` that could not be written; `left` is a sentence on what a resumed run goes on from.

    It quotes the first error of the chain: later ones come from closing a file that was only half written.
    """
    first = error
    while first.__context__:
        first = first.__context__
    free = shutil.disk_usage(next(folder for folder in path.parents if folder.exists())).free
    return RunError(
        f"{path} could not be written: {first_line(first)}. With the unfinished file deleted, its disk has "
        f"{free / 1e6:,.1f} MB free. {left} Free some space and run again with --resume."
    )
