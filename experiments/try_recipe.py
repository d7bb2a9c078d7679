"""Train a recipe and compare its models on validation sessions alone, to choose its keys.

    python experiments/try_recipe.py runs/mine --config quickstart --set rlso.num_profiles=6 rlso.learning_rate=6e-5

`langptune train` would read the test split at its end. What was interrupted goes on.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from langptune_rs.distributed.threads import sleep_while_waiting

sleep_while_waiting(os.environ)

from langptune_rs.config import load_config  # noqa: E402  # after the variables that OpenMP reads
from langptune_rs.experiments.evaluate import evaluate_run  # noqa: E402
from langptune_rs.experiments.report.tables import seeds_markdown  # noqa: E402
from langptune_rs.experiments.seeds import compare_seeds  # noqa: E402
from langptune_rs.runs.results import results_path  # noqa: E402
from langptune_rs.training.start import started_run, train  # noqa: E402

SPLIT = "validation"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--config", default="quickstart", help="a recipe's name, or a .toml file")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other values for its keys")
    options = parser.parse_args()
    run = evaluated(trained(options.run, options.config, options.set))
    print(seeds_markdown(compare_seeds([run], SPLIT)))


def trained(run: Path, config: str, changes: Sequence[str]) -> Path:
    """The folder of a run that is trained as far as it was not yet."""
    with started_run(load_config(config, changes), run, resume=(run / "config.toml").is_file()):
        train(run)
    return run


def evaluated(run: Path, split: str = SPLIT, initial_from: Path | None = None) -> Path:
    """The folder of a run with its results on a split, which are made if they are not there.

    The untrained policy's profiles are those of the run `initial_from`, if there is one.
    """
    if not results_path(run, split).is_file():
        evaluate_run(run, split=split, initial_from=initial_from)
    return run


if __name__ == "__main__":
    main()
