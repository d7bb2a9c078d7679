"""Checks of the arrays that callers pass: embeddings, and rows of numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from langptune_rs.errors import InputError

INTEGERS = "iu"
NUMBERS = "iuf"
SCORES = "f"
LARGEST = 2**63 - 1
"""The largest integer that the core takes."""
_KIND_NAMES = {INTEGERS: "integers", NUMBERS: "numbers", SCORES: "float32 scores"}
_DTYPES = {INTEGERS: np.int64, NUMBERS: np.float64, SCORES: np.float32}


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of different length: row `r` is `values[offsets[r]:offsets[r + 1]]`. Iterates over its rows.

    `offsets` is int64 (n_rows + 1,), starts at 0 and ends at the number of values.

    >>> [row.tolist() for row in Ragged(np.array([0, 2, 2, 3]), np.array([7, 8, 9]))]
    [[7, 8], [], [9]]
    """

    offsets: NDArray[np.int64]
    values: NDArray[Any]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> NDArray[Any]:
        if not isinstance(row, (int, np.integer)):
            raise InputError(f"row {row!r}: pass one whole number; to read several, index once for each")
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        row %= len(self)
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[row] for row in range(len(self)))


Rows = Ragged | NDArray[Any] | Sequence[ArrayLike] | tuple[ArrayLike, ArrayLike]


def check_embeddings(array: object, name: str) -> NDArray[np.float32]:
    """`array` itself when it is float32 (n, dim), C-contiguous and aligned. Nothing is ever converted or copied.

    Raises:
        InputError: for anything else, with the conversion to write.
    """
    if not isinstance(array, np.ndarray):
        raise InputError(
            f"{name} is a {type(array).__name__}: pass a numpy array of float32 (for a tensor, tensor.cpu().numpy())"
        )
    if array.ndim != 2:
        hint = f"; pass {name}[None, :] for a single row" if array.ndim == 1 else ""
        raise InputError(f"{name} has shape {array.shape}: two dimensions (rows, dim) are needed{hint}")
    if array.dtype != np.float32:
        raise InputError(
            f"{name} is {array.dtype}: scores are defined for float32 and large arrays are not converted silently; "
            f"pass {name}.astype(np.float32)"
        )
    if not (array.flags.c_contiguous and array.flags.aligned):
        raise InputError(
            f"{name} is not C-contiguous and aligned, and large arrays are not copied silently; pass {name}.copy()"
        )
    return array


def as_ragged(rows: object, name: str, kinds: str = INTEGERS) -> Ragged:
    """Rows of numbers in any of their forms: a list of sequences, a 2-D array, (offsets, values), or `Ragged`.

    Returns:
        `Ragged` with int64 values for `INTEGERS`, float64 values for `NUMBERS` and float32 values for `SCORES`. The
        core checks what the offsets and values mean.

    Raises:
        InputError: for another form or for values of another kind; it names the first such row of a list.
    """
    if isinstance(rows, Ragged):
        rows = (rows.offsets, rows.values)
    if isinstance(rows, tuple):
        if len(rows) != 2:
            raise InputError(f"{name} is a tuple of {len(rows)}: a tuple means (offsets, values); pass rows as a list")
        offsets = flat_row(rows[0], f"{name} offsets", INTEGERS)
        return Ragged(offsets, flat_row(rows[1], f"{name} values", kinds))
    if isinstance(rows, np.ndarray):
        if rows.ndim != 2:
            raise InputError(f"{name} has shape {rows.shape}: an array of rows has two dimensions")
        return Ragged(np.arange(len(rows) + 1, dtype=np.int64) * rows.shape[1], flat_row(rows.reshape(-1), name, kinds))
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise InputError(f"{name} is a {type(rows).__name__}: pass a list of rows, a 2-D array or (offsets, values)")
    flat = [flat_row(row, f"{name} row {index}", kinds) for index, row in enumerate(rows)]
    offsets = np.zeros(len(flat) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in flat], out=offsets[1:])
    return Ragged(offsets, np.concatenate([np.empty(0, dtype=_DTYPES[kinds]), *flat]))


