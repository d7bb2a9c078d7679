"""How long the untrained policy's profiles are with other words at the end of the prompt, on validation sessions.

    python experiments/try_prompts.py "In one sentence, what does this user like?" "Describe this user's taste."

A profile of more tokens than `profile.max_tokens` would have no end. One greedy profile and two sampled at the recipe's
temperature are written for each session.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from langptune_rs.distributed.threads import sleep_while_waiting

sleep_while_waiting(os.environ)

import numpy as np  # noqa: E402  # after the variables that OpenMP reads

from langptune_rs.config import load_config  # noqa: E402
from langptune_rs.data import open_source  # noqa: E402
from langptune_rs.models.policy import Policy  # noqa: E402
from langptune_rs.models.precision import COMPUTE_DTYPES  # noqa: E402
from langptune_rs.models.tokens import token_counters  # noqa: E402
from langptune_rs.rollout.sampling import write_profiles  # noqa: E402
from langptune_rs.rollout.writer import ProfileWriter  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("closings", nargs="+", help="the words of profile.closing")
    parser.add_argument("--config", default="quickstart", help="a recipe's name, or a .toml file")
    parser.add_argument("--data", type=Path, default=Path("runs/prompts-data"), help="where the data is prepared")
    parser.add_argument("--sessions", type=int, default=48)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--over", type=int, default=48)
    options = parser.parse_args()
    config = load_config(options.config)
    data = open_source(config.data, options.data, token_counters(config.embedder.model, config.policy.model))
    sessions = data.sessions.select("validation").sample(options.sessions, 1)
    policy = Policy.load(config.policy, COMPUTE_DTYPES[config.engine.precision])
    over = f"over {options.over} tokens"
    print(f"| closing | tokens, greedy | sampled | {over}, greedy | sampled |\n|---|---:|---:|---:|---:|")
    for closing in options.closings:
        writing = config.profile.model_copy(update={"closing": closing, "max_tokens": options.max_tokens})
        profiles = write_profiles(
            policy,
            ProfileWriter(policy, data, writing).prompts(sessions),
            max_tokens=writing.max_tokens,
            temperatures=[0.0, writing.temperature, writing.temperature],
            seeds=range(len(sessions)),
            token_budget=writing.token_budget,
        )
        lengths = np.array([len(tokens) for tokens in profiles.tokens]).reshape(-1, 3)
        columns = lengths[:, 0], lengths[:, 1:]
        means = [f"{column.mean():.0f}" for column in columns]
        shares = [f"{(column > options.over).mean():.0%}" for column in columns]
        print("| " + " | ".join([closing, *means, *shares]) + " |", flush=True)


if __name__ == "__main__":
    main()
