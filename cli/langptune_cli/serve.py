"""`langptune serve`: a run behind an HTTP API, and the page on which people edit their profile."""

from typing import Annotated

import typer

from langptune_cli.arguments import Run
from langptune_rs.errors import ConfigError


def serve(
    run: Run,
    host: Annotated[str, typer.Option(help="The address. One that others reach needs --token-env.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 for a free one.")] = 8000,
    token_env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The environment variable with the token that callers must show."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where edited profiles are kept: sqlite:////PATH or postgresql+psycopg://USER@HOST/DATABASE; a file "
            "in RUN by default.",
        ),
    ] = None,
) -> None:
    """Serve a finished run: profiles, recommendations, explanations, edits and their versions. SIGHUP loads it anew."""
    try:
        from langptune_rs.serving.server import serve as serve_run
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"Serving needs {error.name}, which is not installed: `pip install 'langptune-rs[serve]'` brings it."
        ) from error
    serve_run(run, host=host, port=port, token_env=token_env, store=store)
