"""The rows of the paper's table 1 that LangPTune has: no model trained, each of the two alone, and both.

    python experiments/table_1.py runs/table-1 --config quickstart --seeds 0 1 2

Every method and seed is an ordinary run, in `runs/table-1/METHOD-SEED`. A session's scores are averaged over the seeds
before they are tested, see `langptune gains`. Finished runs are kept, and what was interrupted goes on. The table is
printed after each seed. The test split is read with `--split test` alone. A recipe with `contrastive.history_steps`
has them in both methods that train the embedder, which the paper has not.

With one iteration LangPTune-CL is not trained: the embedder of LangPTune is trained before the policy is, on the same
profiles, so that it is the same to the bit, and LangPTune's evaluation has it with the initial policy's profiles.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from langptune_rs.distributed.threads import sleep_while_waiting

sleep_while_waiting(os.environ)

import numpy as np  # noqa: E402  # after the variables that OpenMP reads
from numpy.typing import NDArray  # noqa: E402

from langptune_rs.baselines.method import Decoding  # noqa: E402
from langptune_rs.config import load_config  # noqa: E402
from langptune_rs.evaluation.summary import compare_sessions, with_holm  # noqa: E402
from langptune_rs.evaluation.tables import markdown_table  # noqa: E402
from langptune_rs.experiments.comparisons import scores_of  # noqa: E402
from langptune_rs.experiments.report.tables import comparisons_markdown, label  # noqa: E402
from langptune_rs.experiments.seeds import average_seeds  # noqa: E402
from langptune_rs.experiments.trained_runs import evaluated, trained  # noqa: E402
from langptune_rs.runs.results import PARTS  # noqa: E402
from langptune_rs.training.interruption import Stopped  # noqa: E402

METHODS = ("LangPTune", "LangPTune-RLSO", "LangPTune-CL")
"""In the order in which they are trained."""
SIMPLE = ("MP", "EMB-0")
TRAINED = ("LangPTune-CL", "LangPTune-RLSO", "LangPTune")
ROWS = (*SIMPLE, "LangPTune-0", *TRAINED)
PAIRS = (
    *((method, "LangPTune-0") for method in TRAINED),
    ("LangPTune", "LangPTune-CL"),
    ("LangPTune", "LangPTune-RLSO"),
    *(("LangPTune", simple) for simple in SIMPLE),
)
"""The orderings of table 1, and two methods that write no profiles."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--config", default="quickstart", help="a recipe's name, or a .toml file")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other values for its keys")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    options = parser.parse_args()
    config = load_config(options.config, options.set)
    methods = [method for method in METHODS if config.iterations > 1 or method != "LangPTune-CL"]
    done: dict[str, list[Path]] = {}
    for seed in options.seeds:
        first: Path | None = None
        for method in methods:
            own = [f"method={method}", f"seed={seed}", "evaluation.samples=1"]
            run = trained(options.output / f"{method}-{seed}", load_config(options.config, [*options.set, *own]))
            done.setdefault(method, []).append(evaluated(run, options.split, first))
            first = first or run  # whose untrained policy has written for the methods after it
        print(table(done, options.split), flush=True)


def table(runs: Mapping[str, Sequence[Path]], split: str) -> str:
    """The means of all methods with runs, and the differences of all pairs, in Markdown."""
    of_method = {method: average_seeds(of_seeds, split) for method, of_seeds in runs.items()}
    sessions = [sessions for sessions, _ in of_method.values()]
    assert all(sessions[0].equals(others) for others in sessions), "one data.seed draws the sessions of a split"
    users = sessions[0]["user_id"].to_list()
    metrics = list(of_method["LangPTune"][1]["methods"]["LangPTune-0"])
    means: list[list[str]] = []
    rows = []
    for decoding in get_args(Decoding):
        scores: dict[str, Mapping[str, NDArray[np.float64]]] = {}
        for _, tables in of_method.values():
            scores = {**scores_of(tables, decoding), **scores}
        if "LangPTune-CL" not in runs:
            scores["LangPTune-CL"] = scores[PARTS["contrastive"]]
        shown = [name for name in ROWS if name in scores and (decoding == "greedy" or name not in SIMPLE)]
        means += [[name, decoding, *(_mean(scores[name].get(metric)) for metric in metrics)] for name in shown]
        pairs = [pair for pair in PAIRS if set(pair) <= set(scores)]
        rows += [{**row, "decoding": decoding} for row in with_holm(compare_sessions(scores, pairs, users))]
    head = ("method", "profiles", *map(label, metrics))
    note = f"p (Holm): corrected over the pairs of one decoding and metric. {len(users)} {split} sessions."
    return f"{markdown_table(head, means)}\n\n{comparisons_markdown(rows)}\n\n{note}\n"


def _mean(scores: NDArray[np.float64] | None) -> str:
    return "–" if scores is None else f"{scores.mean():.4f}"


if __name__ == "__main__":
    try:
        main()
    except Stopped:
        sys.exit("Stopped, with a checkpoint. The same command goes on.")
