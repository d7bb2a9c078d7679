"""A whole run: train, compare on the test split, report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from langptune_rs.config import RunConfig, load_config
from langptune_rs.errors import LangptuneError
from langptune_rs.experiments.evaluate import evaluate_run
from langptune_rs.experiments.report import write_report
from langptune_rs.experiments.results import read_results, results_path
from langptune_rs.experiments.tables import print_results
from langptune_rs.training.engines import first_to_say, rank
from langptune_rs.training.joint import started_run, train


def run(config: RunConfig, output: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Train as the recipe says, then evaluate once on the test split, print the table and write the report.

    Every process of a distributed run calls this; only rank 0 evaluates. What is finished is not done again. Raises
    what `started_run` and `train` raise.
    """
    with started_run(config, output, resume=resume, overwrite=overwrite):
        train(output)
        if rank() == 0:
            results = read_results(output) if results_path(output).is_file() else evaluate_run(output)
            print_results(results)
            print(f"Report: {write_report(output)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """What each process of `langptune train --nproc N` runs; also under torchrun."""
    parser = argparse.ArgumentParser(prog="langptune_rs.experiments.run")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args(arguments)
    try:
        run(load_config(options.config), options.output, resume=options.resume, overwrite=options.overwrite)
    except LangptuneError as error:
        if first_to_say(str(error)):
            print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
