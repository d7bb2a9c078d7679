"""Rankings: by a profile, before and after edits, why an item stands where it does, and by popularity."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from langptune_rs.recommending.sentences import parts_of
from langptune_rs.recommending.steering import Ranking
from langptune_rs.serving.answers import (
    ExplainAnswer,
    Item,
    Move,
    NearItem,
    PartEffect,
    Profile,
    RankingAnswer,
    RecommendAnswer,
    SteerAnswer,
)
from langptune_rs.serving.backend import PREFIX, Run, excluded, ranked
from langptune_rs.serving.bodies import (
    MAX_HISTORY,
    MAX_K,
    MAX_PARTS,
    ExplainBody,
    Name,
    RecommendBody,
    SteerBody,
    UserId,
)
from langptune_rs.serving.live_run import LoadedRun
from langptune_rs.serving.problems import TooLargeError

router = APIRouter(prefix=PREFIX, tags=["rankings"])


@router.post("/recommend")
def recommend(body: RecommendBody, run: Run) -> RecommendAnswer:
    """The items nearest to a profile, outside of a history."""
    profile = body.profile.profile()
    items = run.service.recommend(profile, body.k, excluded(run, body.user, body.exclude))
    return RecommendAnswer(
        model_version=run.version,
        items=ranked(items),
        profile=Profile.of(profile),
        unread=run.service.unread(profile),
    )


@router.post("/explain")
def explain(body: ExplainBody, run: Run) -> ExplainAnswer:
    """What every sentence or word of a profile does to an item, by leaving it out and ranking again."""
    profile, catalog = body.profile.profile(), run.service.catalog
    num_parts = len(parts_of(profile.text, body.by))
    if num_parts > MAX_PARTS:
        raise TooLargeError(f"the profile has {num_parts} {body.by}s, and at most {MAX_PARTS} are explained")
    item = run.service.item_of(body.item)
    found = run.service.explain(profile, item, excluded(run, body.user, body.exclude), body.by)
    return ExplainAnswer(
        model_version=run.version,
        item=Item(id=catalog.item_ids[item], title=catalog.titles[item], score=found.score, rank=found.rank),
        num_ranked=found.num_ranked,
        parts=[
            PartEffect(
                **vars(effect.part),
                effect=effect.effect,
                rank_without=effect.rank_without,
                similarity=effect.similarity,
            )
            for effect in found.parts
        ],
        history=[
            NearItem(id=catalog.item_ids[past], title=catalog.titles[past], similarity=similarity)
            for past, similarity in found.history
        ],
        unread=found.unread,
    )


@router.post("/steer")
def steer(body: SteerBody, run: Run) -> SteerAnswer:
    """The ranking before and after edits of a profile, and every shown item's move. Nothing is kept."""
    exclude, catalog = excluded(run, body.user, body.exclude), run.service.catalog
    found = run.service.steer(body.profile.profile(), *(edit.edit() for edit in body.edits), exclude=exclude)
    return SteerAnswer(
        model_version=run.version,
        profile_before=Profile.of(found.profile_before),
        profile_after=Profile.of(found.profile_after),
        before=_first(run, found.before, body.k),
        after=_first(run, found.after, body.k),
        moves=[
            Move(
                id=catalog.item_ids[move.item],
                title=catalog.titles[move.item],
                rise=move.rise,
                **{name: value for name, value in vars(move).items() if name != "item"},
            )
            for move in found.moves(body.k)
        ],
        unread=found.unread,
    )


@router.get("/popular")
def most_popular(
    run: Run,
    k: Annotated[int, Query(ge=1, le=MAX_K, description="How many items.")] = 20,
    user: Annotated[UserId | None, Query(description="The items of this user's history are left out.")] = None,
    exclude: Annotated[
        list[Name], Query(max_length=MAX_HISTORY, description="Ids or titles of items that are left out.")
    ] = [],  # noqa: B006  # FastAPI reads it and makes a new one
) -> RankingAnswer:
    """The items with the most interactions, the same for everyone."""
    items = run.service.popular(k, excluded(run, user, exclude))
    return RankingAnswer(model_version=run.version, items=ranked(items))


def _first(run: LoadedRun, ranking: Ranking, k: int) -> list[Item]:
    catalog = run.service.catalog
    pairs = zip(ranking.items[:k].tolist(), ranking.scores[:k].tolist(), strict=True)
    return ranked([(catalog.item_ids[item], catalog.titles[item], score) for item, score in pairs])
