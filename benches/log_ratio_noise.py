"""How exactly log-ratios are computed in each precision, beside what a step changes them by.

    python benches/log_ratio_noise.py --source FOLDER

The policy is in bfloat16 and writes one rollout batch. Then each precision of the trained part scores and trains on the
same profiles, from the same states and rewards. The columns, in nats:

- error: standard deviation of a profile's log-probability from the one in float64 (norms in float32, by transformers);
- pair error: the same for the difference of two profiles of a session, as root mean square over pairs;
- noise: what moves such a difference when 1 of 2,000 trained weights moves by its last place (`rlso/log_ratio_noise`);
- step: what the first optimizer step moves it by.

The losses are those of `--updates` steps over the rollout batch; Eq. 6 lets them fall where log-ratios are exact.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import torch
from peers.rlso_ours import write
from peers.rlso_work import Settings, Work
from torch import Tensor

from langptune_rs.config.engine import EngineConfig
from langptune_rs.config.policy import PolicyConfig
from langptune_rs.config.rlso import RlsoConfig
from langptune_rs.distributed.start import start_distributed
from langptune_rs.models.memory import keep_freed_memory
from langptune_rs.models.policy import Policy
from langptune_rs.models.precision import COMPUTE_DTYPES
from langptune_rs.rollout.reward import recommender_reward, standardize
from langptune_rs.rollout.sampling import Profiles
from langptune_rs.training.engines import make_engine
from langptune_rs.training.log_ratios import LogRatioCheck, pair_spread
from langptune_rs.training.policy_step import policy_step
from langptune_rs.training.rollout_batches import RolloutBatch, pack_rollout
from langptune_rs.training.scorer import ProfileScorer, score

MICRO_BATCH_TOKENS = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="ml-100k", help="logs as `langptune data prepare jsonl` reads them")
    parser.add_argument("--sessions", type=int, default=32)
    parser.add_argument("--profiles", type=int, default=2)
    parser.add_argument("--max-tokens", type=int, default=40)
    parser.add_argument("--train", choices=("last-layers", "lora"), default="last-layers")
    parser.add_argument("--last-layers", type=int, default=6)
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[1e-6, 1e-5])
    parser.add_argument("--updates", type=int, default=8)
    parser.add_argument("--json", action="store_true", help="print only the numbers, as JSON")
    options = parser.parse_args()
    keep_freed_memory()
    start_distributed()
    config = PolicyConfig(train=options.train, last_layers=options.last_layers)
    settings = Settings(options.source, options.sessions, options.profiles, options.max_tokens, options.last_layers, 1)
    exact = Policy.load(config, torch.bfloat16, torch.float64)
    work = Work(settings, exact)
    profiles = write(exact, work, settings)
    raw = recommender_reward(work.ranks(profiles.texts), profiles.finished, metric="ndcg", overlong_reward=0.0)
    rewards_BG = standardize(torch.from_numpy(raw).view(-1, options.profiles))
    exact_BG = score(ProfileScorer(exact), packed(exact, work, profiles, options.profiles))
    rows = []
    for precision in COMPUTE_DTYPES:
        for learning_rate in options.learning_rates:
            print(f"running: {precision} at {learning_rate}", file=sys.stderr)
            policy = Policy.load(config, torch.bfloat16, COMPUTE_DTYPES[precision])
            batches = packed(policy, work, profiles, options.profiles)
            row = measured(policy, batches, rewards_BG, exact_BG, precision, learning_rate, options.updates)
            rows.append({"precision": precision, "learning rate": learning_rate, **row})
    print(json.dumps(rows, indent=2) if options.json else table(rows))


def packed(policy: Policy, work: Work, profiles: Profiles, num_profiles: int) -> list[RolloutBatch]:
    """The rollout batch in the precision of this policy."""
    return pack_rollout(policy, work.prompts, profiles, num_profiles, MICRO_BATCH_TOKENS)


def measured(
    policy: Policy,
    batches: list[RolloutBatch],
    rewards_BG: Tensor,
    exact_BG: Tensor,
    precision: str,
    learning_rate: float,
    num_updates: int,
) -> dict[str, Any]:
    """One row of the table."""
    scorer = ProfileScorer(policy)
    error_BG = score(scorer, batches) - exact_BG
    engine = make_engine(scorer, learning_rate, 0.0, EngineConfig(), precision)
    config = RlsoConfig(batch_size=len(rewards_BG), num_profiles=rewards_BG.shape[1])
    check = LogRatioCheck(scorer, batches[0], 0)
    losses: list[float] = []
    old_BG, seconds = None, []
    step = 0.0
    for update in range(num_updates):
        started = time.perf_counter()
        old_BG, values = policy_step(engine, batches, rewards_BG, old_BG, config, learning_rate)
        seconds.append(time.perf_counter() - started)
        losses.append(values["rlso/loss"])
        if update == 0:
            step = check.metrics()["rlso/log_ratio_step"]
    return {
        "error": error_BG.std().item(),
        "pair error": pair_spread(error_BG),
        "noise": check.noise,
        "step": step,
        "seconds": sorted(seconds)[len(seconds) // 2],
        "losses": losses,
    }


def table(rows: list[dict[str, Any]]) -> str:
    columns = ("precision", "learning rate", "error", "pair error", "noise", "step", "seconds", "losses")
    lines = ["| " + " | ".join(columns) + " |", "|---" * 2 + "|---:" * 5 + "|---|"]
    for row in rows:
        numbers = " | ".join(f"{row[column]:.2g}" for column in columns[2:6])
        losses = ", ".join(f"{loss:.2f}" for loss in row["losses"])
        lines.append(f"| {row['precision']} | {row['learning rate']:g} | {numbers} | {row['seconds']:.1f} | {losses} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
