"""Try a loss of your own in place of RLSO's: python examples/add_an_objective.py.

An objective is a pure function of rewards and log-probabilities. So it can be tried without a language model: the
policy here chooses among four profiles for each of eight sessions, and the rewards are given. CONTRIBUTING.md shows
where the file goes once it is good.
"""

import torch
from torch import Tensor

from langptune_rs.config.rlso import RlsoConfig
from langptune_rs.training.objectives import Objective, ScoredProfiles, find_objective

NUM_SESSIONS, NUM_PROFILES, NUM_STEPS = 8, 4, 200


def loss(profiles: ScoredProfiles, config: RlsoConfig) -> Tensor:
    """Your objective: a profile should be as much likelier than its session's mean as its reward is higher.

    Its minimum is that of Eq. 6, but errors count once, not squared.
    """
    ratios_BG = (profiles.logps_BG - profiles.old_logps_BG) / config.eta
    targets_BG = profiles.rewards_BG - profiles.rewards_BG.mean(1, keepdim=True)
    return (targets_BG - ratios_BG + ratios_BG.mean(1, keepdim=True)).abs().mean(1)


def train(objective: Objective, rewards_BG: Tensor, config: RlsoConfig) -> Tensor:
    """The policy's probabilities of all profiles after some steps with an objective."""
    logits_BG = torch.zeros(NUM_SESSIONS, NUM_PROFILES, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits_BG], lr=0.05)
    old_logps_BG = logits_BG.log_softmax(1).detach()
    for _ in range(NUM_STEPS):
        optimizer.zero_grad()
        profiles = ScoredProfiles(rewards_BG, logits_BG.log_softmax(1), old_logps_BG)
        objective(profiles, config).mean().backward()
        optimizer.step()
    return logits_BG.detach().softmax(1)


def main() -> None:
    """Prints the expected reward before and after training with each objective."""
    config = RlsoConfig(eta=0.5)
    generator = torch.Generator().manual_seed(0)
    rewards_BG = torch.randn(NUM_SESSIONS, NUM_PROFILES, dtype=torch.float64, generator=generator)
    print(f"{'before':<8}{rewards_BG.mean():.3f}")
    for name, objective in {"rlso": find_objective("rlso"), "yours": loss}.items():
        expected = (train(objective, rewards_BG, config) * rewards_BG).sum(1).mean()
        print(f"{name:<8}{expected:.3f}")


if __name__ == "__main__":
    main()
