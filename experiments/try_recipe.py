"""Train a recipe and compare its models on validation sessions alone, to choose its keys.

    python experiments/try_recipe.py runs/mine --config quickstart --set rlso.num_profiles=6 rlso.learning_rate=6e-5

`langptune train` would read the test split at its end. What was interrupted goes on.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from langptune_rs.distributed.threads import sleep_while_waiting

sleep_while_waiting(os.environ)

from langptune_rs.config import load_config  # noqa: E402  # after the variables that OpenMP reads
from langptune_rs.errors import LangptuneError  # noqa: E402
from langptune_rs.experiments.report.tables import seeds_markdown  # noqa: E402
from langptune_rs.experiments.seeds import compare_seeds  # noqa: E402
from langptune_rs.experiments.trained_runs import evaluated, trained  # noqa: E402
from langptune_rs.training.interruption import Stopped  # noqa: E402

SPLIT = "validation"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--config", default="quickstart", help="a recipe's name, or a .toml file")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other values for its keys")
    options = parser.parse_args()
    run = evaluated(trained(options.run, load_config(options.config, options.set)), SPLIT)
    print(seeds_markdown(compare_seeds([run], SPLIT)))


if __name__ == "__main__":
    try:
        main()
    except Stopped:
        sys.exit("Stopped, with a checkpoint. The same command goes on.")
    except LangptuneError as error:
        sys.exit(f"error: {error}")
