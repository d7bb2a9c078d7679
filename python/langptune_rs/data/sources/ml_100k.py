"""MovieLens-100K, from the copy inside the `recbole` wheel or a folder with the same two files."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import polars as pl

from langptune_rs.data.sources.logs import INTERACTION_SCHEMA, ITEM_SCHEMA, Logs
from langptune_rs.errors import DataError

FILES = ("ml-100k.item", "ml-100k.inter")


def find_folder() -> Path:
    """Where the wheel keeps the data set; the package is located, never imported.

    Raises `DataError` that says what to install.
    """
    spec = find_spec("recbole")
    folder = Path(spec.submodule_search_locations[0]) / "dataset_example" / "ml-100k" if spec else None
    if folder is None or not (folder / FILES[0]).is_file():
        raise DataError(
            "MovieLens-100K was looked for in the package recbole, which is not installed. "
            "Run `pip install --no-deps recbole==1.2.1`, or give a folder of items.jsonl and interactions.jsonl."
        )
    return folder


def read(folder: Path | None = None) -> Logs:
    """Items with title, year and genres; ratings of 1 to 5 with their second."""
    folder = folder or find_folder()
    items = _read_tsv(folder / FILES[0]).select(
        item_id=pl.col("item_id:token"),
        title=pl.concat_str(
            "movie_title:token_seq", pl.format(" ({})", pl.col("release_year:token")), ignore_nulls=True
        ),
        description=pl.lit(None, pl.String),
        categories=pl.col("class:token_seq").str.split(" "),
        price=pl.lit(None, pl.Float64),
    )
    interactions = _read_tsv(folder / FILES[1]).select(
        user_id=pl.col("user_id:token"),
        item_id=pl.col("item_id:token"),
        rating=pl.col("rating:float").cast(pl.Float64),
        timestamp=pl.col("timestamp:float").cast(pl.Float64).cast(pl.Int64),
        position=pl.lit(None, pl.Int64),
        review_text=pl.lit(None, pl.String),
    )
    return Logs(
        name="ml-100k",
        template="movies",
        items=items.select(pl.col(name).cast(kind) for name, kind in ITEM_SCHEMA.items()),
        interactions=interactions.select(pl.col(name).cast(kind) for name, kind in INTERACTION_SCHEMA.items()),
        files=[folder / name for name in FILES],
    )


def _read_tsv(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise DataError(f"{path} is missing: MovieLens-100K needs the files {' and '.join(FILES)}.")
    return pl.read_csv(path, separator="\t", infer_schema=False, quote_char=None)
