"""Which reward, how many profiles and which objective teach the policy most, by validation alone.

    python experiments/what_teaches.py runs/what-teaches --seeds 0 1 2

The embedder is trained once, by the recipe's steps on histories and on profiles. Then each variant trains the policy
under it, with every seed, from the same number of written profiles. A variant changes one thing of `COMMON`. A profile
without an end loses nothing, since no one penalty weighs the same in rewards of different units. The gain of a variant
is that of LangPTune-RLSO over the initial policy with the same embedder, on the same validation sessions, averaged over
the seeds for each session before it is tested. The test split is not read. Finished runs are kept, and what was
interrupted goes on. The table is printed after each variant.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from try_recipe import SPLIT, evaluated, trained

from langptune_rs.config import load_config
from langptune_rs.experiments.seeds import compare_seeds
from langptune_rs.runs.results import read_results

COMMON: dict[str, object] = {
    "reward": "log_softmax",
    "num_profiles": 6,
    "objective": "rlso",
    "standardize": "session",
    "epochs": 1,
    "overlong_penalty": 0,
    "data.num_targets": 6,
}
"""What every variant has unless it changes it: keys of `rlso`, and others by their whole names."""
VARIANTS: dict[str, dict[str, object]] = {
    "common": {},
    "ndcg": {"reward": "ndcg"},
    "log_rank": {"reward": "log_rank"},
    "ndcg + 0.05 log_softmax": {"reward": "ndcg + 0.05 log_softmax"},
    "2 profiles": {"num_profiles": 2},
    "4 profiles": {"num_profiles": 4},
    "8 profiles": {"num_profiles": 8},
    "rloo": {"objective": "rloo"},
    "grpo": {"objective": "grpo"},
    "dpo": {"objective": "dpo"},
    "batch": {"standardize": "batch"},
    "leave-one-out": {"standardize": "leave-one-out"},
    "2 epochs": {"epochs": 2},
    "1 target": {"data.num_targets": 1},
}
METRICS = ("log_likelihood", "log_rank", "ndcg@20")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--config", default="quickstart", help="a recipe's name, or a .toml file")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other values for its keys")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--profiles", type=int, default=4608, help="written for the updates of each run")
    options = parser.parse_args()
    config, changes = options.config, options.set
    embedder = trained(options.output / "embedder", config, [*changes, "method=LangPTune-CL"]) / "embedder"
    rows = []
    first: dict[int, Path] = {}
    for name in options.variants:
        runs = []
        for seed in options.seeds:
            own = [*overrides(name, options.profiles, config, changes), f"embedder.model={embedder}", f"seed={seed}"]
            run = options.output / f"{name.replace(' ', '-')}-{seed}"
            runs.append(evaluated(trained(run, config, [*changes, *own]), initial_from=first.get(seed)))
            first.setdefault(seed, run)  # whose untrained policy has written for the variants after it
        rows.append(row(name, runs))
        print("\n".join([*header(), *rows]), flush=True)


def overrides(name: str, num_profiles: int, config: str, changes: list[str]) -> list[str]:
    """What a variant sets, with as many steps as write `num_profiles` or a few fewer."""
    values = COMMON | VARIANTS[name]
    keys = {key if "." in key else f"rlso.{key}": value for key, value in values.items()}
    batch_size = load_config(config, changes).rlso.batch_size
    num_rollouts = num_profiles // (batch_size * int(str(values["num_profiles"])))
    keys["rlso.steps"] = num_rollouts * int(str(values["epochs"]))
    fixed = ["method=LangPTune-RLSO", "iterations=1", "evaluation.samples=1", "evaluation.k=20"]
    return [*fixed, *(f"{key}={value}" for key, value in keys.items())]


def header() -> list[str]:
    """The first lines of the table."""
    names = [f"{metric}, {decoding}" for decoding in ("greedy", "sampled") for metric in METRICS]
    columns = ["variant", "minutes of updates and their profiles", *names, "overlong", "repetition"]
    return ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]


def row(name: str, runs: list[Path]) -> str:
    """The gains of a variant over the initial policy with their p, and what its last rollouts look like."""
    gains = {
        (found["decoding"], found["metric"]): f"{found['difference']:+.4f} (p {found['p']:.2g})"
        for found in compare_seeds(runs, SPLIT)["comparisons"]
        if (found["method"], found["other"]) == ("LangPTune-RLSO", "LangPTune-0")
    }
    steps = [[step for step in metrics(run) if step.get("phase") == "rlso"] for run in runs]
    minutes = sum(step["time/seconds"] for of_run in steps for step in of_run) / 60 / len(runs)
    overlong = [read_results(run, SPLIT)["profiles"]["LangPTune-RLSO"]["overlong_rate"] for run in runs]
    repetition = [
        [step["profile/repetition"] for step in of_run if "profile/repetition" in step][-1] for of_run in steps
    ]
    cells = [gains[decoding, metric] for decoding in ("greedy", "sampled") for metric in METRICS]
    last = [f"{sum(values) / len(runs):.0%}" for values in (overlong, repetition)]
    return "| " + " | ".join([name, f"{minutes:.1f}", *cells, *last]) + " |"


def metrics(run: Path) -> list[dict[str, Any]]:
    """The steps that a run has logged."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


if __name__ == "__main__":
    main()
