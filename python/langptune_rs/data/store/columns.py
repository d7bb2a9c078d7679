"""Columns of texts that are read like lists and stay in Arrow arrays, which are mostly mapped from a file."""

from __future__ import annotations

import operator
from abc import abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, Generic, Self, TypeVar, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike

_ROWS_PER_CHUNK = 4096
"""Rows that become Python objects at a time when a column is iterated."""

T = TypeVar("T")


class Column(Sequence[T], Generic[T]):
    """n values. `column[i]` is one value. `column[a:b]` and `column[rows]`, with integers (m,), are lists.

    A column is equal to any sequence of the same values. Iterating keeps a few thousand values in memory at a time.
    Raises `IndexError` for a row out of range, and `TypeError` for rows that are not integers.
    """

    @abstractmethod
    def _at(self, row: int) -> T:
        """The value at a row from 0 to n - 1."""

    @abstractmethod
    def _between(self, start: int, stop: int) -> list[T]:
        """The values from `start` to before `stop`, both from 0 to n."""

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> list[T]: ...
    def __getitem__(self, index: int | slice | Sequence[int] | np.ndarray) -> T | list[T]:
        if isinstance(index, slice):
            rows = range(len(self))[index]
            return self._between(rows.start, rows.start + len(rows)) if rows.step == 1 else [*map(self._at, rows)]
        if np.ndim(index):
            return [self._at(row) for row in self._rows(index).tolist()]
        row = operator.index(index)  # type: ignore[arg-type]
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of a column of {len(self)}")
        return self._at(row % len(self))

    def __iter__(self) -> Iterator[T]:
        for start in range(0, len(self), _ROWS_PER_CHUNK):
            yield from self._between(start, min(start + _ROWS_PER_CHUNK, len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return len(self) == len(other) and all(map(operator.eq, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3])) + (", …" if len(self) > 3 else "")
        return f"{type(self).__name__}({len(self)} rows: {shown})"

    def to_list(self) -> list[T]:
        """All values as Python objects."""
        return self[:]

    def _rows(self, rows: ArrayLike) -> np.ndarray:
        """`rows` as int64 (m,), all from 0 to n - 1."""
        given = np.asarray(rows)
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
            raise TypeError(f"rows are integers in one dimension, not {given.dtype} of the shape {given.shape}")
        given = given.astype(np.int64)
        wrong = (given < -len(self)) | (given >= len(self))
        if wrong.any():
            raise IndexError(f"row {given[wrong][0]} of a column of {len(self)}")
        return np.where(given < 0, given + len(self), given)


class ArrowColumn(Column[T]):
    """A column over Arrow arrays, or over some of their rows. Values are not copied."""

    TYPE: pa.DataType | None = None

    def __init__(self, values: pa.ChunkedArray | Iterable[Any], rows: np.ndarray | None = None):
        """`values` are Arrow arrays, which are kept, or Python objects. `rows` (n,) chooses some of them."""
        self._array = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([pa.array(values, self.TYPE)])
        self._chunks = [chunk for chunk in self._array.chunks if len(chunk)]
        self._starts = list(accumulate(map(len, self._chunks), initial=0))
        self._taken = rows

    def __len__(self) -> int:
        return self._starts[-1] if self._taken is None else len(self._taken)

    def take(self, rows: Sequence[int] | np.ndarray) -> Self:
        """A column of these rows (m,), in the order given, over the same arrays."""
        chosen = self._rows(rows)
        return type(self)(self._array, chosen if self._taken is None else self._taken[chosen])

    def to_arrow(self) -> pa.ChunkedArray:
        """The values in Arrow. They are copied only if the column is made of some rows of its arrays."""
        return self._array if self._taken is None else self._array.take(pa.array(self._taken))

    def _at(self, row: int) -> T:
        place = row if self._taken is None else int(self._taken[row])
        chunk = bisect_right(self._starts, place) - 1
        value: T = self._chunks[chunk][place - self._starts[chunk]].as_py()
        return value

    def _between(self, start: int, stop: int) -> list[T]:
        if self._taken is None:
            values: list[T] = self._array.slice(start, stop - start).to_pylist()
            return values
        return [self._at(row) for row in range(start, stop)]


class TextColumn(ArrowColumn[str]):
    """n texts."""

    TYPE = pa.large_string()

    def __init__(
        self,
        values: pa.ChunkedArray | Iterable[str],
        rows: np.ndarray | None = None,
        order: pa.ChunkedArray | None = None,
    ):
        """As `ArrowColumn`. `order` is what `folded_order` returns for the texts, where it is known."""
        super().__init__(values, rows)
        self._known_order = order

    def find(self, text: str, *, any_case: bool = False) -> int | None:
        """The first row with this text, in upper or lower case if `any_case`. None if there is no such row.

        This takes about twenty comparisons where the order of the texts is known, as for the items of a data set.
        Otherwise the first search sorts the texts.
        """
        key = text.casefold()
        order = self._order
        for place in range(bisect_left(order, key, key=lambda row: self._at(row).casefold()), len(order)):
            own = self._at(int(order[place]))
            if own.casefold() != key:
                return None
            if any_case or own == text:
                return int(order[place])
        return None

    def rows_of(self, text: str) -> np.ndarray:
        """All rows with exactly this text, int64 (m,), found by one pass over the texts."""
        wanted = pa.scalar(text.encode("utf-8", "surrogatepass"), pa.large_binary())
        places = np.from_dlpack(pc.indices_nonzero(pc.equal(self._array.cast(pa.large_binary()), wanted))).astype(
            np.int64
        )
        return places if self._taken is None else np.flatnonzero(np.isin(self._taken, places))

    def beginning_with(self, text: str) -> np.ndarray:
        """The rows whose texts begin with `text`, in upper or lower case, in alphabetical order, int32 (m,)."""
        key = text.casefold()
        start = bisect_left(self._order, key, key=lambda row: self._at(row).casefold())
        stop = bisect_left(self._order, True, lo=start, key=lambda row: not self._at(row).casefold().startswith(key))
        return self._order[start:stop]

    def holding(self, text: str) -> np.ndarray:
        """The rows whose texts hold `text` anywhere, in upper or lower case, int64 (m,), found by one pass."""
        found = pc.match_substring(self._array, text, ignore_case=True)
        places = np.from_dlpack(pc.indices_nonzero(found)).astype(np.int64)
        return places if self._taken is None else np.flatnonzero(np.isin(self._taken, places))

    def codes(self) -> np.ndarray:
        """A number for each text, the same for equal texts, int64 (n,)."""
        encoded = self._array.dictionary_encode().combine_chunks()
        numbers: np.ndarray = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        return numbers if self._taken is None else numbers[self._taken]

    def near(self, text: str, n: int = 20_000) -> list[str]:
        """At most n texts around `text` in the alphabet, whatever their case, to look for a misspelling among them."""
        place = bisect_left(self._order, text.casefold(), key=lambda row: self._at(row).casefold())
        return self[self._order[max(0, place - n // 2) : place + n // 2]]

    @cached_property
    def _order(self) -> np.ndarray:
        if self._known_order is None:
            return folded_order(self)
        return np.concatenate([np.from_dlpack(chunk) for chunk in self._known_order.chunks])


def folded_order(texts: Iterable[str]) -> np.ndarray:
    """The rows in the order of their casefolded texts, int32 (n,). Rows with equal texts keep their order."""
    folded = [text.casefold() for text in texts]
    return np.array(sorted(range(len(folded)), key=folded.__getitem__), dtype=np.int32)


class TextLists(ArrowColumn["list[str | None]"]):
    """n lists of texts. Some texts may be missing."""

    TYPE = pa.large_list(pa.large_string())

    @property
    def has_any(self) -> bool:
        """Whether any text is there. No text is read to know it, unless the column is made of some rows."""
        if self._taken is not None:
            return any(text is not None for texts in self for text in texts)
        flat = [chunk.flatten() for chunk in self._chunks]
        return any(texts.null_count < len(texts) for texts in flat)


class Labels(Column[str]):
    """n values, each one of a few `names`. `codes`, uint8 (n,), are places in `names`."""

    def __init__(self, names: Sequence[str], codes: np.ndarray):
        self.names = tuple(names)
        self.codes = codes

    @classmethod
    def of(cls, names: Sequence[str], values: Iterable[str]) -> Labels:
        """The column of `values`. Raises `ValueError` for a value that is not in `names`."""
        return cls(names, np.array([names.index(value) for value in values], dtype=np.uint8))

    def __len__(self) -> int:
        return len(self.codes)

    def _at(self, row: int) -> str:
        return self.names[int(self.codes[row])]

    def _between(self, start: int, stop: int) -> list[str]:
        return [self.names[code] for code in self.codes[start:stop].tolist()]

    def take(self, rows: Sequence[int] | np.ndarray) -> Labels:
        """The values at these rows (m,), in the order given."""
        return Labels(self.names, self.codes[self._rows(rows)])

    def mask(self, name: str) -> np.ndarray:
        """Whether each value is `name`, bool (n,)."""
        return self.codes == self.names.index(name) if name in self.names else np.zeros(len(self), dtype=bool)

    def count(self, name: str) -> int:
        """How often the value is `name`."""
        return int(np.count_nonzero(self.mask(name)))
