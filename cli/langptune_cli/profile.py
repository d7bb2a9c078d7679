"""`langptune profile`: what the trained policy writes about a user."""

import json
from pathlib import Path
from typing import Annotated

import typer

from langptune_cli.arguments import Json, Run, User, exactly_one


def profile(
    run: Run,
    user: User = None,
    history: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON lines, oldest first: item_id or title, and rating and review_text."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the profile of a user of the data set, or of a history in a file."""
    exactly_one(user=user, history=history)
    from langptune_rs.data import read_history
    from langptune_rs.serving.service import ProfileService

    service = ProfileService.open(run)
    if history is not None:
        past = read_history(history, service.catalog, service.dataset.rating_scale)
    else:
        assert user is not None  # exactly one is given
        past = service.history_of(user)
    text = service.profile(*past)
    if as_json:
        titles = [service.catalog.titles[item] for item in past[0]]
        typer.echo(json.dumps({"history": titles, "profile": text}))
    else:
        typer.echo(text)
