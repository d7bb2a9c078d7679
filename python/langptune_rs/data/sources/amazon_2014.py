"""Amazon review data 2014: JSON lines of reviews, and metadata whose lines are Python literals, joined on `asin`.

https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html; times are in seconds.
"""

from __future__ import annotations

from ast import literal_eval

from langptune_rs.data.sources.amazon_2018 import open_category
from langptune_rs.data.sources.files import Files, RawLogs

FILES = "--reviews reviews_Movies_and_TV.json.gz --meta meta_Movies_and_TV.json.gz of one category, plain or .gz"


def open_logs(files: Files) -> RawLogs:
    """The two files of one category. Raises `DataError` when one is missing."""
    return open_category(files, "amazon-2014", ("reviews_*.json",), "categories", _literal)


def _literal(line: bytes) -> object:
    return literal_eval(line.decode("utf-8").strip())
