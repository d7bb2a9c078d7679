"""`langptune config`: look at recipes."""

import json
from typing import Annotated

import typer

from langptune_cli.arguments import Json, Overrides
from langptune_rs.config import DEFAULT_RECIPE, list_recipes, load_config, to_toml

app = typer.Typer(no_args_is_help=True, help="Show recipes and every key they may set.")


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the recipes that come with the package."""
    recipes = list_recipes()
    if as_json:
        typer.echo(json.dumps(recipes))
        return
    width = max(map(len, recipes))
    for name, summary in recipes.items():
        typer.echo(f"{name:<{width}}  {summary}")


@app.command()
def show(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or a .toml file.")] = DEFAULT_RECIPE,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Show the whole configuration of a recipe, as TOML: its own keys and the defaults of all others."""
    config = load_config(recipe, overrides or ())
    typer.echo(config.model_dump_json() if as_json else to_toml(config), nl=as_json)
