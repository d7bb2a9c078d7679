"""Items of the catalog by what they are called."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from langptune_rs.serving.answers import ItemsAnswer, NamedItem
from langptune_rs.serving.backend import PREFIX, Run
from langptune_rs.serving.bodies import MAX_NAME, MAX_PAGE
from langptune_rs.serving.searching import find_items

router = APIRouter(prefix=PREFIX, tags=["items"])


@router.get("/items")
def search_items(
    run: Run,
    query: Annotated[str, Query(max_length=MAX_NAME, description="An id, or a part of a title, in any case.")] = "",
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="How many items at most.")] = 20,
) -> ItemsAnswer:
    """Items whose title begins with the query, then those whose title holds it."""
    catalog = run.service.catalog
    items = [
        NamedItem(id=catalog.item_ids[item], title=catalog.titles[item]) for item in find_items(catalog, query, limit)
    ]
    return ItemsAnswer(model_version=run.version, items=items)
