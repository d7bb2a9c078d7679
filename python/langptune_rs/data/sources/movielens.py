"""What the MovieLens sets share: films without a description, which an overview table can give them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from langptune_rs.data.readers.bad_lines import BadLines
from langptune_rs.data.readers.form import read_form
from langptune_rs.data.readers.json_lines import JsonLines
from langptune_rs.data.readers.json_rows import read_rows
from langptune_rs.data.readers.parquet import ParquetFile, parquet_types
from langptune_rs.data.readers.reader import Reader, Request, read_all
from langptune_rs.data.readers.separated import SeparatedFile, open_separated
from langptune_rs.data.readers.values import Fields, item_fields
from langptune_rs.data.sources.files import Files, RawLogs
from langptune_rs.errors import DataError

_OWN_IDS = ("movieId", "movie_id", "item_id")
_TMDB_IDS = ("tmdbId", "tmdb_id")
_TEXTS = ("overview", "description")
_ARTICLE = r"(The|An?|Les?|La|L'|Une?|Las|Los|El|Il|Der|Die|Das)"
_NO_GENRES = "(no genres listed)"
_OVERVIEW = pl.Schema({"item_id": pl.String(), "description": pl.String()})
_LINKS = pl.Schema({"item_id": pl.String(), "other_id": pl.String()})
_SHOWN_IDS = 3


def with_article_first(title: pl.Expr) -> pl.Expr:
    """ "The Matrix (1999)" for "Matrix, The (1999)", also for a second title in brackets; an empty text for null.

    MovieLens writes articles behind titles so that they sort well; readers and models know films by the other form.
    """
    turned = title.fill_null("").str.replace(rf"^([^()]+), {_ARTICLE}( \(|$)", "${2} ${1}${3}")
    turned = turned.str.replace_all(rf"\(([^()]+), {_ARTICLE}\)", "(${2} ${1})")
    return turned.str.replace_all("L' ", "L'", literal=True)


def without_no_genres(categories: pl.Expr) -> pl.Expr:
    """`categories` without the one that says that there are none."""
    return categories.list.filter(pl.element() != _NO_GENRES)


@dataclass(frozen=True)
class WithOverview:
    """Items whose descriptions come from an overview table."""

    reader: Reader
    overview: Reader
    """With the columns `item_id` and `description`."""
    id_column: str
    """The name of the column `item_id` in the overview's file."""
    links: Reader | None = None
    """Maps the ids of the overview, its `other_id`, to ids of items, its `item_id`. None where they are the same."""

    @property
    def file(self) -> Path:
        return self.reader.file

    def chunks(self, request: Request) -> Iterator[pl.DataFrame]:
        """See `Reader.chunks`. The first of several descriptions of an item counts.

        Raises `DataError` also for an overview that describes no item.
        """
        if "description" not in request.columns:
            yield from self.reader.chunks(request)
            return
        # The first pass has reported what is bad in the overview.
        texts = self._descriptions(request.bad if request.lines is None else BadLines("skip"))
        needed = list(dict.fromkeys(["item_id", *(name for name in request.columns if name != "description")]))
        ids, num_described = pl.Series(dtype=pl.String), 0
        for rows in self.reader.chunks(replace(request, columns=needed)):
            rows = rows.join(texts, on="item_id", how="left", maintain_order="left")
            ids = pl.concat([ids, rows["item_id"]]).head(_SHOWN_IDS)
            num_described += rows["description"].count()
            yield rows.select(*request.columns, "line")
        if request.lines is None and len(ids) and not num_described:
            raise self._matches_none(ids)

    def _descriptions(self, bad: BadLines) -> pl.DataFrame:
        """item_id and description, each item once."""
        texts = read_all(self.overview, _OVERVIEW, bad)
        if self.links is not None:
            links = read_all(self.links, _LINKS, bad)
            texts = links.join(
                texts.rename({"item_id": "other_id"}), on="other_id", how="inner", maintain_order="right"
            )
        texts = texts.filter(pl.col("description").is_not_null()).select("item_id", "description")
        return texts.unique("item_id", keep="first", maintain_order=True)

    def _matches_none(self, item_ids: pl.Series) -> DataError:
        """Return the error for an overview that describes none of the items. `item_ids` are the ids of some items."""
        texts = read_all(self.overview, _OVERVIEW, BadLines("skip"))
        described = texts.filter(pl.col("description").is_not_null())["item_id"]
        if described.is_empty():
            return DataError(f"{self.overview.file} holds no description. Give a table with descriptions.")
        known = f"those of {self.file.name} are {_shown(item_ids)}"
        if self.links is not None:
            links = read_all(self.links, _LINKS, BadLines("skip"))
            known = f"{self.links.file.name} has {_shown(links['other_id'].drop_nulls())}, and {known}"
        return DataError(
            f"{self.overview.file} describes none of the items: its column {self.id_column!r} has ids such as "
            f"{_shown(described)}; {known}. Give a table with the same ids, in a column {' or '.join(_OWN_IDS)}."
        )


def open_movies(files: Files, items: Reader, interactions: Reader, **others: Path) -> RawLogs:
    """The logs of a MovieLens set, with the overview table if one was given.

    Raises `DataError` for a table that lacks a known id or the text, and for TMDB ids without links.csv.
    """
    if files.overview is None:
        return RawLogs(items, interactions, template="movies", others=others)
    if not files.overview.is_file():
        raise DataError(f"There is no file {files.overview}, which was given for the overview.")
    others["overview"] = files.overview
    names = _column_names(files.overview)
    text = _first_of(_TEXTS, names)
    own_id = _first_of(_OWN_IDS, names)
    id_column = own_id or _first_of(_TMDB_IDS, names)
    if text is None or id_column is None:
        raise DataError(
            f"{files.overview} needs a column {' or '.join(_TEXTS)}, and one of {', '.join(_OWN_IDS + _TMDB_IDS)}. "
            f"It has {', '.join(names)}."
        )
    links = None
    if own_id is None:
        found = [
            path for folder in (items.file.parent, files.overview.parent) if (path := folder / "links.csv").is_file()
        ]
        if not found:
            raise DataError(
                f"{files.overview} has TMDB's ids only, and there is no links.csv in {items.file.parent} that says "
                "which film has which. Put MovieLens' links.csv there."
            )
        others["links"] = found[0]
        links = open_separated(found[0], {"item_id": ("movieId", "identifier"), "other_id": ("tmdbId", "text")})
    overview = _open_table(files.overview, item_fields(item_id=id_column, description=text))
    items = WithOverview(items, overview, id_column, links)
    return RawLogs(items, interactions, template="movies", others=others)


def _shown(ids: pl.Series) -> str:
    return ", ".join(map(repr, ids.head(_SHOWN_IDS)))


def _first_of(wanted: Sequence[str], there: Sequence[str]) -> str | None:
    by_lower_case = {name.lower(): name for name in there}
    return next((by_lower_case[name.lower()] for name in wanted if name.lower() in by_lower_case), None)


def _column_names(file: Path) -> list[str]:
    match _suffix(file):
        case ".parquet":
            return list(parquet_types(file))
        case ".jsonl":
            first = next(read_rows(file), None)
            return [] if first is None else list(first.values)
    return list(read_form(file).names)


def _open_table(file: Path, fields: Fields) -> Reader:
    match _suffix(file):
        case ".parquet":
            return ParquetFile(file, fields)
        case ".jsonl":
            return JsonLines(file, fields)
    return SeparatedFile(file, read_form(file), fields)


def _suffix(file: Path) -> str:
    return Path(file.name.removesuffix(".gz")).suffix
