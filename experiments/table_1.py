"""The rows of the paper's table 1 that LangPTune has: no model trained, each of the two alone, and both.

    python experiments/table_1.py runs/table-1 --config quickstart --seeds 0 1 2

Every method and seed is an ordinary run, in `runs/table-1/METHOD-SEED`. Finished runs are kept, and what was
interrupted goes on. A run whose training fails is named at the end, and the others go on. When all are there, they are
compared with MP and EMB-0 in `runs/table-1/compared-SPLIT`, as by `langptune compare`, and the tables are printed. The
test split is read with `--split test` alone. A recipe with `contrastive.history_steps` has them in both methods that
train the embedder, which the paper has not.

With one iteration LangPTune-CL is not trained: the embedder of LangPTune is trained before the policy is, on the same
profiles, so that it is the same to the bit, and LangPTune's evaluation has it with the initial policy's profiles.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langptune_rs.distributed.threads import sleep_while_waiting

sleep_while_waiting(os.environ)

from langptune_rs.config import load_config  # noqa: E402  # after the variables that OpenMP reads
from langptune_rs.distributed.failures import ends_the_process  # noqa: E402
from langptune_rs.errors import LangptuneError, TrainingError  # noqa: E402
from langptune_rs.experiments.compare.compare import compare  # noqa: E402
from langptune_rs.experiments.compare.page import markdown  # noqa: E402
from langptune_rs.experiments.seeds import check_no_seed, check_seeds  # noqa: E402
from langptune_rs.experiments.trained_runs import evaluated, trained  # noqa: E402
from langptune_rs.models.memory import free_memory  # noqa: E402

METHODS = ("LangPTune", "LangPTune-RLSO", "LangPTune-CL")
"""In the order in which they are trained."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--config", default="quickstart", help="a recipe's name, or a .toml file")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other values for its keys")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    options = parser.parse_args()
    check_seeds(options.seeds)
    check_no_seed(options.set)
    config = load_config(options.config, options.set)
    methods = [method for method in METHODS if config.iterations > 1 or method != "LangPTune-CL"]

    def compared(runs: Sequence[Path]) -> dict[str, Any]:
        return compare(
            config.data.source,
            options.output / f"compared-{options.split}",
            methods="MP,EMB-0",
            runs=runs,
            seeds=options.seeds,
            recipe=options.config,
            overrides=options.set,
            split=options.split,
        )

    compared([])  # what cannot be compared is refused before anything is trained
    runs: list[Path] = []
    failed: list[str] = []
    for seed in options.seeds:
        first: Path | None = None
        for method in methods:
            own = [f"method={method}", f"seed={seed}", "evaluation.samples=1"]
            try:
                run = trained(options.output / f"{method}-{seed}", load_config(options.config, [*options.set, *own]))
            except TrainingError as error:
                if ends_the_process(error):
                    raise
                failed.append(f"{method}, seed {seed}, failed: {error}")
                print(failed[-1], file=sys.stderr, flush=True)
                free_memory()
                continue
            runs.append(evaluated(run, options.split, first))
            first = first or run  # whose untrained policy has written for the methods after it
    print("\n\n".join([markdown(compared(runs)), *failed]))


if __name__ == "__main__":
    try:
        main()
    except LangptuneError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("Stopped. The same command goes on.")
