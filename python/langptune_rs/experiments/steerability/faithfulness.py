"""Whether an explanation says what the ranking rests on, whether a profile is of its user, and whether undo undoes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from langptune_rs.evaluation.metrics import from_ranks
from langptune_rs.experiments.steerability.edits import APPENDED, REQUEST, alike, rewritten
from langptune_rs.experiments.steerability.judge import Judge
from langptune_rs.experiments.steerability.measuring import Case
from langptune_rs.experiments.steerability.tags import Tag
from langptune_rs.recommending.edits import Edit, Request, Rewrite
from langptune_rs.recommending.explaining import PartEffect
from langptune_rs.recommending.recommender import Recommender
from langptune_rs.recommending.sentences import By, parts_of

COLUMNS = pl.Schema(
    {
        "session_id": pl.Int64(),
        "user_id": pl.String(),
        "unit": pl.String(),
        "parts": pl.Int64(),
        **dict.fromkeys(
            (
                *("deleted_score", "deleted_log_rank", "kept_log_rank", "kept_first", "kept_first_random", "judged"),
                *("own_log_rank", "own_ndcg", "undone", "unread"),
            ),
            pl.Float64(),
        ),
    }
)
"""One row for each session. A profile of one word has no explanation, and nulls.

The item that is explained is the first of the user's list. `explain` names the sentence whose removal lowers its score
most, or the word, where the profile is a single sentence.

- unit, parts: sentence or word, and how many there are.
- deleted_score: how much the item's score falls without the part that was named, less the fall without another part of
  about the same length. By what `explain` does it is never negative; the size is what counts.
- deleted_log_rank: the same in the logarithm of the item's rank: above 0, the named part held the item up.
- kept_log_rank: the logarithm of the item's rank by the other part alone, less that by the named part alone.
- kept_first, kept_first_random: whether the item is among the first k by the named part alone, and by the other.
- judged: whether the judge too finds the named part nearer to the item than the other part; 0.5 for a tie.
- own_log_rank, own_ndcg: the user's next item by another user's profile less by the own one in the logarithm of the
  rank, and by the own one less the other's in NDCG@k: above 0, the own profile is better.
- undone: 1 where a worded edit and a request, each taken back, leave the list that was there before, to the bit.
- unread: 1 where the embedder does not read the end of the longest edit, because it is too long.
"""


def measure_sessions(
    cases: Sequence[Case],
    recommender: Recommender,
    tags: Sequence[Tag],
    judge: Judge,
    item_texts: Sequence[str],
    *,
    k: int,
    seed: int,
) -> pl.DataFrame:
    """The rows of `COLUMNS` for some sessions; `item_texts` are those of the catalog."""
    longest = max((APPENDED[direction][3].format(tag=tag.name) for tag in tags for direction in APPENDED), key=len)
    rows = [
        {
            "session_id": case.session_id,
            "user_id": case.user_id,
            **_explained(case, recommender, judge, item_texts, k, seed),
            **_own(case, recommender, k),
            "undone": float(_is_undone(case, recommender, tags[number % len(tags)])),
            "unread": float(bool(recommender.embedder.unread_profile(f"{case.text} {longest}"))),
        }
        for number, case in enumerate(cases)
    ]
    return pl.DataFrame(rows, schema=COLUMNS)


def _ranks(case: Case, recommender: Recommender, texts: Sequence[str], item: int) -> NDArray[np.int64]:
    """The rank of an item by each text, (len(texts),)."""
    histories = np.tile(case.history, (len(texts), 1))
    return recommender.ranks(texts, np.full(len(texts), item), histories)[:, 0]


def _explained(
    case: Case, recommender: Recommender, judge: Judge, item_texts: Sequence[str], k: int, seed: int
) -> dict[str, Any]:
    by: By = "sentence" if len(parts_of(case.text)) > 1 else "word"
    parts = parts_of(case.text, by)
    if len(parts) < 2:
        return {"unit": None, "parts": len(parts)}
    history = case.history.tolist()
    item = int(recommender.recommend(case.text, 1, history)[0][0])
    found = recommender.explain(case.text, item, history, by)
    first = int(np.argmax([part.effect for part in found.parts]))
    second = alike(parts, first, seed, "steerability", case.session_id, "explained")
    named, other = found.parts[first], found.parts[second]
    alone = _ranks(case, recommender, [named.part.text, other.part.text], item)
    return {
        "unit": by,
        "parts": len(parts),
        "deleted_score": named.effect - other.effect,
        "deleted_log_rank": math.log(named.rank_without) - math.log(other.rank_without),
        "kept_log_rank": math.log(alone[1]) - math.log(alone[0]),
        "kept_first": float(alone[0] <= k),
        "kept_first_random": float(alone[1] <= k),
        "judged": _preferred(judge, named, other, item_texts[item]),
    }


def _preferred(judge: Judge, named: PartEffect, other: PartEffect, item_text: str) -> float:
    parts = judge.profiles([named.part.text, other.part.text]).astype(np.float64)
    nearness = parts @ judge.items([item_text])[0].astype(np.float64)
    return float((np.sign(nearness[0] - nearness[1]) + 1) / 2)


def _own(case: Case, recommender: Recommender, k: int) -> dict[str, float]:
    ranks = _ranks(case, recommender, [case.text, case.other], case.target)
    own, other = from_ranks(ranks, f"ndcg@{k}")
    return {"own_log_rank": math.log(ranks[1]) - math.log(ranks[0]), "own_ndcg": float(own - other)}


def _is_undone(case: Case, recommender: Recommender, tag: Tag) -> bool:
    """Whether the list and its scores are the same to the bit, after an edit and after its undoing."""
    if not case.text.strip():
        return True
    wish = REQUEST.format(tag=tag.name)
    changes: list[tuple[Edit, Edit]] = [
        (Rewrite(rewritten(case.text, f"{tag.name}, and also", wish, None)), Rewrite(case.text)),
        (Request(wish, 0.5), Request(wish, 0.0)),
    ]
    for edit, undo in changes:
        there = recommender.steer(case.text, edit, exclude=case.history.tolist())
        back = recommender.steer(there.profile_after, undo, exclude=case.history.tolist())
        same_items = np.array_equal(there.before.items, back.after.items)
        if not same_items or not np.array_equal(there.before.scores, back.after.scores):
            return False
    return True
