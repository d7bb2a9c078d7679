"""`langptune steer`: what an edit of a profile does to its ranking."""

import json
from typing import Annotated

import typer

from langptune_cli.arguments import Json, ProfileText, Run, User, exactly_one


def steer(
    run: Run,
    user: User = None,
    profile: ProfileText = None,
    rewrite: Annotated[str | None, typer.Option(metavar="TEXT", help="Another text in place of the profile's.")] = None,
    instruct: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help='What to change, such as "less horror": the policy writes the new text.'),
    ] = None,
    remove: Annotated[
        list[int] | None, typer.Option(metavar="N", help="Take out the profile's sentence N. May be repeated.")
    ] = None,
    weigh: Annotated[
        list[str] | None,
        typer.Option(metavar="N=WEIGHT", help="Let sentence N count more (2) or less (0.5). May be repeated."),
    ] = None,
    request: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT=WEIGHT", help="Add a wish beside the text; below 0 for less. May be repeated."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many items to show.")] = 20,
    yes: Annotated[bool, typer.Option("--yes", help="Take what the policy writes for --instruct unread.")] = False,
    as_json: Json = False,
) -> None:
    """Show the ranking after an edit of a profile, and how far each item moved. Nothing is stored."""
    exactly_one(user=user, profile=profile)
    from langptune_rs.recommending.edits import Rewrite, edits_of
    from langptune_rs.serving.service import ProfileService
    from langptune_rs.serving.tables import print_steering, steering_json

    edits = edits_of(rewrite=rewrite, instruct=instruct, remove=remove, weigh=weigh, request=request)
    service = ProfileService.open(run)
    text, history = service.text_and_history(user, profile)
    if instruct is not None:
        proposal = service.propose(text, instruct)
        if not yes:
            typer.echo(f"{text}\n\nThe policy proposes:\n\n{proposal}\n", err=as_json)
            typer.confirm("Take it?", abort=True, err=as_json)
        edits = [Rewrite(proposal), *edits]
    found = service.steer(text, *edits, exclude=history)
    if as_json:
        typer.echo(json.dumps(steering_json(service.catalog, found, k)))
    else:
        print_steering(service.catalog, found, k)