def is_one_per_row(rows: object) -> bool:
    """Whether `rows` is flat, one number for each row: a 1-D array or a list of numbers."""
    if isinstance(rows, np.ndarray):
        return rows.ndim == 1
    return isinstance(rows, list) and bool(rows) and all(isinstance(row, (int, float, np.number)) for row in rows)


def one_per_row(values: object, name: str, kinds: str = INTEGERS) -> Ragged:
    """`Ragged` rows of one value each."""
    flat = flat_row(values, name, kinds)
    return Ragged(np.arange(len(flat) + 1, dtype=np.int64), flat)


def flat_row(values: object, name: str, kinds: str) -> NDArray[Any]:
    """`values` as a 1-D contiguous and aligned array, in the dtype of its kind (see `as_ragged`).

    Raises:
        InputError: for another shape, for values of another kind, and for an integer above 2**63 - 1.
    """
    if isinstance(values, Ragged):
        raise InputError(f"{name} is Ragged: one flat row of {_KIND_NAMES[kinds]} is needed")
    try:
        array = np.asarray(values)
    except ValueError:
        raise InputError(f"{name} holds rows of different length: pass one flat row of {_KIND_NAMES[kinds]}") from None
    if array.ndim != 1:
        raise InputError(f"{name} has shape {array.shape}: one flat row of {_KIND_NAMES[kinds]} is needed")
    if not array.size:
        return np.empty(0, dtype=_DTYPES[kinds])
    if kinds == SCORES and isinstance(values, np.ndarray) and array.dtype != np.float32:
        raise InputError(
            f"{name} holds values of type {array.dtype}: float32 scores are needed, as an index returns them"
        )
    if array.dtype.kind not in kinds:
        raise InputError(f"{name} holds values of type {array.dtype}: {_KIND_NAMES[kinds]} are needed")
    if kinds == INTEGERS and array.dtype.kind == "u" and array.max() > LARGEST:
        place = int(np.argmax(array > LARGEST))
        raise InputError(f"{name} holds {array[place]} at place {place}: pass integers up to {LARGEST}")
    array = np.ascontiguousarray(array, dtype=_DTYPES[kinds])
    return array if array.flags.aligned else array.copy()


def rows_of(numbers: object, name: str, kinds: str = INTEGERS) -> Ragged:
    """`as_ragged`, which also takes a flat array or list with one number for each row."""
    return one_per_row(numbers, name, kinds) if is_one_per_row(numbers) else as_ragged(numbers, name, kinds)


def in_form_of(rows: object, ragged: Ragged, values: NDArray[Any]) -> NDArray[Any] | Ragged:
    """`values`, one for each number of `ragged`, in the form of the `rows` that `ragged` was made from."""
    if is_one_per_row(rows):
        return values
    return values.reshape(rows.shape) if isinstance(rows, np.ndarray) else Ragged(ragged.offsets, values)


def check_whole(number: object, name: str, least: int, most: int = LARGEST) -> int:
    """`number` as an int.

    Raises:
        InputError: for anything but a whole number from `least` to `most`.
    """
    if not isinstance(number, (int, np.integer)) or isinstance(number, bool) or not least <= number <= most:
        raise InputError(f"{name} = {number!r}: pass a whole number from {least} to {most}")
    return int(number)


def check_number(number: object, name: str) -> float:
    """`number` as a float, whose range the core checks.

    Raises:
        InputError: for anything but a number.
    """
    if not isinstance(number, (int, float, np.integer, np.floating)) or isinstance(number, bool):
        raise InputError(f"{name} = {number!r}: pass a number")
    try:
        return float(number)
    except OverflowError:
        raise InputError(f"{name} = {number}: pass a number that a float holds") from None
