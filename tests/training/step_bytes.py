"""Prints how much memory two updates of SmolLM2 take beyond the weights: the growth of this process at its peak, bytes.

Takes the tokens of each prompt, then overrides of the quickstart recipe such as rlso.batch_size=6.
"""

import gc
import sys
from pathlib import Path

import numpy as np
import torch

from langptune_rs import models
from langptune_rs.config import load_config
from langptune_rs.distributed.group import end_process
from langptune_rs.distributed.start import start_distributed
from langptune_rs.models.memory import trim_freed_memory
from langptune_rs.models.policy import Policy
from langptune_rs.models.precision import COMPUTE_DTYPES
from langptune_rs.rollout.sampling import Profiles, States
from langptune_rs.training.engines import make_engine
from langptune_rs.training.policy_step import policy_step
from langptune_rs.training.rollout_batches import pack_rollout
from langptune_rs.training.scorer import ProfileScorer, score


def memory(line: str) -> int:
    """A line of this process's status, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(text.split()[1]) for text in lines if text.startswith(line))


def random_profiles(policy: Policy, prompts: list[list[int]], num_profiles: int, num_tokens: int) -> Profiles:
    """Profiles of as many tokens as there may be, with random states, which take no time to write."""

    def states(lengths: list[int]) -> list[torch.Tensor]:
        return [torch.randn(length, policy.model.config.hidden_size).to(policy.dtype) for length in lengths]

    tokens = np.random.default_rng(1).integers(100, 40000, (len(prompts) * num_profiles, num_tokens)).tolist()
    at_cut = States(states([len(prompt) for prompt in prompts]), states([num_tokens - 1] * len(tokens)))
    return Profiles(tokens, [""] * len(tokens), np.ones(len(tokens), dtype=bool), at_cut)


def main(prompt_tokens: int, overrides: list[str]) -> None:
    config = load_config("quickstart", overrides)
    num_sessions, num_profiles = config.rlso.batch_size, config.rlso.num_profiles
    start_distributed()
    models.policy.make_lean = lambda layer: None  # the plan is of GPUs, where layers are transformers' own
    dtypes = COMPUTE_DTYPES[config.engine.precision], COMPUTE_DTYPES[config.rlso.precision]
    policy = Policy.load(config.policy, *dtypes)
    random = np.random.default_rng(0)
    prompts = random.integers(100, 40000, (num_sessions, prompt_tokens)).tolist()
    profiles = random_profiles(policy, prompts, num_profiles, config.profile.max_tokens)
    batches = pack_rollout(policy, prompts, profiles, num_profiles, config.rlso.micro_batch_tokens)
    scorer = ProfileScorer(policy, checkpointing=config.rlso.gradient_checkpointing)
    score(scorer, batches[:1])  # what the libraries keep from the first pass on
    gc.collect()
    trim_freed_memory()
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    engine = make_engine(scorer, 1e-6, 0.0, config.engine, config.rlso.precision)
    rewards, logps = torch.randn(num_sessions, num_profiles, dtype=torch.float64), None
    for _ in range(2):
        logps, _ = policy_step(engine, batches, rewards, logps, config.rlso, 1e-6)
    print(memory("VmHWM") - before)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
    end_process(0)
