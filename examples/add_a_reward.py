"""Train the policy by a reward of your own: python examples/add_a_reward.py.

The steps are those of Algorithm 1: sample, reward, standardise, loss, step. `reward` stands where a recipe names a
built-in one in `rlso.reward`. The sizes are tiny: little is learned. Arguments override the recipe (rlso.steps=8).
"""

import sys
from tempfile import TemporaryDirectory

import numpy as np
import torch

from langptune_rs.config import RunConfig, load_config
from langptune_rs.data import Catalog, Dataset, Sessions, open_source
from langptune_rs.distributed.start import start_distributed
from langptune_rs.recommending.recommender import Recommender
from langptune_rs.rollout.copying import copied_shares
from langptune_rs.rollout.reward import standardize
from langptune_rs.rollout.writer import ProfileWriter
from langptune_rs.seeds import derive_seed
from langptune_rs.training.models import Models
from langptune_rs.training.policy_step import policy_step
from langptune_rs.training.rollout_batches import pack_rollout

OVERRIDES = ("method=LangPTune-RLSO", "data.max_item_tokens=none", "data.max_history_tokens=none")
SMALL = ("profile.max_tokens=16", "rlso.batch_size=4", "rlso.num_profiles=2", "rlso.steps=4", "rlso.epochs=2")


def reward(ranks: np.ndarray, texts: list[str], sessions: Sessions, catalog: Catalog) -> np.ndarray:
    """Your reward: minus the log of the rank of the target, less the share of words copied from the titles."""
    return -np.log(ranks) - copied_shares(texts, sessions, catalog)


def train(config: RunConfig, data: Dataset) -> None:
    """Prints each step. All rollouts are of the same sessions, so that their rewards can be compared."""
    rlso, models = config.rlso, Models(config)
    policy, engine = models.policy, models.engines["policy"]
    writer = ProfileWriter(policy, data, config.profile)
    recommender = Recommender.of_catalog(models.embedder, data.catalog)
    sessions = data.sessions.select("train").sample(rlso.batch_size, config.seed)
    prompts = writer.prompts(sessions)
    for t in range(0, rlso.steps, rlso.epochs):
        seeds = [derive_seed(config.seed, t, int(session)) for session in sessions.session_ids]
        profiles = writer.write(prompts, num_samples=rlso.num_profiles, seeds=seeds, keep_states=True)
        ranks = recommender.ranks(profiles.texts, sessions.targets, sessions.histories).ravel()
        rewards = torch.from_numpy(reward(ranks, profiles.texts, sessions, data.catalog))
        rewards_BG = standardize(rewards).view(-1, rlso.num_profiles).to(policy.model.device)
        batches, logps_BG = pack_rollout(policy, prompts, profiles, rlso.num_profiles, rlso.micro_batch_tokens), None
        for step in range(t, t + rlso.epochs):
            logps_BG, values = policy_step(engine, batches, rewards_BG, logps_BG, rlso, rlso.learning_rate)
            print(f"step {step + 1}: reward {rewards.mean():.3f}, loss {values['rlso/loss']:.4f}")


if __name__ == "__main__":
    start_distributed()
    recipe = load_config("quickstart", [*OVERRIDES, *SMALL, *sys.argv[1:]])
    with TemporaryDirectory() as folder:
        train(recipe, open_source(recipe.data, f"{folder}/data"))
