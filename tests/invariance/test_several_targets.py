"""Rewards that average over several items that a user chose next."""

import numpy as np
import pytest
import torch

from langptune_rs.config import load_config
from langptune_rs.data import load
from langptune_rs.data.store.later_targets import later_targets
from langptune_rs.models.embedder import Embedder
from langptune_rs.models.policy import Policy
from langptune_rs.rollout.writer import ProfileWriter
from langptune_rs.seeds import derive_seed
from langptune_rs.training.schedules import batch_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

OPTIONS = ("data.num_targets=3", "method=LangPTune-RLSO", "evaluation.max_sessions=4", "logging.tensorboard=false")


def test_the_reward_is_the_mean_over_the_targets_that_a_session_has(train):
    """Of the first rollout, in float64 from the profiles that the initial policy writes with the same seeds."""
    run = train(*OPTIONS)
    assert run.exit_code == 0, run.stderr
    config, data = load_config(run.folder / "config.toml"), load(run.folder / "data")
    train_sessions = data.sessions.select("train")
    rows = batch_rows(len(train_sessions), config.rlso.batch_size, 0, derive_seed(config.seed, "rlso", 0))
    sessions = train_sessions.take(rows)
    writer = ProfileWriter(Policy.load(config.policy, torch.float32), data, config.profile)
    seeds = [derive_seed(config.seed, "sample", 0, 0, int(session)) for session in sessions.session_ids]
    profiles = writer.write(writer.prompts(sessions), num_samples=config.rlso.num_profiles, seeds=seeds)

    embedder = Embedder.load(config.embedder, torch.float32)
    scores = embedder.encode_profiles(profiles.texts).astype(np.float64) @ embedder.encode_items(data.catalog.texts).T
    targets = later_targets(data.sessions, sessions, 3)
    assert min(map(len, targets)) < max(map(len, targets)) == 3
    rewards = []
    for i, (own, is_finished) in enumerate(zip(scores, profiles.finished, strict=True)):
        session = i // config.rlso.num_profiles
        own[sessions.histories[session]] = -np.inf
        ranks = [1 + (own > own[target]).sum() for target in targets[session]]
        rewards.append(np.mean(1 / np.log2(1 + np.array(ranks))) if is_finished else 0.0)
    first = next(line for line in run.lines if "reward/mean" in line)
    assert first["reward/mean"] == pytest.approx(np.mean(rewards), rel=1e-6)
    assert first["reward/std"] == pytest.approx(np.std(rewards), rel=1e-6)


def test_fewer_targets_are_said_once_whatever_the_number_of_processes(train):
    one, two = train(*OPTIONS), train(*OPTIONS, nproc=2)
    for run in (one, two):
        assert run.exit_code == 0, run.stderr
        assert run.stderr.count("data.num_targets = 3: ") == 1
    assert "of 100 training sessions have fewer targets" in one.stderr
    assert two.losses == pytest.approx(one.losses, rel=1e-6)


def test_without_later_sessions_a_reward_has_one_target_and_a_line_says_so(train):
    options = ("data.windows=last", "rlso.batch_size=4")
    several, one = train(*OPTIONS, *options), train(*OPTIONS, *options, "data.num_targets=1")
    assert several.exit_code == 0, several.stderr
    assert 'Only data prepared with windows = "all" has several sessions of a user.' in several.stderr
    assert several.losses == one.losses
