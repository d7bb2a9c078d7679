"""`langptune report`: the report of a run, one page that opens offline."""

import json

import typer

from langptune_cli.arguments import Json, Run


def report(run: Run, as_json: Json = False) -> None:
    """Write report.html into the run: learning curves, methods, profiles before and after, configuration."""
    from langptune_rs.experiments.report.report import write_report

    path = write_report(run)
    typer.echo(json.dumps({"report": str(path)}) if as_json else path)
