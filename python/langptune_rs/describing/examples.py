"""Items shown as they were and as they are described."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langptune_rs.data import Catalog
from langptune_rs.describing.judging import INITIAL, METADATA, TRAINED
from langptune_rs.describing.reviews import Reviews
from langptune_rs.describing.writing import Written
from langptune_rs.errors import DataError
from langptune_rs.seeds import generator

NUM_EXAMPLES = 3
RANKED_IN = (METADATA, INITIAL, TRAINED)
"""The catalogs in which an example's rank is shown."""


def find_items(catalog: Catalog, reviews: Reviews, wanted: Sequence[str]) -> list[int]:
    """The items that `wanted` names by id or title, or a few drawn ones if it names none.

    Raises `DataError` for an item that is not in the catalog, and for one without reviews.
    """
    if not wanted:
        order = generator("describe", "examples").permutation(len(reviews.items))
        return [int(reviews.items[place]) for place in order[:NUM_EXAMPLES]]
    return [_find(catalog, reviews, name) for name in wanted]


def _find(catalog: Catalog, reviews: Reviews, name: str) -> int:
    item = catalog.item_ids.find(name)
    item = catalog.index_of_title(name) if item is None else item
    if item not in reviews.items:
        raise DataError(
            f"{name!r} has no review in a train session, so that nothing is written about it and its metadata stay as "
            "they are. Name another item."
        )
    return item


def examples_of(
    items: Sequence[int],
    catalog: Catalog,
    reviews: Reviews,
    written: Written,
    ranks: Mapping[str, Mapping[int, Sequence[int]]],
) -> list[dict[str, Any]]:
    """What was read and written of each item, by the trained policy of the first seed.

    "ranks" are those of the item in each of `RANKED_IN` for the sessions of the split whose target it is.
    """
    places = {item: place for place, item in enumerate(reviews.items.tolist())}
    first = next(name for name in written if name != INITIAL)
    return [
        {
            "item_id": catalog.item_ids[item],
            "title": catalog.titles[item],
            "metadata": catalog.texts[item],
            "reviews": list(reviews.texts[places[item]]),
            "initial": written[INITIAL]["text"][places[item]],
            "trained": written[first]["text"][places[item]],
            "ranks": {name: list(ranks[name].get(item, [])) for name in RANKED_IN},
        }
        for item in items
    ]
