"""What a measurement keeps of its finished parts, so that it goes on after a kill with the same numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from langptune_rs.data.store.tables import read_whole_parquet, write_parquet
from langptune_rs.errors import DataError, RunError
from langptune_rs.files import write_atomically


class Kept:
    """A folder of parts. The name of a part has a hash of all that decides its content, so that a part that is there
    is the one that is wanted."""

    def __init__(self, folder: Path):
        self.folder = folder

    def has(self, kind: str, decides: Mapping[str, Any]) -> bool:
        """Whether a table is there."""
        return self._file(kind, decides, "parquet").is_file()

    def table(self, kind: str, decides: Mapping[str, Any], make: Callable[[], pl.DataFrame]) -> pl.DataFrame:
        """The table of a kind that `decides` decides, made where it is not there.

        Raises `RunError` for a damaged one.
        """
        file = self._file(kind, decides, "parquet")
        if not file.is_file():
            write_atomically(file, partial(write_parquet, make()))
        try:
            return read_whole_parquet(file)
        except DataError as error:
            raise _damaged(file, str(error)) from error

    def array(
        self, kind: str, decides: Mapping[str, Any], make: Callable[[], NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """The same for an array of float32."""
        file = self._file(kind, decides, "npy")
        if not file.is_file():
            write_atomically(file, partial(_write_array, make()))
        try:
            found: NDArray[np.float32] = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise _damaged(file, f"{type(error).__name__}: {error}.") from error
        return found

    def _file(self, kind: str, decides: Mapping[str, Any], suffix: str) -> Path:
        digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
        return self.folder / f"{kind}-{digest}.{suffix}"


def _write_array(array: NDArray[np.float32], path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def _damaged(file: Path, reason: str) -> RunError:
    return RunError(f"{file} is damaged. {reason} Remove that file, and it is measured again.")
