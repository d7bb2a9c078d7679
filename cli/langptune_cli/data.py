"""`langptune data`: from raw logs to a data set."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from langptune_cli.arguments import Json

app = typer.Typer(no_args_is_help=True, help="Make data sets of sessions from raw logs.")


@app.command()
def prepare(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="ml-100k, or a folder with items.jsonl and interactions.jsonl, plain or .gz."
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.")],
    path: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the files of a named source are, such as jsonl.")
    ] = None,
    split: Annotated[
        Literal["session", "leave-last-out"], typer.Option(help="84/8/8 of all sessions, or by each user's time.")
    ] = "session",
    windows: Annotated[
        Literal["last", "all"] | None,
        typer.Option(help="One session per user (for the split session), or all (for leave-last-out)."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split.")] = 0,
    min_interactions: Annotated[
        int, typer.Option(min=1, help="Remove users and items with fewer, until none is left.")
    ] = 5,
    history_length: Annotated[int, typer.Option(min=1, help="Items before a session's target.")] = 4,
    template: Annotated[
        Literal["movies", "products", "generic"] | None,
        typer.Option(help="Wording of the prompts; the source's own if not given."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the data set that is in OUT.")] = False,
    as_json: Json = False,
) -> None:
    """Filter raw logs, cut them into sessions, split these and report what leaks."""
    from langptune_rs.data import prepare as run
    from langptune_rs.data.config import make_config

    config = make_config(
        source=source,
        split=split,
        windows=windows,
        seed=seed,
        min_interactions=min_interactions,
        history_length=history_length,
        template=template,
    )
    info = run(source, out, config, path=path, overwrite=overwrite).info
    typer.echo(json.dumps(info, ensure_ascii=False) if as_json else _summary(info, out))


def _summary(info: dict, out: Path) -> str:
    """Counts after each step, what was removed, sessions in each split, and the leakage report."""
    rows = [("step", "users", "items", "interactions"), *(tuple(step.values()) for step in info["filters"])]
    width = max(len(row[0]) for row in rows)
    lines = [f"{row[0]:<{width}}" + "".join(f"{number:>14}" for number in row[1:]) for row in rows]
    if "removed" in info:  # a data set of an earlier version does not say
        lines += ["", *_removed_lines(info["removed"], info["config"]["min_interactions"])]
    lines += [
        "",
        "sessions: " + ", ".join(f"{number} {split}" for split, number in info["sessions"].items()),
        "",
        "leakage report",
        *(f"  {name.replace('_', ' ')}: {number}" for name, number in info["leakage"].items()),
        "",
        f"Written to {out}",
    ]
    return "\n".join(lines)


def _removed_lines(removed: dict[str, int], min_interactions: int) -> list[str]:
    """What the user did not ask to be removed, or kept, in words."""
    return [
        f"removed {removed['users_with_too_few_interactions']} users with fewer than {min_interactions} interactions",
        f"removed {removed['items_with_too_few_interactions']} items with fewer than {min_interactions} interactions",
        f"removed {removed['items_without_text']} items without a title, description or category",
        f"kept {removed['repeated_interactions_kept']} interactions that repeat an item of their user; no session does",
    ]
