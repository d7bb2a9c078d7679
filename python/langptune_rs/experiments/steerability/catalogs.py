"""The catalog as an embedder sees it: with its texts as they are, and without the words of each tag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langptune_rs import ItemIndex
from langptune_rs.data import Catalog
from langptune_rs.experiments.kept import Kept
from langptune_rs.experiments.steerability.tags import Tag
from langptune_rs.models.embedder import Embedder
from langptune_rs.progress import progress
from langptune_rs.recommending.recommender import Recommender

TEXTS_PER_STEP = 512
"""Texts embedded between two steps of the progress."""


class TaggedCatalog:
    """Indexes of one catalog by one embedder.

    Attributes:
        recommender: with the texts as they are.
        scrubbed: for each tag, the index of the items without the tag's words. Only items that have one of them are
            embedded again.
    """

    def __init__(
        self, embedder: Embedder, catalog: Catalog, tags: Sequence[Tag], kept: Kept, decides: Mapping[str, Any]
    ):
        """`decides` are the values that decide what the embedder returns, and the content of the data set."""
        texts = catalog.texts.to_list()
        own = kept.array("items", decides, lambda: _encode(embedder, texts, "items"))
        self.recommender = Recommender(embedder, own)
        scrubbed = [{row: new for row, text in enumerate(texts) if (new := tag.scrubbed(text)) != text} for tag in tags]
        words = {"words": [sorted(tag.words) for tag in tags]}
        distinct = list(dict.fromkeys(text for changed in scrubbed for text in changed.values()))
        places = {text: place for place, text in enumerate(distinct)}
        embedded = kept.array(
            "scrubbed", {**decides, **words}, lambda: _encode(embedder, distinct, "items without a tag's words")
        )
        self.scrubbed: list[ItemIndex] = []
        for changed in scrubbed:
            items = own.copy()
            if changed:
                items[list(changed)] = embedded[[places[text] for text in changed.values()]]
            self.scrubbed.append(ItemIndex(items))


def _encode(embedder: Embedder, texts: Sequence[str], description: str) -> NDArray[np.float32]:
    parts = [np.empty((0, embedder.dim), dtype=np.float32)]
    with progress(len(texts), description) as advance:
        for start in range(0, len(texts), TEXTS_PER_STEP):
            parts.append(embedder.encode_items(texts[start : start + TEXTS_PER_STEP]))
            advance(len(parts[-1]))
    return np.concatenate(parts)
