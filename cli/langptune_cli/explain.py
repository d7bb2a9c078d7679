"""`langptune explain`: why an item stands where it does."""

import json
from typing import Annotated

import typer

from langptune_cli.arguments import Json, ProfileText, Run, User, exactly_one


def explain(
    run: Run,
    item: Annotated[str, typer.Option(metavar="NAME", help="The item's id or title.")],
    user: User = None,
    profile: ProfileText = None,
    by: Annotated[str, typer.Option(help="The parts that are left out in turn: sentence or word.")] = "sentence",
    as_json: Json = False,
) -> None:
    """Show what each sentence of a profile does to an item: its score and rank with the sentence and without it."""
    exactly_one(user=user, profile=profile)
    from langptune_rs.recommending.sentences import by_name
    from langptune_rs.serving.service import ProfileService
    from langptune_rs.serving.tables import explanation_json, print_explanation

    parts = by_name(by)
    service = ProfileService.open(run)
    wanted = service.item_of(item)
    text, history = service.text_and_history(user, profile)
    found = service.explain(text, wanted, history, parts)
    if as_json:
        typer.echo(json.dumps({"profile": text, **explanation_json(service.catalog, found)}))
    else:
        print_explanation(service.catalog, found)
