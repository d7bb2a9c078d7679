"""MovieLens-100K as RecBole's atomic files, `ml-100k.item` and `ml-100k.inter`, which come with the package recbole."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import polars as pl

from langptune_rs.data.sources.raw import INTERACTION_SCHEMA, ITEM_SCHEMA, RawLogs, SourceFiles
from langptune_rs.errors import DataError

TEMPLATE = "movies"


def files(folder: Path | None) -> SourceFiles:
    """The files in `folder`, or in the installed package recbole, which is not imported.

    Raises `DataError` when they are in neither.
    """
    folder = folder or _packaged()
    found = SourceFiles(folder / "ml-100k.item", folder / "ml-100k.inter")
    for path in (found.items, found.interactions):
        if not path.is_file():
            raise DataError(
                f"There is no {path.name} in {folder}. MovieLens-100K needs ml-100k.item and ml-100k.inter."
            )
    return found


def _packaged() -> Path:
    spec = find_spec("recbole")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "MovieLens-100K comes with the package recbole, which is not installed. Run "
            "`pip install --no-deps recbole==1.2.1`, or give a folder with ml-100k.item and ml-100k.inter."
        )
    return Path(spec.submodule_search_locations[0], "dataset_example", "ml-100k")


def read(files: SourceFiles) -> RawLogs:
    """Both tables: title with year, genres as categories. Raises `DataError` with file and line for a bad value."""
    return RawLogs(_read_items(files.items), _read_interactions(files.interactions))


def _read_items(path: Path) -> pl.DataFrame:
    """Year and genre are "V" and "unknown" in single rows; what is no year or genre is left out."""
    table = _read_atomic(path, ("item_id", "movie_title", "release_year", "class"))
    title, year = pl.col("movie_title").str.strip_chars(), pl.col("release_year")
    return table.select(
        "item_id",
        title=pl.when((title != "") & year.str.contains(r"^\d{4}$")).then(title + " (" + year + ")").otherwise(title),
        description=pl.lit(None),
        categories=pl.col("class").str.split(" ").list.filter(~pl.element().is_in(["", "unknown"])),
        price=pl.lit(None),
        average_rating=pl.lit(None),
        line=pl.col("line"),
    ).cast(ITEM_SCHEMA)


def _read_interactions(path: Path) -> pl.DataFrame:
    table = _read_atomic(path, ("user_id", "item_id", "rating", "timestamp"))
    return table.select(
        "user_id",
        "item_id",
        rating=_numbers(table, "rating", path),
        timestamp=_numbers(table, "timestamp", path),
        position=pl.lit(None),
        review_text=pl.lit(None),
        line=pl.col("line"),
    ).cast(INTERACTION_SCHEMA)


def _read_atomic(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    """The columns of an atomic file (tab-separated, `name:type` in the first line) as text, and each row's line."""
    try:
        table = pl.read_csv(path, separator="\t", infer_schema=False, quote_char=None).fill_null("")
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path} is no table with tabs between its columns: {str(error).splitlines()[0]}.") from error
    table = table.rename(lambda name: name.partition(":")[0])
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise DataError(f"{path} lacks the column {missing[0]!r}. It has {', '.join(table.columns)}.")
    return table.select(columns).with_row_index("line", offset=2)


def _numbers(table: pl.DataFrame, name: str, path: Path) -> pl.Series:
    numbers = table[name].cast(pl.Float64, strict=False)
    wrong = numbers.is_null() | ~numbers.is_finite()
    if wrong.any():
        row = wrong.arg_max()
        raise DataError(f"{path}, line {table['line'][row]}: {name} = {table[name][row]!r} is no number.")
    return numbers
