"""MovieLens 100K, from RecBole's atomic files or from GroupLens' own.

RecBole's files `ml-100k.item` and `ml-100k.inter` come with the package recbole. GroupLens' files are `u.item`
(Latin-1), `u.data` and `u.genre`. Articles are moved to the front of titles, see `movielens.with_article_first`.
RecBole's titles get the year behind them.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import polars as pl

from langptune_rs.data.readers.computed import Computed
from langptune_rs.data.readers.form import Form
from langptune_rs.data.readers.joined import joined
from langptune_rs.data.readers.reader import Reader
from langptune_rs.data.readers.separated import SeparatedFile
from langptune_rs.data.readers.values import interaction_fields
from langptune_rs.data.sources.files import Files, RawLogs
from langptune_rs.data.sources.movielens import open_movies, with_article_first
from langptune_rs.data.sources.recbole import divided_log, further, open_atomic, with_year
from langptune_rs.errors import DataError

FILES = (
    "ml-100k.item and ml-100k.inter, which come with the package recbole, or u.item, u.data and u.genre of GroupLens; "
    "--overview TABLE for the plots"
)

_RATINGS = interaction_fields(user_id="user_id", item_id="item_id", rating="rating", timestamp="timestamp")
_UNKNOWN = "unknown"


def open_logs(files: Files) -> RawLogs:
    """The files in the folder given, or in the installed package recbole, which is not imported.

    Raises `DataError` when they are in neither, or lack a column.
    """
    if files.folder is None and files.items is None and files.interactions is None:
        files = replace(files, folder=_packaged())
    items = files.find("items", "ml-100k", "ml-100k.item", "u.item")
    if parts := divided_log(files):
        log = joined([open_atomic(part, _RATINGS) for part in parts])
        return open_movies(files, _atomic_items(items), log, **further(parts))
    interactions = files.find("interactions", "ml-100k", "ml-100k.inter", "u.data")
    is_atomic = ".data" not in interactions.suffixes
    if is_atomic:
        return open_movies(files, _atomic_items(items), open_atomic(interactions, _RATINGS))
    genres = items.parent / "u.genre"
    if not genres.is_file():
        raise DataError(
            f"There is no u.genre in {items.parent}. It must be there beside {items.name} to name the genres."
        )
    form = Form(tuple(_RATINGS), "\t", has_header=False, has_quotes=False)
    return open_movies(files, _own_items(items, genres), SeparatedFile(interactions, form, _RATINGS), genres=genres)


def _packaged() -> Path:
    spec = find_spec("recbole")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "MovieLens-100K comes with the package recbole, which is not installed. Run "
            "`pip install --no-deps recbole==1.2.1`, or give a folder with ml-100k.item and ml-100k.inter."
        )
    return Path(spec.submodule_search_locations[0], "dataset_example", "ml-100k")


def _atomic_items(file: Path) -> Reader:
    """The films of RecBole's file. A year or genre that is not one is left out: single rows have "V" and "unknown"."""
    films = open_atomic(
        file,
        {
            "item_id": ("item_id", "identifier"),
            "title": ("movie_title", "text"),
            "year": ("release_year", "text"),
            "categories": ("class", "words"),
        },
    )
    return Computed(films, {"title": (("title", "year"), _title), "categories": (("categories",), _known)})


def _title(title: pl.Expr, year: pl.Expr) -> pl.Expr:
    return with_year(with_article_first(title), year)


def _known(categories: pl.Expr) -> pl.Expr:
    return categories.list.filter(pl.element() != _UNKNOWN)


def _own_items(file: Path, genres: Path) -> Reader:
    """The films of GroupLens' file, with a flag 0 or 1 for each genre. `genres` lists the genres as `name|number`."""
    lines = genres.read_text(encoding="utf-8").splitlines()
    names = [line.partition("|")[0] for line in lines if line.strip()]
    films = SeparatedFile(
        file,
        Form(
            ("movie id", "movie title", "release date", "video release date", "IMDb URL", *names),
            "|",
            has_header=False,
            has_quotes=False,
            is_latin=True,
        ),
        {
            "item_id": ("movie id", "identifier"),
            "title": ("movie title", "text"),
            **{name: (name, "number") for name in names},
        },
    )
    return Computed(films, {"title": (("title",), with_article_first), "categories": (tuple(names), _flagged)})


def _flagged(*flags: pl.Expr) -> pl.Expr:
    """The names of the genres whose flag is 1, without "unknown"."""
    named = [
        pl.when(flag == 1).then(pl.lit(flag.meta.output_name()))
        for flag in flags
        if flag.meta.output_name() != _UNKNOWN
    ]
    return pl.concat_list(named).list.drop_nulls()
