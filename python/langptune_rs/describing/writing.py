"""What a policy writes about all items with reviews, greedily, kept part by part as it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import polars as pl

from langptune_rs.config.profile import ProfileConfig
from langptune_rs.data import Dataset
from langptune_rs.describing.items import item_prompt
from langptune_rs.describing.reviews import Reviews
from langptune_rs.experiments.kept import Kept
from langptune_rs.models.policy import Policy
from langptune_rs.progress import progress
from langptune_rs.rollout.copying import copied_from
from langptune_rs.rollout.variety import repeated_shares
from langptune_rs.rollout.writer import ProfileWriter

ITEMS_PER_PART = 64
"""A kill loses at most one part."""

COLUMNS = pl.Schema(
    {
        "item": pl.Int64(),
        "text": pl.String(),
        "tokens": pl.Int64(),
        "finished": pl.Boolean(),
        "copied_share": pl.Float64(),
        "repetition": pl.Float64(),
    }
)
"""One row for each description. What is copied is copied from the reviews that the policy has read."""


Written = dict[str | int, pl.DataFrame]
"""The descriptions of the initial policy, by its name, and of the policy of each seed, by the seed."""


class Describer:
    """A policy, which is loaded when something is left to write."""

    def __init__(self, name: str, decides: Mapping[str, Any], load: Callable[[], Policy]):
        """`decides` are the values that decide what the policy writes for given prompts."""
        self.name, self.decides, self._load = name, decides, load

    @cached_property
    def policy(self) -> Policy:
        """The policy, in memory from the first time on."""
        return self._load()


def write_descriptions(
    describer: Describer, dataset: Dataset, reviews: Reviews, config: ProfileConfig, kept: Kept
) -> pl.DataFrame:
    """The rows of `COLUMNS` for all items of `reviews`, in their order. Parts that are kept are not written again."""
    texts = [
        item_prompt(dataset, item, own, config) for item, own in zip(reviews.items.tolist(), reviews.texts, strict=True)
    ]
    parts = [range(start, min(start + ITEMS_PER_PART, len(texts))) for start in range(0, len(texts), ITEMS_PER_PART)]

    def decides(part: range) -> dict[str, Any]:
        return {**describer.decides, "max_tokens": config.max_tokens, "prompts": [texts[row] for row in part]}

    def write(part: range) -> pl.DataFrame:
        writer = ProfileWriter(describer.policy, dataset, config)
        prompts = [writer.policy.encode_prompt(texts[row]) for row in part]
        written = writer.write(prompts, greedy=True)
        sources = ["\n".join(reviews.texts[row]) for row in part]
        columns: Sequence[Any] = (
            *(reviews.items[list(part)], written.texts, [len(tokens) for tokens in written.tokens], written.finished),
            *(copied_from(written.texts, sources), repeated_shares(written.texts)),
        )
        return pl.DataFrame(dict(zip(COLUMNS, columns, strict=True)), schema=COLUMNS)

    done = sum(len(part) for part in parts if kept.has("descriptions", decides(part)))
    tables = []
    with progress(len(texts), f"{describer.name}: descriptions", done) as advance:
        for part in parts:
            is_new = not kept.has("descriptions", decides(part))
            tables.append(kept.table("descriptions", decides(part), partial(write, part)))
            if is_new:
                advance(len(part))
    return pl.concat(tables)


def statistics(written: pl.DataFrame) -> dict[str, float]:
    """Mean number of tokens, and the shares of descriptions that do not end, of copied words and of repeated runs."""
    return {
        "tokens": float(written["tokens"].to_numpy().mean()),
        "overlong_rate": 1 - float(written["finished"].to_numpy().mean()),
        "copied_share": float(written["copied_share"].to_numpy().mean()),
        "repetition": float(written["repetition"].to_numpy().mean()),
        "distinct_share": written["text"].n_unique() / len(written),
    }
