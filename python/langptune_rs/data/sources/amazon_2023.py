"""Amazon Reviews 2023: one file of reviews and one of metadata per category, joined on `parent_asin`.

https://amazon-reviews-2023.github.io; times are in milliseconds.
"""

from __future__ import annotations

from langptune_rs.data.readers.json_lines import JsonLines
from langptune_rs.data.readers.values import interaction_fields, item_fields
from langptune_rs.data.sources.files import Files, RawLogs
from langptune_rs.data.wording.templates import domain_of

FILES = "--reviews Movies_and_TV.jsonl --meta meta_Movies_and_TV.jsonl of one category, plain or .gz"


def open_logs(files: Files) -> RawLogs:
    """The two files of one category. Raises `DataError` when one is missing."""
    items = JsonLines(
        files.find("items", "amazon-2023", "meta_*.jsonl"),
        item_fields(
            item_id="parent_asin",
            title="title",
            description="description",
            categories="categories",
            price="price",
            average_rating="average_rating",
        ),
    )
    interactions = JsonLines(
        files.find("interactions", "amazon-2023", "[!m]*.jsonl", "[m][!e][!t][!a]*.jsonl"),
        interaction_fields(
            user_id="user_id", item_id="parent_asin", rating="rating", timestamp="timestamp", review_text="text"
        ),
    )
    return RawLogs(items, interactions, template=domain_of(interactions.file.name), is_crawl=True)
