"""`langptune data`: from raw logs to a data set."""

import json
from pathlib import Path
from typing import Annotated, Literal

import click
import typer
from typer.core import TyperCommand

from langptune_cli.arguments import Json

app = typer.Typer(no_args_is_help=True, help="Make data sets of sessions from raw logs.")


class _Prepare(TyperCommand):
    """Lists the sources in its help, which takes the table library to know."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from langptune_rs.data.sources import published
        from langptune_rs.data.sources.registry import SOURCES

        sources = SOURCES | {published.NAME: published}
        self.epilog = "\n\n".join(["Sources:", *(f"{name}: {module.FILES}" for name, module in sources.items())])
        super().format_help(ctx, formatter)


@app.command(cls=_Prepare)
def prepare(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="The name of a source, or a folder that holds the files of one."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.")],
    path: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the files of a named source are, under their own names.")
    ] = None,
    interactions: Annotated[
        Path | None, typer.Option("--interactions", "--reviews", metavar="FILE", help="Ratings or reviews.")
    ] = None,
    items: Annotated[
        Path | None, typer.Option("--items", "--meta", metavar="FILE", help="Titles and descriptions.")
    ] = None,
    overview: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Descriptions by item id, for sources without.")
    ] = None,
    download: Annotated[
        bool,
        typer.Option("--download", help="Fetch the files of a public set into --path, or the cache, if not there."),
    ] = False,
    category: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which category of Amazon's to --download, as Movies_and_TV.")
    ] = None,
    mirror: Annotated[str | None, typer.Option(metavar="URL", help="Where else to --download from.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=YOURS", help="What a column is called in your own files; as often as needed."),
    ] = None,
    split: Annotated[
        Literal["session", "leave-last-out", "temporal"],
        typer.Option(help="84/8/8 of all sessions, by each user's time, or by the time of the targets."),
    ] = "session",
    held_out: Annotated[
        int | None, typer.Option(min=1, help="Sessions of validation and of test each; 8% of all if not given.")
    ] = None,
    windows: Annotated[
        Literal["last", "all"] | None,
        typer.Option(help="One session per user (for the split session), or all (for the others)."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split.")] = 0,
    min_interactions: Annotated[
        int, typer.Option(min=1, help="Remove users and items with fewer, until none is left.")
    ] = 5,
    history_length: Annotated[int, typer.Option(min=1, help="Items before a session's target.")] = 4,
    max_item_tokens: Annotated[
        int, typer.Option(min=0, help="Remove items whose text is longer for the embedder; 0 keeps all.")
    ] = 512,
    max_history_tokens: Annotated[
        int, typer.Option(min=0, help="Remove sessions whose history is longer for the policy; 0 keeps all.")
    ] = 1024,
    embedder: Annotated[str, typer.Option(metavar="MODEL", help="Whose tokens of an item count.")] = "all-minilm-l6-v2",
    policy: Annotated[
        str, typer.Option(metavar="MODEL", help="Whose tokens of a history count.")
    ] = "smollm2-135m-instruct",
    template: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Wording of the prompts: movies, products, generic, books, games, music, paper, or a .jinja file; "
            "the source's own if not given.",
        ),
    ] = None,
    compat: Annotated[
        Literal["paper", "reference"],
        typer.Option(help="Where the paper and its published code differ, whom to follow."),
    ] = "paper",
    on_bad_line: Annotated[
        Literal["error", "skip"], typer.Option(help="Stop at a line that cannot be used, or count and list it.")
    ] = "error",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the data set that is in OUT.")] = False,
    as_json: Json = False,
) -> None:
    """Filter raw logs, cut them into sessions, split these and report what leaks."""
    from langptune_rs.config.data import make_config
    from langptune_rs.data import prepare as run
    from langptune_rs.data.sources.download import downloaded
    from langptune_rs.data.sources.files import Files, column_map
    from langptune_rs.models.tokens import token_counters

    config = make_config(
        source=source,
        split=split,
        held_out=held_out,
        windows=windows,
        seed=seed,
        min_interactions=min_interactions,
        history_length=history_length,
        max_item_tokens=max_item_tokens or None,
        max_history_tokens=max_history_tokens or None,
        template=template,
        compat=compat,
        on_bad_line=on_bad_line,
    )
    files = Files(path, items, interactions, overview, column_map(column or []))
    if download:
        files = downloaded(source, category, files, mirror)
    elif category is not None or mirror is not None:
        raise typer.BadParameter("--category and --mirror say what to --download, and go with it alone.")
    counters = token_counters(embedder, policy) if max_item_tokens or max_history_tokens else None
    info = run(source, out, config, files=files, counters=counters, overwrite=overwrite).info
    typer.echo(json.dumps(info, ensure_ascii=False) if as_json else _summary(info, out))


@app.command()
def inspect(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A data set that `langptune data prepare` wrote.")],
    prompts: Annotated[
        int | None, typer.Option(metavar="N", min=0, show_default="3", help="How many prompts to show.")
    ] = None,
    split: Annotated[
        Literal["train", "validation", "test"], typer.Option(help="The sessions that prompts are drawn from.")
    ] = "train",
    seed: Annotated[int, typer.Option(min=0, help="Seed of that draw.")] = 0,
    plots: Annotated[
        Path | None,
        typer.Option(metavar="OUT", show_default="DIR-inspect", help="The folder to write histograms.png to."),
    ] = None,
    no_plots: Annotated[bool, typer.Option("--no-plots", help="Write no file.")] = False,
    as_json: Json = False,
) -> None:
    """Show what is in a data set: counts, lengths, what is missing, what was removed, what leaks, and prompts."""
    if plots is not None and no_plots:
        raise typer.BadParameter("--plots and --no-plots exclude each other.")
    from langptune_rs.data.inspection.charts import charts_folder, check_folder, write_charts
    from langptune_rs.data.inspection.inspect import inspect_dataset
    from langptune_rs.data.inspection.tables import print_inspection

    out = plots or charts_folder(folder)
    if not no_plots:
        check_folder(out, folder)
    inspection = inspect_dataset(folder, split=split, num_prompts=prompts, seed=seed)
    chart = None if no_plots else write_charts(inspection, out)
    if as_json:
        typer.echo(json.dumps(inspection.numbers | {"plots": chart and str(chart)}, ensure_ascii=False))
        return
    print_inspection(inspection.numbers, str(folder))
    if chart:
        typer.echo(f"Histograms written to {chart}")


def _summary(info: dict, out: Path) -> str:
    """Counts after each step, what was removed, sessions in each split, and the leakage report."""
    lines = _published_lines(info["published"]) if "published" in info else _filter_lines(info)
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


def _published_lines(report: dict[str, int]) -> list[str]:
    """What was published, and what was left out of it."""
    return [f"published {name.replace('_', ' ')}: {number}" for name, number in report.items()]


def _filter_lines(info: dict) -> list[str]:
    """What each step left, and what it removed."""
    rows = [("step", "users", "items", "interactions"), *(tuple(step.values()) for step in info["filters"])]
    width = max(len(row[0]) for row in rows)
    return [
        *(f"{row[0]:<{width}}" + "".join(f"{number:>14}" for number in row[1:]) for row in rows),
        "",
        *_removed_lines(info["removed"], info["config"]),
    ]


def _removed_lines(removed: dict[str, int], config: dict) -> list[str]:
    """What the user did not ask to be removed, or kept, in words; what most sources do not have only where it is."""
    few = f"with fewer than {config['min_interactions']} interactions"
    always = [
        f"removed {removed['users_with_too_few_interactions']} users {few}",
        f"removed {removed['items_with_too_few_interactions']} items {few}",
        f"removed {removed['items_without_text']} items without a title, description or category",
    ]
    sometimes = {
        "items_too_long": f"items of more than {config.get('max_item_tokens')} tokens",
        "sessions_too_long": f"sessions with a history of more than {config.get('max_history_tokens')} tokens",
        "interactions_with_undescribed_items": "interactions with items that have no metadata",
        "items_without_interactions": "items without any interaction",
        "reviews_that_cannot_be_used": "reviews that cannot be used, whose interactions stay",
        "repeated_descriptions": "further descriptions of items that were described before",
        "duplicate_interactions": "interactions that are there twice, at the same time",
        "bad_lines": "lines that cannot be used; dataset.toml lists the first of them",
    }
    return [
        *always,
        *(f"removed {removed[name]} {what}" for name, what in sometimes.items() if removed[name]),
        f"kept {removed['repeated_interactions_kept']} interactions that repeat an item of their user; no session does",
    ]
