"""How writers of tables say that a value is missing.

The words are those that pandas reads as missing, and what Python, R, spreadsheets and databases write. Where a number,
a price or a list belongs, such a word is never a value. Among texts a word such as "None" may be meant, as the title of
a film is. `Titles` decides for a column of titles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import polars as pl

NAMES_FOR_NOTHING = ("None", "NA", "N/A", "n/a", "NULL", "null")
"""Words for a missing value that are also the names of films, bands and books."""
_NEVER_MEANT = (
    *("nan", "NaN", "-nan", "-NaN", "NaT", "<NA>", "#N/A", "#N/A N/A", "#NA", "\\N"),
    *("1.#IND", "1.#QNAN", "-1.#IND", "-1.#QNAN"),
)
"""What a program writes for a missing value, and what nothing is called."""
_NO_TEXT = (*NAMES_FOR_NOTHING, *_NEVER_MEANT)
_NO_VALUE = tuple({word.lower() for word in _NO_TEXT} | {"-", "--", "\u2013", "\u2014"})
"""Where a number belongs, these are missing in any case."""
IN_QUOTES = "\u2060"
"""Stands before a title that a file has in quotes, while it is read. Cleaning removes it."""


def is_no_text(text: str) -> bool:
    """Whether a description, a review or a category is only a word for a missing value."""
    return text.strip() in _NO_TEXT


def is_no_value(text: str) -> bool:
    """Whether a text stands for a missing number, price or list."""
    return text.strip().lower() in _NO_VALUE


def is_no_title(text: str) -> bool:
    """Whether a title is what a program writes for a missing value."""
    return text.strip() in _NEVER_MEANT


def without_no_texts(texts: pl.Series) -> pl.Series:
    """Null for each text that `is_no_text`."""
    return _without(texts, are_no_texts(texts))


def without_no_values(texts: pl.Series) -> pl.Series:
    """Null for each text that `is_no_value`."""
    return _without(texts, are_no_values(texts))


def without_no_titles(titles: pl.Series) -> pl.Series:
    """Null for each title that `is_no_title`."""
    return _without(titles, titles.str.strip_chars().is_in(_NEVER_MEANT).fill_null(False))


def are_names_for_nothing(titles: pl.Series) -> pl.Series:
    """Whether each title is "None", "NA" or another name for nothing."""
    return titles.str.strip_chars().is_in(NAMES_FOR_NOTHING).fill_null(False)


def are_no_texts(texts: pl.Series) -> pl.Series:
    """Whether each text is one that `is_no_text`."""
    return texts.str.strip_chars().is_in(_NO_TEXT).fill_null(False)


def are_no_values(texts: pl.Series) -> pl.Series:
    """Whether each text is one that `is_no_value`."""
    return texts.str.strip_chars().str.to_lowercase().is_in(_NO_VALUE).fill_null(False)


def has_bare_titles(titles: pl.Series) -> bool:
    """Whether some title without `IN_QUOTES` says something: a text, or a word for a missing title.

    A blank one does not, and neither does a number, which some writers leave without the quotes of their texts.
    """
    bare = titles.filter(~titles.str.starts_with(IN_QUOTES)).str.strip_chars()
    numbers = bare.cast(pl.Float64, strict=False)
    return bool(((bare != "") & ~numbers.is_finite().fill_null(False)).any())


def without_idle_marks(
    rows: pl.DataFrame, columns: Iterable[str], do_quotes_tell: Callable[[str], bool]
) -> pl.DataFrame:
    """`rows` without `IN_QUOTES` in columns where quotes tell nothing, which is asked where there is a mark."""
    idle = [name for name in columns if rows[name].str.starts_with(IN_QUOTES).any() and not do_quotes_tell(name)]
    return rows.with_columns(pl.col(idle).str.strip_prefix(IN_QUOTES)) if idle else rows


def _without(texts: pl.Series, mask: pl.Series) -> pl.Series:
    return texts.set(mask, None) if mask.any() else texts


class Titles:
    """Whether titles such as "None" are titles, from what the column of titles shows.

    They are where the column has another way to say that a title is missing: a blank field or a null. In a file that
    could have a null there (JSON, parquet), a single one is a title too. All others are missing titles. A text file can
    also have a title in quotes, which is one in any case, unless quotes tell nothing because all titles have them.
    """

    def __init__(self, *, has_nulls: bool) -> None:
        """`has_nulls` says whether the file's format has a null."""
        self._has_nulls = has_nulls
        self._num_words = 0
        self.has_missing = False
        """Whether a title is blank or null."""

    def see(self, titles: pl.Series) -> None:
        """Take a part of the column into account."""
        stripped = titles.str.strip_chars()
        self.has_missing = self.has_missing or bool((stripped.is_null() | (stripped == "")).any())
        self._num_words += int(are_no_texts(titles).sum())

    @property
    def are_meant(self) -> bool:
        """Whether a name for nothing is a title in this column."""
        return self.has_missing or (self._has_nulls and self._num_words == 1)
