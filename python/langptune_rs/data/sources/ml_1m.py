"""MovieLens 1M as GroupLens gives it: `movies.dat` and `ratings.dat`, Latin-1, with `::` between fields.

https://grouplens.org/datasets/movielens/1m. Titles as in `movielens.with_article_first`; no description but by an
overview table.
"""

from __future__ import annotations

from langptune_rs.data.readers.tables import Computed, Form, SeparatedFile
from langptune_rs.data.sources.movielens import open_movies, with_article_first
from langptune_rs.data.sources.raw import Files, RawLogs

FILES = "movies.dat and ratings.dat; --overview TABLE for the plots"


def open_logs(files: Files) -> RawLogs:
    """The two files. Raises `DataError` when one is missing."""
    movies = SeparatedFile(
        files.find("items", "ml-1m", "movies.dat"),
        Form(("MovieID", "Title", "Genres"), "::", has_header=False, has_quotes=False, is_latin=True),
        {
            "item_id": ("MovieID", "identifier"),
            "title": ("Title", "text"),
            "categories": ("Genres", "texts"),
        },
    )
    ratings = SeparatedFile(
        files.find("interactions", "ml-1m", "ratings.dat"),
        Form(("UserID", "MovieID", "Rating", "Timestamp"), "::", has_header=False, has_quotes=False, is_latin=True),
        {
            "user_id": ("UserID", "identifier"),
            "item_id": ("MovieID", "identifier"),
            "rating": ("Rating", "number"),
            "timestamp": ("Timestamp", "number"),
        },
    )
    return open_movies(files, Computed(movies, {"title": (("title",), with_article_first)}), ratings)
