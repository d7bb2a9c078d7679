"""MovieLens 1M as GroupLens gives it: `movies.dat` and `ratings.dat`, Latin-1, with `::` between fields.

https://grouplens.org/datasets/movielens/1m. Titles are changed by
`movielens.with_article_first`. Descriptions come from an overview table only.
"""

from __future__ import annotations

from langptune_rs.data.readers.computed import Computed
from langptune_rs.data.readers.form import Form
from langptune_rs.data.readers.separated import SeparatedFile
from langptune_rs.data.readers.values import interaction_fields, item_fields
from langptune_rs.data.sources.files import Files, RawLogs
from langptune_rs.data.sources.movielens import open_movies, with_article_first

FILES = "movies.dat and ratings.dat; --overview TABLE for the plots"


def open_logs(files: Files) -> RawLogs:
    """The two files. Raises `DataError` when one is missing."""
    movies = SeparatedFile(
        files.find("items", "ml-1m", "movies.dat"),
        Form(("MovieID", "Title", "Genres"), "::", has_header=False, has_quotes=False, is_latin=True),
        item_fields(item_id="MovieID", title="Title", categories="Genres"),
    )
    ratings = SeparatedFile(
        files.find("interactions", "ml-1m", "ratings.dat"),
        Form(("UserID", "MovieID", "Rating", "Timestamp"), "::", has_header=False, has_quotes=False, is_latin=True),
        interaction_fields(user_id="UserID", item_id="MovieID", rating="Rating", timestamp="Timestamp"),
    )
    return open_movies(files, Computed(movies, {"title": (("title",), with_article_first)}), ratings)
