"""A whole run: train, compare on the test split, report."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from langptune_rs.config import RunConfig, load_config
from langptune_rs.distributed.collectives import first_rank_sees, first_to_say, group_store, rank, world_size
from langptune_rs.distributed.failures import EVALUATING, LostContact, explained
from langptune_rs.distributed.group import end_process
from langptune_rs.distributed.lifeline import INTERRUPTED, TOLD_THE_USER, end_with_parent, interrupt_when, lifeline
from langptune_rs.distributed.start import start_distributed
from langptune_rs.errors import LangptuneError
from langptune_rs.experiments.evaluate import evaluate_run
from langptune_rs.experiments.report.report import write_report
from langptune_rs.experiments.report.tables import print_results
from langptune_rs.runs.results import read_results, results_path
from langptune_rs.training.interruption import Stopped
from langptune_rs.training.start import started_run, train

SECONDS_TO_HEAR = 10.0
"""How long a process that lost the others waits to hear which of them failed."""


def run(config: RunConfig, output: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Train as the recipe says, then evaluate once on the test split, print the table and write the report.

    Every process of a distributed run calls this. Finished work is not done again. Raises what `started_run` and
    `train` raise.
    """
    with started_run(config, output, resume=resume, overwrite=overwrite):
        train(output)
        with explained(EVALUATING, config):
            if not first_rank_sees(results_path(output)):
                evaluate_run(output)
        if rank() == 0:
            print_results(read_results(output))
            print(f"Report: {write_report(output)}")


def run_rank(config: RunConfig, output: Path, *, resume: bool = False, overwrite: bool = False) -> int:
    """`run` as one process of several; returns its exit code.

    The process ends within seconds when another has failed, whatever it is doing. Exit codes are 0: done; 1: an
    unexpected error, with a traceback; 2: an error that the user can mend, printed by one of the processes; 3: another
    process has failed; 130: Ctrl-C or SIGTERM.
    """
    try:
        with ExitStack() as held:
            return _run_in_group(held, config, output, resume=resume, overwrite=overwrite)
    except KeyboardInterrupt:
        return INTERRUPTED


def _run_in_group(held: ExitStack, config: RunConfig, output: Path, *, resume: bool, overwrite: bool) -> int:
    try:
        start_distributed()
        line = held.enter_context(lifeline(rank(), world_size(), group_store(), os.environ["MASTER_ADDR"]))
    except LangptuneError as error:
        print(f"error: {error}", file=sys.stderr)
        return TOLD_THE_USER
    try:
        run(config, output, resume=resume, overwrite=overwrite)
    except Stopped:
        return INTERRUPTED
    except Exception as error:
        if line and isinstance(error, LostContact):
            line.await_failure(SECONDS_TO_HEAR)
        said = isinstance(error, LangptuneError)
        if line:
            line.fail(f"{type(error).__name__}: {error}", said=said)
        if not said:
            traceback.print_exc()
        elif first_to_say(str(error)):
            print(f"error: {error}", file=sys.stderr)
        return TOLD_THE_USER if said else 1
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point of each process of `langptune train --nproc N` and of those that DeepSpeed's launcher starts."""
    parser = argparse.ArgumentParser(prog="langptune_rs.experiments.run")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--interrupt", type=Path, help="the file that presses Ctrl-C once it is there")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args(arguments)
    end_with_parent()
    try:
        if options.interrupt:
            interrupt_when(options.interrupt)
        config = load_config(options.config)
    except LangptuneError as error:
        print(f"error: {error}", file=sys.stderr)
        return TOLD_THE_USER
    except KeyboardInterrupt:
        return INTERRUPTED
    return run_rank(config, options.output, resume=options.resume, overwrite=options.overwrite)


if __name__ == "__main__":
    end_process(main())
