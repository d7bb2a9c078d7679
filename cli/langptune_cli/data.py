"""`langptune data`: from raw logs to a data set."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from langptune_cli.arguments import Json, options_from
from langptune_rs.config.data import DataConfig, make_config
from langptune_rs.config.embedder import EmbedderConfig
from langptune_rs.config.policy import PolicyConfig

app = typer.Typer(no_args_is_help=True, help="Make data sets of sessions from raw logs.")


class _Prepare(TyperCommand):
    """Lists the sources in its help, which only then imports the table library."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from langptune_rs.data.sources.registry import needed_files

        self.epilog = "\n\n".join(["Sources:", *(f"{name}: {files}" for name, files in needed_files().items())])
        super().format_help(ctx, formatter)


@app.command(cls=_Prepare)
@options_from(
    DataConfig,
    leave_out=("source", "max_sessions", "train_share", "num_targets"),
    template="NAME|FILE",
    rating_scale="LOW-HIGH",
)
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
    embedder: Annotated[
        str, typer.Option(metavar="MODEL", help="The model whose tokens of an item's text count.")
    ] = EmbedderConfig.model_fields["model"].default,
    policy: Annotated[
        str, typer.Option(metavar="MODEL", help="The model whose tokens of a history count.")
    ] = PolicyConfig.model_fields["model"].default,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the data set that is in OUT.")] = False,
    as_json: Json = False,
    **settings: Any,
) -> None:
    """Filter raw logs, cut them into sessions, split these and report what leaks."""
    from langptune_rs.data import prepare as run
    from langptune_rs.data.inspection.summary import summary_text
    from langptune_rs.data.sources.download import download_files
    from langptune_rs.data.sources.files import Files, column_map
    from langptune_rs.models.tokens import token_counters

    config = make_config(source=source, **settings)
    files = Files(path, items, interactions, overview, column_map(column or []))
    if download:
        files = download_files(source, category, files, mirror)
    elif category is not None or mirror is not None:
        raise typer.BadParameter("--category and --mirror say what to --download. Give --download with them.")
    counters = token_counters(embedder, policy) if config.max_item_tokens or config.max_history_tokens else None
    info = run(source, out, config, files=files, counters=counters, overwrite=overwrite).info
    typer.echo(json.dumps(info, ensure_ascii=False) if as_json else summary_text(info, out))


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
