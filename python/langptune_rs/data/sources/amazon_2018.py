"""Amazon review data 2018: JSON lines of reviews and of metadata per category, joined on `asin`.

https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2; times are in seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl

from langptune_rs.data.readers.computed import Computed
from langptune_rs.data.readers.json_lines import JsonLines
from langptune_rs.data.readers.values import interaction_fields, item_fields
from langptune_rs.data.sources.files import Files, RawLogs
from langptune_rs.data.wording.templates import domain_of

FILES = "--reviews Movies_and_TV.json.gz --meta meta_Movies_and_TV.json.gz of one category, plain or .gz"


def open_logs(files: Files) -> RawLogs:
    """The two files of one category. Raises `DataError` when one is missing."""
    return open_category(files, "amazon-2018", ("[!m]*.json", "m[!e]*.json"), "category")


def open_category(
    files: Files,
    source: str,
    reviews: tuple[str, ...],
    categories: str,
    parse_item: Callable[[bytes], Any] | None = None,
) -> RawLogs:
    """The two files of a category in the form that 2014 and 2018 share.

    `reviews` are patterns for the name of the file of reviews, `categories` is the key of an item's categories, and
    `parse_item` reads a line of metadata that is not JSON. Raises `DataError` when a file is missing.
    """
    described = JsonLines(
        files.find("items", source, "meta_*.json"),
        item_fields(item_id="asin", title="title", description="description", categories=categories, price="price"),
        parse_item,
    )
    items = Computed(described, {"title": (("title",), _without_scripts), "price": (("price",), _without_styles)})
    interactions = JsonLines(
        files.find("interactions", source, *reviews),
        interaction_fields(
            user_id="reviewerID", item_id="asin", rating="overall", timestamp="unixReviewTime", review_text="reviewText"
        ),
    )
    return RawLogs(items, interactions, template=domain_of(interactions.file.name), is_crawl=True)


def _without_scripts(title: pl.Expr) -> pl.Expr:
    """A title, but null where it is a piece of the page's script, as some titles of 2018 are."""
    return pl.when(~title.str.contains("getTime()", literal=True)).then(title)


def _without_styles(price: pl.Expr) -> pl.Expr:
    """A price, but null where it is a piece of the page's style sheet, as some prices of 2018 are."""
    return pl.when(~price.str.contains("{", literal=True)).then(price)
