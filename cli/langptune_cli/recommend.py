"""`langptune recommend`: the items nearest to a profile."""

import json
from pathlib import Path
from typing import Annotated

import typer

from langptune_cli.arguments import Json, ProfileText, Run, User, exactly_one


def recommend(
    run: Run,
    user: User = None,
    profile: ProfileText = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many items.")] = 20,
    watch: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Rank by the profile in FILE, and again whenever it is saved. "
            "With --user or --profile it is written there first, unless FILE exists.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Recommend items for a user of the data set, without those in the user's history, or for a profile."""
    if watch is None or (user is not None and profile is not None):
        exactly_one(user=user, profile=profile)
    from langptune_rs.serving.service import ProfileService
    from langptune_rs.serving.tables import items_json, print_items

    service = ProfileService.open(run)
    if watch is not None:
        from langptune_rs.serving.watching import watch_profile

        watch_profile(service, watch, user, profile, k, as_json=as_json)
        return
    text, history = service.text_and_history(user, profile)
    items, unread = service.recommend(text, k, exclude=history), service.unread(text)
    if as_json:
        typer.echo(json.dumps(items_json(text, items, unread)))
        return
    if user is not None:
        typer.echo(f"{text}\n")
    print_items(items, unread)
