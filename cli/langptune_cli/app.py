"""The `langptune` command: its parts, and how errors reach the user."""

import errno
import os
import traceback
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from langptune_cli import (
    ablate,
    compare,
    config,
    data,
    describe,
    evaluate,
    explain,
    gains,
    plan,
    profile,
    profiles,
    recommend,
    report,
    serve,
    steer,
    train,
)
from langptune_rs.distributed.group import end_process
from langptune_rs.distributed.threads import sleep_while_waiting
from langptune_rs.errors import LangptuneError

USER_MENDS = (
    *(errno.EACCES, errno.EDQUOT, errno.ENOSPC, errno.EROFS),
    *(errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR),
)
"""Errors of a file system that the user can mend."""
GOES_ON = {
    "train": "The same command with --resume goes on.",
    **dict.fromkeys(
        ("ablate", "compare", "describe", "profiles"), "What is finished is kept; the same command goes on."
    ),
}
"""What is said after Ctrl-C of commands that can go on."""
STOPPED = 130
"""The exit code after Ctrl-C, as shells have it."""


class _Commands(TyperGroup):
    """Prints an error that the user can mend as one line on stderr and ends with exit code 2."""

    def invoke(self, ctx: Any) -> object:
        try:
            return super().invoke(ctx)
        except LangptuneError as error:
            _fail(str(error))
        except OSError as error:
            if error.errno not in USER_MENDS:
                raise
            _fail(f"{error.filename or 'A file'} cannot be written or read: {error.strerror}.")
        except KeyboardInterrupt:
            typer.echo(f"\nStopped. {GOES_ON.get(ctx.invoked_subcommand, '')}".rstrip(), err=True)
            raise typer.Exit(STOPPED) from None


def _fail(message: str) -> NoReturn:
    typer.secho(f"error: {message}", fg="red", err=True)
    raise typer.Exit(2)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Write user profiles in plain language, rank a catalog by them, and train both models that do it.",
)
app.add_typer(data.app, name="data")
app.command("train")(train.train)
app.command("plan")(plan.plan)
app.command("evaluate")(evaluate.evaluate)
app.command("profile")(profile.profile)
app.command("profiles")(profiles.profiles)
app.command("recommend")(recommend.recommend)
app.command("explain")(explain.explain)
app.command("steer")(steer.steer)
app.command("report")(report.report)
app.command("serve")(serve.serve)
app.command("gains")(gains.gains)
app.command("compare")(compare.compare)
app.command("ablate")(ablate.ablate)
app.command("describe")(describe.describe)
app.add_typer(config.app, name="config")


def _print_version(wanted: bool) -> None:
    if wanted:
        import langptune_rs

        typer.echo(f"langptune {langptune_rs.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """The entry point of the command."""
    sleep_while_waiting(os.environ)
    try:
        app(prog_name="langptune")
    except SystemExit as ended:
        end_process(ended.code if isinstance(ended.code, int) else int(ended.code is not None))
    except Exception:
        traceback.print_exc()
        end_process(1)
