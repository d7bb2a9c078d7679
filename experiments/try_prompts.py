"""How long the untrained policy's profiles are, and what they tell, with other words at the end of the prompt.

    python experiments/try_prompts.py "In one sentence, what does this user like?" "Describe this user's taste." \\
        --set embedder.model=runs/mine/embedder

A profile of more tokens than `profile.max_tokens` would have no end. For each validation session the policy writes one
greedy profile and two sampled ones at each temperature. The embedder of the recipe reads them: the log-likelihood of
the next item, at `rlso.reward_temperature`, and NDCG@20 say how much of the user a profile keeps.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from langptune_rs.distributed.threads import sleep_while_waiting

sleep_while_waiting(os.environ)

import numpy as np  # noqa: E402  # after the variables that OpenMP reads

from langptune_rs import evaluate  # noqa: E402
from langptune_rs.config import load_config  # noqa: E402
from langptune_rs.data import open_source  # noqa: E402
from langptune_rs.errors import InputError, LangptuneError  # noqa: E402
from langptune_rs.models.embedder import Embedder  # noqa: E402
from langptune_rs.models.policy import Policy  # noqa: E402
from langptune_rs.models.precision import COMPUTE_DTYPES  # noqa: E402
from langptune_rs.models.tokens import token_counters  # noqa: E402
from langptune_rs.recommending.recommender import Recommender  # noqa: E402
from langptune_rs.rollout.copying import copied_shares  # noqa: E402
from langptune_rs.rollout.sampling import write_profiles  # noqa: E402
from langptune_rs.rollout.writer import ProfileWriter  # noqa: E402

COLUMNS = ("closing", "temperature", "tokens", "95% have at most", "over", "log-likelihood", "NDCG@20", "copied")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("closings", nargs="+", help="the words of profile.closing")
    parser.add_argument("--config", default="quickstart", help="a recipe's name, or a .toml file")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other values for its keys")
    parser.add_argument("--data", type=Path, default=Path("runs/prompts-data"), help="where the data is prepared")
    parser.add_argument("--sessions", type=int, default=48)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.7], help="of the sampled profiles")
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--over", type=int, default=48, help="tokens of the limit whose share is shown")
    parser.add_argument("--show", type=int, default=0, help="so many greedy profiles are printed, each with a sample")
    options = parser.parse_args()
    if min(options.temperatures) <= 0:
        raise InputError(
            f"--temperatures has {min(options.temperatures):g}: samples are drawn at temperatures above 0, and each "
            "session has a greedy profile too"
        )
    config = load_config(options.config, options.set)
    data = open_source(config.data, options.data, token_counters(config.embedder.model, config.policy.model))
    sessions = data.sessions.select("validation").sample(options.sessions, 1)
    dtype = COMPUTE_DTYPES[config.engine.precision]
    policy = Policy.load(config.policy, dtype)
    recommender = Recommender.of_catalog(Embedder.load(config.embedder, dtype), data.catalog)
    temperatures = [0.0, *(temperature for temperature in options.temperatures for _ in range(2))]
    heads = [f"over {options.over}" if column == "over" else column for column in COLUMNS]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|", flush=True)
    for closing in options.closings:
        writing = config.profile.model_copy(update={"closing": closing, "max_tokens": options.max_tokens})
        profiles = write_profiles(
            policy,
            ProfileWriter(policy, data, writing).prompts(sessions),
            max_tokens=writing.max_tokens,
            temperatures=temperatures,
            seeds=range(len(sessions)),
            token_budget=writing.token_budget,
        )
        ranks, log_probs = recommender.score_targets(
            profiles.texts, sessions.targets, sessions.histories, temperature=config.rlso.reward_temperature
        )
        copied = copied_shares(profiles.texts, sessions, data.catalog).reshape(len(sessions), -1)
        lengths = np.array([len(tokens) for tokens in profiles.tokens]).reshape(copied.shape)
        for temperature in [0.0, *options.temperatures]:
            at = np.equal(temperatures, temperature)
            ndcg = evaluate(np.asarray(ranks.values).reshape(copied.shape)[:, at].ravel(), ["ndcg@20"]).mean["ndcg@20"]
            cells = [
                closing,
                f"{temperature:g}" if temperature else "greedy",
                f"{lengths[:, at].mean():.0f}",
                f"{np.quantile(lengths[:, at], 0.95):.0f}",
                f"{(lengths[:, at] > options.over).mean():.0%}",
                f"{np.asarray(log_probs.values).reshape(copied.shape)[:, at].mean():.2f}",
                f"{ndcg:.4f}",
                f"{copied[:, at].mean():.0%}",
            ]
            print("| " + " | ".join(cells) + " |", flush=True)
        for session in range(options.show):
            for text in profiles.texts[session * len(temperatures) :][:2]:
                print("    " + " ".join(text.split()))


if __name__ == "__main__":
    try:
        main()
    except LangptuneError as error:
        sys.exit(f"error: {error}")
