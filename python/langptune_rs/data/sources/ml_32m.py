"""MovieLens 32M, latest and latest-small as GroupLens gives them: `movies.csv` and `ratings.csv`.

https://grouplens.org/datasets/movielens/32m. Titles are changed by
`movielens.with_article_first`. Descriptions come from an overview table only.
"""

from __future__ import annotations

from langptune_rs.data.readers.computed import Computed
from langptune_rs.data.readers.separated import open_separated
from langptune_rs.data.readers.values import interaction_fields, item_fields
from langptune_rs.data.sources.files import Files, RawLogs
from langptune_rs.data.sources.movielens import open_movies, with_article_first, without_no_genres

FILES = "movies.csv and ratings.csv; --overview TABLE for the plots (links.csv beside them where it has TMDB's ids)"


def open_logs(files: Files) -> RawLogs:
    """The two files. Raises `DataError` when one is missing or lacks a column."""
    movies = open_separated(
        files.find("items", "ml-32m", "movies.csv"),
        item_fields(item_id="movieId", title="title", categories="genres"),
    )
    ratings = open_separated(
        files.find("interactions", "ml-32m", "ratings.csv"),
        interaction_fields(user_id="userId", item_id="movieId", rating="rating", timestamp="timestamp"),
    )
    made = {"title": (("title",), with_article_first), "categories": (("categories",), without_no_genres)}
    return open_movies(files, Computed(movies, made), ratings)
