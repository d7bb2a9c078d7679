"""Amazon review data 2014: JSON lines of reviews, and metadata, joined on `asin`.

A line of metadata is a Python literal, as it was published, or JSON, as many copies have it.

https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html; times are in seconds.
"""

from __future__ import annotations

from langptune_rs.data.readers.json_rows import parse_json
from langptune_rs.data.readers.python_values import parse_python
from langptune_rs.data.sources.amazon_2018 import open_category
from langptune_rs.data.sources.files import Files, RawLogs

FILES = "--reviews reviews_Movies_and_TV.json.gz --meta meta_Movies_and_TV.json.gz of one category, plain or .gz"


def open_logs(files: Files) -> RawLogs:
    """The two files of one category. Raises `DataError` when one is missing."""
    return open_category(files, "amazon-2014", ("reviews_*.json",), "categories", _item)


def _item(line: bytes) -> object:
    """The value on a line, by JSON, and by Python where JSON refuses it. Raises `ValueError` where both refuse.

    The error is that of the language that the line seems to be in: Python writes keys in single quotes, unless somebody
    has changed its quotes, and JSON never does.
    """
    seems_json = line.lstrip().removeprefix(b"{").lstrip().startswith(b'"')
    if not seems_json:
        return parse_python(line.decode("utf-8"))
    try:
        return parse_json(line)
    except ValueError as error:
        try:
            return parse_python(line.decode("utf-8"))
        except ValueError:
            raise error from None
