"""`langptune recommend`: the items nearest to a profile."""

import json
from typing import Annotated

import typer

from langptune_cli.arguments import Json, Run, User, exactly_one


def recommend(
    run: Run,
    user: User = None,
    profile: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A profile, as the policy or you wrote it.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many items.")] = 20,
    as_json: Json = False,
) -> None:
    """Recommend items for a user of the data set, without those in the user's history, or for a profile."""
    exactly_one(user=user, profile=profile)
    from langptune_rs.serving.service import ProfileService

    service = ProfileService.open(run)
    history: list[int] = []
    if user is not None:
        history, ratings, reviews = service.history_of(user)
        profile = service.profile(history, ratings, reviews)
    assert profile is not None  # given, or written for the user
    items = service.recommend(profile, k, exclude=history)
    if as_json:
        named = [{"item_id": item_id, "title": title, "score": score} for item_id, title, score in items]
        typer.echo(json.dumps({"profile": profile, "items": named}))
        return
    if user is not None:
        typer.echo(f"{profile}\n")
    for place, (item_id, title, score) in enumerate(items, start=1):
        typer.echo(f"{place:>3}  {score:.3f}  {title}  [{item_id}]")
